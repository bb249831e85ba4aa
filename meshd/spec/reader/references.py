"""Read the keys that refer to other services of the file: `depends_on`, `extra_hosts`.

Called by `meshd.spec.reader.service`.
"""

from typing import Final

from meshd.spec.errors import suggest
from meshd.spec.model import Service
from meshd.spec.reader import values
from meshd.spec.reader.context import ReadContext
from meshd.spec.source.cursor import Cursor, KeyTable

_CONDITIONS: Final = {
    "service_started": None,
    "service_healthy": "wait_healthy",
    "service_completed_successfully": "wait_completed",
}
"""The conditions of `depends_on`, with the field of the service that lists those dependencies."""


def read_depends_on(at: Cursor, context: ReadContext) -> dict[str, tuple[str, ...]]:
    """Read `depends_on`; return the values of the fields of `Service` that follow from it."""
    found: dict[str, list[str]] = {
        name: []
        for name in (
            "depends_on",
            "wait_healthy",
            "wait_completed",
            "optional_dependencies",
            "restart_with",
        )
    }
    for name, entry in values.read_names(at):
        given: dict[str, object] = {}
        if entry.node.mapping is not None:
            entry.read_keys(
                KeyTable(
                    read={
                        "condition": lambda c, g=given: g.update(
                            field=_CONDITIONS[c.read_one_of(*_CONDITIONS)]
                        ),  # type: ignore[misc]
                        "required": lambda c, g=given: g.update(required=c.read_boolean()),  # type: ignore[misc]
                        "restart": lambda c, g=given: g.update(restart=c.read_boolean()),  # type: ignore[misc]
                    }
                )
            )
        is_optional = given.get("required") is False
        if is_optional and name not in context.enabled:
            continue
        _check_dependency(entry, name, context)
        found["depends_on"].append(name)
        if field := given.get("field"):
            found[str(field)].append(name)
        if is_optional:
            found["optional_dependencies"].append(name)
        if given.get("restart"):
            found["restart_with"].append(name)
    return {field: tuple(names) for field, names in found.items()}


def read_extra_hosts(at: Cursor, context: ReadContext) -> dict[str, str]:
    """Read `extra_hosts`; return addresses by name. As in Docker Compose they come before the
    names of services."""
    hosts = values.read_hosts(at)
    for name in hosts:
        if name in context.services:
            at.add_warning(f"the name of the service {name} leads to {hosts[name]} here")
    return hosts


def add_implied(at: Cursor, service: Service, context: ReadContext) -> Service:
    """Return the service with the dependencies that its other keys imply: it starts after a service
    whose namespace or mounts it shares, or that it links to."""
    keys = ("network_mode", "ipc", "pid", "volumes_from", "links")
    at = next(
        (at.child(node, key) for key, node in (at.node.mapping or {}).items() if key in keys), at
    )
    implied = (*service.options.shared_services, *service.options.linked_services)
    for name in dict.fromkeys(implied):
        _check_dependency(at, name, context)
    return service.model_copy(
        update={"depends_on": tuple(dict.fromkeys((*service.depends_on, *implied)))}
    )


def _check_dependency(at: Cursor, name: str, context: ReadContext) -> None:
    if name == at.service:
        at.add_problem("a service cannot depend on itself")
    elif name not in context.services:
        near = suggest(name, context.services)
        at.add_problem(
            f"the service {name!r} does not exist{near or '; expected a service of this file'}"
        )
    elif name not in context.enabled:
        at.add_problem(
            f"the service {name!r} is in an inactive profile; expected an active profile, or "
            "required: false"
        )
