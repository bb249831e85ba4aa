"""What must hold between the services of one file."""

from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

from meshd.spec.errors import Location, suggest
from meshd.spec.model import Service
from meshd.spec.source.cursor import Cursor


def check_project(
    services: Sequence[Service], at: Mapping[str, Cursor], known: frozenset[str]
) -> None:
    """Note every clash between `services`. `at` is each one's place in the file; `known` are
    all names of the file, those of profiles that are off included."""
    _check_routes(services, at, known)
    _check_callers(services, at, known)
    _check_cycles(services, at)
    _check_names(services, at)


def _check_routes(
    services: Sequence[Service], at: Mapping[str, Cursor], known: frozenset[str]
) -> None:
    taken: dict[tuple[str, ...], tuple[str, Location]] = {}
    for service in services:
        for index, route in enumerate(service.mesh.routes):
            here = _descend(at[service.name], "x-mesh", "routes", index)
            owner = taken.setdefault(route.key, (service.name, here.node.location))
            if owner[0] != service.name:
                here.add_problem(
                    f"the route {route} is already taken by service {owner[0]} at {owner[1]}; "
                    "expected each route once"
                )
            if route.mirror and "/" not in route.mirror and route.mirror not in known:
                near = suggest(route.mirror, known)
                here.add_problem(f"there is no service {route.mirror!r} to mirror to{near or ''}")


def _check_callers(
    services: Sequence[Service], at: Mapping[str, Cursor], known: frozenset[str]
) -> None:
    for service in services:
        for index, caller in enumerate(service.mesh.allow or ()):
            if "/" not in caller and caller not in known:
                near = suggest(caller, known)
                _descend(at[service.name], "x-mesh", "allow", index).add_problem(
                    f"there is no service {caller!r}{near or '; expected one of this file'}"
                )


def _check_cycles(services: Sequence[Service], at: Mapping[str, Cursor]) -> None:
    """Note a circle of `depends_on`, at its first member in the file."""
    order = [service.name for service in services]
    try:
        TopologicalSorter({each.name: each.depends_on for each in services}).prepare()
    except CycleError as error:
        # The sorter names each one before the one that depends on it, the first twice.
        circle = error.args[1][:0:-1]
        start = circle.index(min(circle, key=order.index))
        circle = [*circle[start:], *circle[: start + 1]]
        if len(circle) > 2:
            _descend(at[circle[0]], "depends_on").add_problem(
                f"{' -> '.join(circle)} is a circle; expected an order to start in"
            )


def _check_names(services: Sequence[Service], at: Mapping[str, Cursor]) -> None:
    """`a-b` and `a_b` would both be told to others as MESH_URL_A_B."""
    taken: dict[str, str] = {}
    for service in services:
        owner = taken.setdefault(service.name.replace("-", "_"), service.name)
        if owner != service.name:
            at[service.name].add_problem(
                f"the name differs from {owner} in - and _ alone, so MESH_URL_"
                f"{owner.upper().replace('-', '_')} would mean both; expected clearer names"
            )


def _descend(at: Cursor, *path: str | int) -> Cursor:
    """The cursor at `path`, or as near to it as the file goes."""
    for step in path:
        mapping, sequence = at.node.mapping, at.node.sequence
        if isinstance(step, str) and mapping is not None and step in mapping:
            at = at.child(mapping[step], step)
        elif isinstance(step, int) and sequence is not None and step < len(sequence):
            at = at.child(sequence[step], f"[{step}]")
    return at
