"""A file's tree with its variables replaced: what one is, `interpolate` says, and this where."""

from collections.abc import Mapping
from dataclasses import replace

from meshd.spec.errors import Diagnostics, Problem
from meshd.spec.source.interpolate import InterpolationError, interpolate
from meshd.spec.source.yaml_tree import SourceNode


def substitute_variables(
    root: SourceNode, variables: Mapping[str, str], diagnostics: Diagnostics
) -> SourceNode:
    """The file with variables replaced, except under its own `x-` keys at the top: what is
    used of them stands at its alias as well."""
    mapping = root.mapping
    if mapping is None:
        return root
    found = {
        key: node
        if key.startswith("x-") and key != "x-mesh"
        else _substitute(node, variables, diagnostics, ("", key))
        for key, node in mapping.items()
    }
    return replace(root, value=found)


def _substitute(
    node: SourceNode, variables: Mapping[str, str], diagnostics: Diagnostics, place: tuple[str, str]
) -> SourceNode:
    """`node` with variables replaced; `place` is the service and field for messages."""
    if node.mapping is not None:
        return replace(
            node,
            value={
                key: _substitute(child, variables, diagnostics, _child_path(place, key))
                for key, child in node.mapping.items()
            },
        )
    if node.sequence is not None:
        return replace(
            node, value=[_substitute(item, variables, diagnostics, place) for item in node.sequence]
        )
    if not isinstance(node.value, str) or "$" not in node.value:
        return node
    missing: list[str] = []
    try:
        text = interpolate(node.value, variables, missing.append)
    except InterpolationError as error:
        diagnostics.problems.append(Problem(node.location, *place, str(error)))
        return node
    diagnostics.warnings += [
        Problem(node.location, *place, f"the variable {name} is not set; {_describe_unset(name)}")
        for name in missing
    ]
    return replace(node, value=text, text=text)


def _describe_unset(name: str) -> str:
    """What becomes of an unset variable; a replica's own is only known where it runs."""
    if name == "PORT" or name.startswith("MESH_URL_"):
        return f"it becomes empty here; write sh -c '… $${name}' for what a replica is told"
    return "it becomes empty"


def _child_path(place: tuple[str, str], key: str) -> tuple[str, str]:
    """The service and field of a child; the children of `services` are services."""
    service_name, field = place
    if (service_name, field) == ("", "services"):
        return key, ""
    return service_name, f"{field}.{key}" if field else key
