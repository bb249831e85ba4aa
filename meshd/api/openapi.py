"""Describes the API in OpenAPI 3.1, from the table of routes and the types of its values.

`server` serves it at `/openapi.json`, and `docs/openapi.json` is a copy, written by
`python -m docs.openapi`. The copy leaves out the fields of specifications, which are many.
"""

import inspect
import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

import msgspec
import pydantic
from aiohttp import web

from meshd.api.problems import PROBLEM, ApiProblem
from meshd.api.routes import EVENT_STREAM, JSON, NDJSON, ApiRoute
from meshd.model.access import Role

_COMPONENTS: Final = "#/components/schemas/"
_PATH_PARAMETERS: Final = {
    "record": "Id of a record of the flight recorder.",
    "project": "Name of a project.",
    "service": "Name of a service within the project.",
    "node": "Name of a node.",
    "replica": "Name of a replica.",
    "job": "Id of a job.",
    "name": "A host name.",
    "token": "Id of a token.",
    "silence": "Id of a silence.",
    "volume": "Name of a volume on the runtime or in the Compose file.",
}


def describe(routes: Sequence[ApiRoute], with_specs: bool = True) -> dict[str, Any]:
    """Return the description of `routes` as an OpenAPI document; without the fields of
    specifications (`Project` and its parts) unless `with_specs` is set."""
    types = _Types(routes, with_specs)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, types)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "meshd",
            "version": "1",
            "description": "The API of the daemon. `x-role` of an operation is the lowest role "
            "that may use it: view, operate or admin.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(types.components.items())),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


class DescriptionHandlers:
    """Returns the description of `routes`, made at the first request."""

    def __init__(self, routes: Sequence[ApiRoute]) -> None:
        self._routes = routes
        self._encoded = b""

    async def description(self, _: web.Request) -> web.Response:
        if not self._encoded:
            self._encoded = msgspec.json.encode(describe(self._routes))
        return web.Response(body=self._encoded, content_type=JSON)


class _Types:
    """The JSON schemas of all types that the routes name. `components`: by name."""

    def __init__(self, routes: Sequence[ApiRoute], with_specs: bool) -> None:
        named = [kind for route in routes for kind in (route.response, route.body, route.streams)]
        values = [kind for kind in named if kind not in (None, bytes) and not _is_model(kind)]
        schemas, self.components = msgspec.json.schema_components(
            [ApiProblem, *values], ref_template=_COMPONENTS + "{name}"
        )
        self._schemas = dict(zip(map(repr, [ApiProblem, *values]), schemas, strict=True))
        for kind in filter(_is_model, named):
            schema: dict[str, Any] = {
                "type": "object",
                "description": "See `/openapi.json` of a daemon.",
            }
            if with_specs:
                schema = kind.model_json_schema(ref_template=_COMPONENTS + "{model}")
            self.components |= schema.pop("$defs", {})
            self.components[kind.__name__] = schema
            self._schemas[repr(kind)] = {"$ref": _COMPONENTS + kind.__name__}
        for schema in self.components.values():
            if "description" in schema:
                schema["description"] = inspect.cleandoc(schema["description"])

    def schema(self, kind: Any) -> dict[str, Any]:
        """Return the schema of a type, which may refer to `components`."""
        return (
            {"type": "string", "format": "binary"} if kind is bytes else self._schemas[repr(kind)]
        )


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, pydantic.BaseModel)


def _operation(route: ApiRoute, types: _Types) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": operation_id(route),
        "summary": route.summary,
        "x-role": route.role,
        "parameters": [*_path_parameters(route), *_query_parameters(route)],
        "responses": {
            str(route.status): _success(route, types),
            "default": {
                "description": "The request failed.",
                "content": {PROBLEM: {"schema": types.schema(ApiProblem)}},
            },
        },
    }
    if route.body is not None:
        found["requestBody"] = {
            "required": True,
            "content": {route.body_media: {"schema": types.schema(route.body)}},
        }
    return found


def operation_id(route: ApiRoute) -> str:
    """Return a unique name of the operation: its method and the fixed and variable parts of its
    path."""
    words = re.findall(r"[A-Za-z0-9]+", route.path)
    return "_".join([route.method.lower(), *words])


def _path_parameters(route: ApiRoute) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": _PATH_PARAMETERS[name],
            "schema": {"type": "string", "minLength": 1},
        }
        for name in re.findall(r"{(\w+)}", route.path)
    ]


def _query_parameters(route: ApiRoute) -> list[dict[str, Any]]:
    return [
        {
            "name": each.name,
            "in": "query",
            "required": False,
            "description": each.text,
            "schema": each.schema(),
        }
        for each in route.query
    ]


def _success(route: ApiRoute, types: _Types) -> dict[str, Any]:
    found: dict[str, Any] = {"description": HTTPStatus(route.status).phrase}
    content: dict[str, Any] = {}
    if route.response is not None:
        content[route.media] = {"schema": types.schema(route.response)}
    elif route.role is not Role.VIEW and route.status != 200:
        return found
    else:
        content[route.media] = {"schema": {"type": "string"}}
    if route.streams is not None:
        content[NDJSON] = {"schema": types.schema(route.streams)}
        content[EVENT_STREAM] = {"schema": {"type": "string"}}
    found["content"] = content
    if route.paged:
        found["headers"] = {
            "Link": {
                "description": "The next page (RFC 8288), if there is one.",
                "schema": {"type": "string"},
            }
        }
    return found
