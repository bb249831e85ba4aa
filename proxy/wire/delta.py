"""What changed between two snapshots, so that a change costs its own size and not that of the mesh.

`meshd.publish.publisher`, `meshd.node_proxy.proxies` and `proxy.supervisor` send it to receivers
that understand it; `proxy.wire.snapshot` has the whole snapshot for the others, and for those that
do not have the one before. Field names are sent, so they are a contract between versions.
"""

from collections.abc import Mapping
from typing import Any, Final, TypeVar

import msgspec

from proxy.wire.frozen import Frozen
from proxy.wire.snapshot import (
    AcmeChallenge,
    CertificateFiles,
    Endpoint,
    Generation,
    Listener,
    MissingService,
    Route,
    Service,
    Snapshot,
)


class EndpointChanges(Frozen, frozen=True):
    """A service of which only endpoints changed.

    - `fingerprint`: that of the service with the changes
    - `endpoints`: the new and the changed ones; `removed`: ids of those that are gone
    """

    name: str
    fingerprint: str
    endpoints: tuple[Endpoint, ...] = ()
    removed: tuple[str, ...] = ()


class RouteChanges(Frozen, frozen=True):
    """From index `start` on, `count` routes are replaced by `routes`."""

    start: int
    count: int
    routes: tuple[Route, ...] = ()


class MappingChanges(Frozen, frozen=True):
    """Entries of a mapping that are new or changed, and keys that are gone."""

    entries: dict[str, str] = msgspec.field(default_factory=dict)
    removed: tuple[str, ...] = ()


class SnapshotDelta(Frozen, frozen=True):
    """What turns the snapshot at generation `base` into the one at `generation`.

    - `services`: the new ones, and those of which more than endpoints changed
    - `endpoints`: the services of which only endpoints changed
    - `removed`: names of the services that are gone

    The other fields are as in `Snapshot`; None means that the field is unchanged.
    """

    base: Generation
    generation: Generation
    services: tuple[Service, ...] = ()
    endpoints: tuple[EndpointChanges, ...] = ()
    removed: tuple[str, ...] = ()
    routes: RouteChanges | None = None
    listeners: tuple[Listener, ...] | None = None
    credentials: MappingChanges | None = None
    callers: MappingChanges | None = None
    trusted_proxies: tuple[str, ...] | None = None
    via: bool | None = None
    virtual: MappingChanges | None = None
    certificates: tuple[CertificateFiles, ...] | None = None
    challenges: tuple[AcmeChallenge, ...] | None = None
    peers: dict[str, int] | None = None
    peers_valid_from: dict[str, int] | None = None
    requires_peers: bool | None = None
    starting: tuple[Endpoint, ...] | None = None


T = TypeVar("T")
_WHOLE: Final = (
    "listeners",
    "trusted_proxies",
    "via",
    "certificates",
    "challenges",
    "peers",
    "peers_valid_from",
    "requires_peers",
    "starting",
)
"""Fields that are sent as a whole: short, or seldom changed."""
_MAPPINGS: Final = ("credentials", "callers", "virtual")


def find_changes(old: Snapshot, new: Snapshot) -> SnapshotDelta:
    """Return the delta that turns `old` into `new`. Services with equal fingerprints are equal."""
    before = {service.name: service for service in old.services}
    services: list[Service] = []
    endpoints: list[EndpointChanges] = []
    for service in new.services:
        known = before.pop(service.name, None)
        if known is service or (known and known.fingerprint == service.fingerprint):
            continue
        changes = _find_endpoint_changes(known, service) if known else None
        if changes is None:
            services.append(service)
        else:
            endpoints.append(changes)
    whole: dict[str, Any] = {
        name: _if_changed(getattr(old, name), getattr(new, name)) for name in _WHOLE
    }
    mappings: dict[str, Any] = {
        name: _find_mapping_changes(getattr(old, name), getattr(new, name)) for name in _MAPPINGS
    }
    return SnapshotDelta(
        base=old.generation,
        generation=new.generation,
        services=tuple(services),
        endpoints=tuple(endpoints),
        removed=tuple(before),
        routes=_find_route_changes(old.routes, new.routes),
        **mappings,
        **whole,
    )


def apply_changes(old: Snapshot | None, delta: SnapshotDelta) -> Snapshot:
    """Return the snapshot that `delta` describes. Raises MissingService if `old` is another one
    than that on which it is based."""
    if old is None or old.generation != delta.base:
        raise MissingService(f"the snapshot {delta.base} is missing")
    services = {service.name: service for service in old.services}
    for name in delta.removed:
        services.pop(name, None)
    services |= {service.name: service for service in delta.services}
    for change in delta.endpoints:
        if change.name not in services:
            raise MissingService(change.name)
        services[change.name] = _apply_endpoint_changes(services[change.name], change)
    changed: dict[str, Any] = {
        name: value for name in _WHOLE if (value := getattr(delta, name)) is not None
    }
    for name in _MAPPINGS:
        if (mapping := getattr(delta, name)) is not None:
            changed[name] = _apply_mapping_changes(getattr(old, name), mapping)
    if (routes := delta.routes) is not None:
        rest = old.routes[routes.start + routes.count :]
        changed["routes"] = (*old.routes[: routes.start], *routes.routes, *rest)
    return msgspec.structs.replace(
        old,
        generation=delta.generation,
        services=tuple(services[name] for name in sorted(services)),
        **changed,
    )


def _if_changed(old: T, new: T) -> T | None:
    return None if old == new else new


def _find_endpoint_changes(old: Service, new: Service) -> EndpointChanges | None:
    """Return the changes of a service's endpoints; None if anything else changed, too."""
    before = {endpoint.id: endpoint for endpoint in old.endpoints}
    after = {endpoint.id for endpoint in new.endpoints}
    changes = EndpointChanges(
        new.name,
        new.fingerprint,
        tuple(each for each in new.endpoints if before.get(each.id) != each),
        tuple(id for id in before if id not in after),
    )
    return changes if _apply_endpoint_changes(old, changes) == new else None


def _apply_endpoint_changes(old: Service, changes: EndpointChanges) -> Service:
    endpoints = {endpoint.id: endpoint for endpoint in old.endpoints}
    for id in changes.removed:
        endpoints.pop(id, None)
    endpoints |= {endpoint.id: endpoint for endpoint in changes.endpoints}
    return msgspec.structs.replace(
        old,
        fingerprint=changes.fingerprint,
        endpoints=tuple(endpoints[id] for id in sorted(endpoints)),
    )


def _find_route_changes(old: tuple[Route, ...], new: tuple[Route, ...]) -> RouteChanges | None:
    """Return the one run of routes that is replaced: their order counts."""
    if old == new:
        return None
    shorter = min(len(old), len(new))
    start = 0
    while start < shorter and old[start] == new[start]:
        start += 1
    same = 0
    while same < shorter - start and old[-1 - same] == new[-1 - same]:
        same += 1
    return RouteChanges(start, len(old) - start - same, new[start : len(new) - same])


def _find_mapping_changes(old: Mapping[str, str], new: Mapping[str, str]) -> MappingChanges | None:
    if old == new:
        return None
    return MappingChanges(
        {key: value for key, value in new.items() if old.get(key) != value},
        tuple(key for key in old if key not in new),
    )


def _apply_mapping_changes(old: Mapping[str, str], changes: MappingChanges) -> dict[str, str]:
    found = {**old, **changes.entries}
    for key in changes.removed:
        found.pop(key, None)
    return found
