"""Checks across the services of a project: routes, callers, dependencies and names.

Called by `meshd.spec.compose` after all services were read. Checks of one service are in
`meshd.spec.reader.service_checks`.
"""

from collections.abc import Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Final

from meshd.spec.errors import Location, suggest
from meshd.spec.model import Service
from meshd.spec.model.service import url_variable
from meshd.spec.source.cursor import Cursor

_MAX_NAMED: Final = 3
"""Names of services in one warning: enough to see what is meant."""


def check_project(
    services: Sequence[Service], at: Mapping[str, Cursor], known: frozenset[str]
) -> None:
    """Record every conflict between `services`.

    `at` has the cursor of each service. `known` are the names of all services of the file,
    including those in inactive profiles.
    """
    _check_routes(services, at, known)
    _check_callers(services, at, known)
    _check_apart(services, at, known)
    _check_cycles(services, at)
    _check_names(services, at)
    _check_container_names(services, at)
    _warn_of_endless_waits(services, at)
    _warn_of_direct_connections(services, at)


def check_backups(
    at: Cursor, backups: Iterable[str], services: Sequence[Service], known: frozenset[str]
) -> None:
    """Record the backup hooks of services that do not exist or have no named volume. `at` is
    `x-mesh` at the top level; `known` are the names of all services of the file."""
    active = {service.name: service for service in services}
    for name in backups:
        here = _descend(at, "backups", name)
        if name not in known:
            here.add_problem(f"the service {name!r} does not exist{suggest(name, known)}")
        elif name in active and not any(
            mount.type == "volume" and mount.source for mount in active[name].volumes
        ):
            here.add_problem(
                f"service {name} mounts no named volume; expected a service with one, because the "
                "commands run only for its backup"
            )


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
                    f"the route {route} is already used by service {owner[0]} at {owner[1]}; "
                    "expected a unique route"
                )
            if route.mirror and "/" not in route.mirror and route.mirror not in known:
                here.add_problem(
                    f"the mirror service {route.mirror!r} does not exist"
                    f"{suggest(route.mirror, known)}"
                )
            if route.forward_auth is not None:
                _check_decider(route.forward_auth.service, services, here)


def _check_decider(name: str, services: Sequence[Service], here: Cursor) -> None:
    """Record what is wrong with the service of `forward_auth`."""
    if "/" in name:
        return
    by_name = {service.name: service for service in services}
    if name not in by_name:
        near = suggest(name, by_name)
        here.add_problem(f"the forward_auth service {name!r} does not exist{near}")
    elif by_name[name].plain:
        here.add_problem(
            f"the forward_auth service {name!r} is a plain service; expected one with x-mesh"
        )


def _check_callers(
    services: Sequence[Service], at: Mapping[str, Cursor], known: frozenset[str]
) -> None:
    for service in services:
        for index, caller in enumerate(service.mesh.allow or ()):
            if "/" not in caller and caller not in known:
                near = suggest(caller, known)
                _descend(at[service.name], "x-mesh", "allow", index).add_problem(
                    f"the service {caller!r} does not exist"
                    f"{near or '; expected a service of this file'}"
                )


def _check_apart(
    services: Sequence[Service], at: Mapping[str, Cursor], known: frozenset[str]
) -> None:
    for service in services:
        for name in service.mesh.placement.apart_from:
            here = _descend(at[service.name], "x-mesh", "placement", "apart_from")
            if name == service.name:
                here.add_problem(
                    "a service cannot be apart from itself; expected "
                    "deploy.placement.max_replicas_per_node: 1"
                )
            elif name not in known:
                near = suggest(name, known)
                here.add_problem(
                    f"the service {name!r} does not exist"
                    f"{near or '; expected a service of this file'}"
                )


def make_apart_mutual(services: Sequence[Service]) -> list[Service]:
    """Return the services so that each one of two that are to be on different nodes says so."""
    apart = {each.name: dict.fromkeys(each.mesh.placement.apart_from) for each in services}
    for service in services:
        for name in service.mesh.placement.apart_from:
            apart.get(name, {})[service.name] = None
    return [
        each
        if tuple(apart[each.name]) == each.mesh.placement.apart_from
        else _apart_from(each, tuple(apart[each.name]))
        for each in services
    ]


