"""The reference of the API, from its OpenAPI description.

`docs.site.stage` calls `render`; `docs/api.md` explains access, streams, pages and errors.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from docs.site.reference.markdown import code, sentence, table
from meshd.api.openapi import describe
from meshd.api.route_table import ROUTES

Schema = Mapping[str, Any]
HEAD: Final = """# Operations of the API

Every operation and type, generated from the code. [The API](/api.md) explains addresses, tokens,
streams and errors; [openapi.json](/openapi.json) is the same description for programs.
"""


def render() -> str:
    """Return the page."""
    document = describe(ROUTES, with_specs=False)
    schemas: Mapping[str, Schema] = document["components"]["schemas"]
    operations = [
        (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    rows = [
        (f"[`{method} {path}`](#{anchor(method, path)})", each["summary"], each["x-role"])
        for method, path, each in operations
    ]
    parts = [HEAD, "## Operations", "", table(["operation", "meaning", "role"], rows), ""]
    for method, path, operation in operations:
        parts += [*describe_operation(method, path, operation), ""]
    parts += ["## Types", ""]
    for name, schema in sorted(schemas.items()):
        parts += [*describe_type(name, schema), ""]
    return "\n".join(parts)


def anchor(method: str, path: str) -> str:
    """Return the target of links to an operation."""
    return f"{method}-{path.strip('/')}".lower().translate(str.maketrans("/.", "--", "{}"))


def describe_operation(method: str, path: str, operation: Schema) -> Iterator[str]:
    """Yield the section of one operation."""
    yield f"({anchor(method, path)})=\n### `{method} {path}`\n"
    yield f"{sentence(operation['summary'])} Role: {operation['x-role']}.\n"
    parameters = [
        (code(each["name"]), each["in"], type_of(each["schema"]), default_of(each), text_of(each))
        for each in operation.get("parameters", ())
    ]
    if parameters:
        yield table(["parameter", "in", "type", "default", "meaning"], parameters) + "\n"
    rows = [("request", kind, type_of(each["schema"])) for kind, each in body_of(operation)]
    for status, response in operation["responses"].items():
        content = response.get("content", {})
        name = "other" if status == "default" else status
        rows += [(name, kind, type_of(each["schema"])) for kind, each in content.items()]
        if not content:
            rows.append((name, "–", "no content"))
    yield table(["body", "content type", "type"], rows)


def body_of(operation: Schema) -> list[tuple[str, Schema]]:
    """Return the content types of the request's body, with their schemas."""
    return list(operation.get("requestBody", {}).get("content", {}).items())


def describe_type(name: str, schema: Schema) -> Iterator[str]:
    """Yield the section of one type."""
    yield f"({name.lower()})=\n### `{name}`\n"
    yield schema.get("description", "") + "\n"
    required = schema.get("required", ())
    rows = [
        (code(key), type_of(each), "required" if key in required else default_value(each))
        for key, each in schema.get("properties", {}).items()
    ]
    if rows:
        yield table(["field", "type", "default"], rows)
    elif "enum" in schema:
        yield "One of " + ", ".join(code(str(each)) for each in schema["enum"]) + "."


def type_of(schema: Schema) -> str:
    """Return a schema in words, with links to named types."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[`{name}`](#{name.lower()})"
    if "enum" in schema:
        return " or ".join(code(str(each)) for each in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(type_of(each) for each in schema["anyOf"])
    kind = schema.get("type", "any value")
    if kind == "array" and "prefixItems" in schema:
        return f"list of {' and '.join(type_of(each) for each in schema['prefixItems'])}"
    if kind == "array":
        return f"list of {type_of(schema.get('items', {}))}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), Mapping):
        return f"mapping to {type_of(schema['additionalProperties'])}"
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


def default_value(schema: Schema) -> str:
    """Return the default of a field or parameter."""
    value = schema.get("default")
    return "–" if value in (None, "", [], {}) else code(str(value))


def default_of(parameter: Schema) -> str:
    """Return the default of a parameter, or that it is required."""
    return "required" if parameter.get("required") else default_value(parameter["schema"])


def text_of(parameter: Schema) -> str:
    """Return the meaning of a parameter."""
    return str(parameter.get("description", ""))
