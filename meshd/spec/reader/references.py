"""Read the keys that refer to other services of the file: `depends_on`, `extra_hosts`.

Called by `meshd.spec.reader.service`.
"""

from meshd.spec.errors import suggest
from meshd.spec.model import Service
from meshd.spec.reader import values
from meshd.spec.reader.context import ReadContext
from meshd.spec.source.cursor import Cursor, KeyTable


def read_depends_on(at: Cursor, context: ReadContext) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Read `depends_on`; return the services to start first, and those of them that must also be
    healthy."""
    names: list[str] = []
    healthy: list[str] = []
    for name, entry in values.read_names(at):
        found: dict[str, object] = {"condition": "service_started", "required": True}
        if entry.node.mapping is not None:
            entry.read_keys(
                KeyTable(
                    read={
                        "condition": lambda c, f=found: f.update(
                            condition=values.read_condition(c)
                        ),  # type: ignore[misc]
                        "required": lambda c, f=found: f.update(required=c.read_boolean()),  # type: ignore[misc]
                    },
                    warned={"restart": "the mesh finds new replicas itself"},
                )
            )
        if not found["required"] and name not in context.enabled:
            continue
        _check_dependency(entry, name, context)
        names.append(name)
        if found["condition"] == "service_healthy":
            healthy.append(name)
    return tuple(names), tuple(healthy)


def read_extra_hosts(at: Cursor, context: ReadContext) -> dict[str, str]:
    """Read `extra_hosts`; return addresses by name. Names of services are errors."""
    hosts = values.read_hosts(at)
    for name in hosts:
        if name in context.services:
            at.add_problem(f"{name} is a service of this file, and the mesh resolves its name")
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