def _apart_from(service: Service, names: tuple[str, ...]) -> Service:
    placement = service.mesh.placement.model_copy(update={"apart_from": names})
    mesh = service.mesh.model_copy(update={"placement": placement})
    return service.model_copy(update={"mesh": mesh})


def _check_cycles(services: Sequence[Service], at: Mapping[str, Cursor]) -> None:
    """Record a cycle of `depends_on` at its first service in the file."""
    order = [service.name for service in services]
    try:
        TopologicalSorter({each.name: each.depends_on for each in services}).prepare()
    except CycleError as error:
        # The sorter lists each service before the one that depends on it, and the first one twice.
        cycle = error.args[1][:0:-1]
        start = cycle.index(min(cycle, key=order.index))
        cycle = [*cycle[start:], *cycle[: start + 1]]
        if len(cycle) > 2:
            _descend(at[cycle[0]], "depends_on").add_problem(
                f"the dependencies {' -> '.join(cycle)} form a cycle; remove one of them"
            )


def _warn_of_endless_waits(services: Sequence[Service], at: Mapping[str, Cursor]) -> None:
    """Warn about a dependency that must complete first but is restarted whenever it ends."""
    endless = {each.name: each for each in services if each.restart_condition == "any"}
    for service in services:
        for name in service.wait_completed:
            if (dependency := endless.get(name)) is not None:
                given = dependency.restart.condition
                cause = "by its restart policy" if given else "because it has x-mesh"
                _descend(at[service.name], "depends_on", name).add_warning(
                    f"{name} is restarted whenever it ends, {cause}, so it never completes; set "
                    f"restart: 'no' for {name}"
                )


def _warn_of_direct_connections(services: Sequence[Service], at: Mapping[str, Cursor]) -> None:
    """Warn about services with an `allow` list whose replicas others reach on a shared network."""
    for service in services:
        allow = service.mesh.allow
        if allow is None or service.mesh.audit or service.mesh.enforce:
            continue
        for network in _networks_of(service):
            others = [
                each.name
                for each in services
                if network in _networks_of(each)
                and each.name != service.name
                and each.name not in allow
            ]
            if not others:
                continue
            more = len(others) - _MAX_NAMED
            named = ", ".join(others[:_MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
            _descend(at[service.name], "x-mesh", "allow").add_warning(
                f"{named} can connect to the replicas of {service.name} directly, on the network "
                f"{network}, where allow does not hold; to enforce it, set x-mesh.enforce, or list "
                f"networks for {service.name} that only services in allow share"
            )


def _networks_of(service: Service) -> tuple[str, ...]:
    """Return the networks that a service joins; without any in the file it is `default`."""
    if service.networks or service.options.network_mode:
        return service.networks
    return ("default",)


def _check_names(services: Sequence[Service], at: Mapping[str, Cursor]) -> None:
    """Record names of mesh-managed services such as `a-b` and `a_b`, which would share the variable
    MESH_URL_A_B."""
    taken: dict[str, str] = {}
    for service in services:
        if service.plain:
            continue
        variable = url_variable(service.name)
        owner = taken.setdefault(variable, service.name)
        if owner != service.name:
            at[service.name].add_problem(
                f"the name differs from {owner} only in case or in -, _ and ., so both would use "
                f"{variable}; expected names that differ otherwise"
            )


def _check_container_names(services: Sequence[Service], at: Mapping[str, Cursor]) -> None:
    """Record a `container_name` that two services have."""
    taken: dict[str, str] = {}
    for service in services:
        name = service.options.container_name
        owner = taken.setdefault(name, service.name) if name else service.name
        if owner != service.name:
            _descend(at[service.name], "container_name").add_problem(
                f"service {owner} has the same name; expected a unique one"
            )


def _descend(at: Cursor, *path: str | int) -> Cursor:
    """Return the cursor at `path`, or the deepest one on the path that exists."""
    for step in path:
        mapping, sequence = at.node.mapping, at.node.sequence
        if isinstance(step, str) and mapping is not None and step in mapping:
            at = at.child(mapping[step], step)
        elif isinstance(step, int) and sequence is not None and step < len(sequence):
            at = at.child(sequence[step], f"[{step}]")
    return at
