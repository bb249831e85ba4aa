"""Substitute the variables in the tree of a file.

Called by `meshd.spec.source.loader`. The syntax of variables is in `meshd.spec.source.interpolate`;
this module decides where they are replaced, and records errors and warnings.
"""

from collections.abc import Mapping
from dataclasses import replace

from meshd.spec.errors import Diagnostics, Problem
from meshd.spec.source.interpolate import InterpolationError, interpolate
from meshd.spec.source.yaml_tree import SourceNode


def substitute_variables(
    root: SourceNode, variables: Mapping[str, str], diagnostics: Diagnostics
) -> SourceNode:
    """Return the tree of a file with its variables replaced.

    Extension keys at the top level (other than `x-mesh`) are left unchanged: the parts that are
    used appear again at their aliases.
    """
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


def resolve_bare_names(root: SourceNode, variables: Mapping[str, str]) -> SourceNode:
    """Return the tree of an included file in which the names without a value in a list of
    `environment` have the value of `variables`, if they are set there. As in Compose, names in a
    mapping are left to the variables of the project."""

    def resolve_item(node: SourceNode) -> SourceNode:
        if not isinstance(node.value, str) or node.text not in variables:
            return node
        text = f"{node.text}={variables[node.text]}"
        return replace(node, value=text, text=text)

    def resolve_service(service: SourceNode) -> SourceNode:
        environment = (service.mapping or {}).get("environment")
        if environment is None or environment.sequence is None:
            return service
        resolved = replace(environment, value=list(map(resolve_item, environment.sequence)))
        return replace(service, value={**(service.mapping or {}), "environment": resolved})

    services = (root.mapping or {}).get("services")
    if services is None or services.mapping is None:
        return root
    changed = {name: resolve_service(node) for name, node in services.mapping.items()}
    return replace(
        root, value={**(root.mapping or {}), "services": replace(services, value=changed)}
    )


def _substitute(
    node: SourceNode, variables: Mapping[str, str], diagnostics: Diagnostics, place: tuple[str, str]
) -> SourceNode:
    """Return `node` with its variables replaced. `place` is the service and field for messages."""
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
    """Return what happens to an unset variable. Those that meshd sets exist only in a replica."""
    if name == "PORT" or name.startswith("MESH_URL_"):
        return f"it becomes empty; write sh -c '… $${name}' to use the value set in the replica"
    return "it becomes empty"


def _child_path(place: tuple[str, str], key: str) -> tuple[str, str]:
    """Return the service and field of a child; the children of `services` are services."""
    service_name, field = place
    if (service_name, field) == ("", "services"):
        return key, ""
    return service_name, f"{field}.{key}" if field else key
