"""Read the keys that refer to other parts of the file: `networks`, `depends_on`, `extra_hosts`.

Called by `meshd.spec.reader.service`.
"""

from meshd.spec.errors import suggest
from meshd.spec.reader import unsupported_keys, values
from meshd.spec.reader.context import ReadContext
from meshd.spec.source.cursor import Cursor, KeyTable


def read_networks(
    at: Cursor, context: ReadContext
) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """Read `networks`; return the networks of a service, and its aliases by network."""
    aliases: dict[str, tuple[str, ...]] = {}
    names = []
    for name, entry in values.read_names(at):
        if name != "default" and name not in context.networks:
            entry.add_problem(
                f"the network {name} is not declared; expected it under networks at the top"
            )
        names.append(name)
        if entry.node.mapping is not None:
            entry.read_keys(
                KeyTable(
                    read={"aliases": lambda c, n=name: aliases.update({n: c.read_strings()})},  # type: ignore[misc]
                    refused=unsupported_keys.NETWORK_REFUSED,
                    warned=unsupported_keys.NETWORK_WARNED,
                )
            )
    return tuple(names), aliases


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
