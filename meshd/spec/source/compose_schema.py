"""Check a Compose file against the JSON Schema of the Compose Specification.

Called by `meshd.spec.compose` after the readers, with the merged tree: an overlay may be partial.
The readers report errors in plainer words, so the schema's errors count only on lines without
another error. It finds errors in parts that the readers ignore.
"""

import functools
import json
import re
from collections.abc import Iterable
from importlib import resources
from typing import Any, Final

from jsonschema import Draft7Validator  # type: ignore[import-untyped]
from jsonschema.exceptions import ValidationError  # type: ignore[import-untyped]

from meshd.spec.errors import Diagnostics, Problem
from meshd.spec.source.yaml_tree import SourceNode

SCHEMA_FILE: Final = "compose-spec.json"
_TYPE_NAMES: Final = {
    "array": "a list",
    "boolean": "true or false",
    "integer": "a whole number",
    "null": "nothing",
    "number": "a number",
    "object": "a mapping",
    "string": "text",
}


def check_against_schema(root: SourceNode, diagnostics: Diagnostics) -> None:
    """Record violations of the Compose Specification, except on lines that already have an error.
    `root` is interpolated and merged."""
    known = {problem.location for problem in diagnostics.problems}
    for error in _load_validator().iter_errors(_to_plain(root)):
        for path, text in _describe_errors(_closest_errors(error)):
            node, place = _find_node(root, path)
            if node.location not in known:
                known.add(node.location)
                diagnostics.problems.append(Problem(node.location, *place, text))


@functools.cache
def _load_validator() -> Draft7Validator:
    text = resources.files("meshd.spec").joinpath(SCHEMA_FILE).read_text(encoding="utf-8")
    return Draft7Validator(json.loads(text))


def _to_plain(node: SourceNode) -> Any:
    """Return the value in the form that the schema checks."""
    if node.mapping is not None:
        return {k: _to_plain(each) for k, each in node.mapping.items()}
    if node.sequence is not None:
        return [_to_plain(each) for each in node.sequence]
    return node.value


def _closest_errors(error: ValidationError) -> list[ValidationError]:
    """Return the errors of the alternative that the value most likely meant: the one with the
    deepest error. Several if the value has the type of no alternative."""
    if not error.context:
        return [error]
    leaves = [leaf for each in error.context for leaf in _closest_errors(each)]
    best = max(map(_depth, leaves))
    return [leaf for leaf in leaves if _depth(leaf) == best]


def _depth(error: ValidationError) -> tuple[int, bool]:
    return len(error.absolute_path), error.validator != "type"


def _find_node(root: SourceNode, path: Iterable[str | int]) -> tuple[SourceNode, tuple[str, str]]:
    """Return the node at a path, with its service and field for messages."""
    node, words = root, list[str]()
    for step in path:
        if isinstance(step, int):
            if node.sequence is None:
                break
            node = node.sequence[step]
            words[-1] += f"[{step}]"
        else:
            if node.mapping is None or step not in node.mapping:
                break
            node = node.mapping[step]
            words.append(step)
    if len(words) > 1 and words[0] == "services":
        return node, (words[1], ".".join(words[2:]))
    return node, ("", ".".join(words))


def _describe_errors(errors: list[ValidationError]) -> list[tuple[tuple[str | int, ...], str]]:
    """Return the path and the text of each message for errors of one depth."""
    error = errors[0]
    path = tuple(error.absolute_path)
    match error.validator, error.validator_value:
        case "type", _:
            return [(path, text)] if (text := _describe_wrong_type(errors)) else []
        case "additionalProperties", False:
            text = "unknown key; expected a key of the Compose Specification"
            return [((*path, key), text) for key in sorted(_unknown_keys(error))]
        case "enum", values:
            text = (
                f"{_shorten(error.instance)} is not valid; expected one of "
                f"{', '.join(map(str, values))}"
            )
        case _:
            text = f"does not match the Compose Specification: {error.message}"
    return [(path, text)]


def _describe_wrong_type(errors: list[ValidationError]) -> str | None:
    """Return the message for a wrong type; None for a number where the schema expects text, which
    Compose accepts."""
    names: list[str] = []
    for error in errors:
        types = error.validator_value
        names += [types] if isinstance(types, str) else types
    value = errors[0].instance
    if "string" in names and isinstance(value, int | float):
        return None
    expected = " or ".join(dict.fromkeys(_TYPE_NAMES[name] for name in names))
    return f"{_shorten(value)} does not match the Compose Specification; expected {expected}"


def _unknown_keys(error: ValidationError) -> set[str]:
    """Return the keys that the schema neither lists nor has a pattern for."""
    unlisted = set(error.instance) - set(error.schema.get("properties", {}))
    patterns = error.schema.get("patternProperties", {})
    return {key for key in unlisted if not any(re.search(each, key) for each in patterns)}


def _shorten(value: object) -> str:
    """Return the value as JSON, cut to 60 characters so that a message fits on a line or two."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"
