"""What a service says of others: networks that it shares, services that it starts after, and names
of hosts."""

from meshd.spec.errors import suggest
from meshd.spec.reader import unsupported_keys, values
from meshd.spec.reader.context import ReadContext
from meshd.spec.source.cursor import Cursor, KeyTable


def read_networks(
    at: Cursor, context: ReadContext
) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """The networks that a service is on, and its further names on each."""
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
    """The services that a service starts after, and those of them that must be healthy first."""
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
                    warned={"restart": "the mesh finds new replicas by itself"},
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
    """Names and their addresses, none of them a service's."""
    hosts = values.read_hosts(at)
    for name in hosts:
        if name in context.services:
            at.add_problem(f"{name} is a service of this file, which the mesh answers for")
    return hosts


def _check_dependency(at: Cursor, name: str, context: ReadContext) -> None:
    if name == at.service:
        at.add_problem("a service cannot depend on itself")
    elif name not in context.services:
        near = suggest(name, context.services)
        at.add_problem(f"there is no service {name!r}{near or '; expected one of this file'}")
    elif name not in context.enabled:
        at.add_problem(
            f"the service {name!r} is in a profile that is off; expected the profile on, "
            "or required: false"
        )
