"""Specs and endpoints → the snapshot. Pure, and deterministic: equal input gives equal bytes.

Services are ordered by key, routes by the order the specs list them in (projects by name), so
that the order in which a caller happens to hold its values never shows up as a change.
"""

import hashlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

import msgspec

from meshd.spec import model
from proxy.wire import snapshot as wire

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
_NO_WEIGHTS: Final[Mapping[str, Mapping[str, float]]] = MappingProxyType({})
_encoder: Final = msgspec.msgpack.Encoder()


def service_key(project: str, service: str) -> str:
    """The name of a service across projects: `PROJECT/SERVICE`."""
    return f"{project}/{service}"


def compile_snapshot(
    generation: wire.Generation,
    projects: Sequence[model.Project],
    endpoints: Mapping[str, Sequence[wire.Endpoint]],
    *,
    listeners: Sequence[wire.Listener] = (),
    credentials: Mapping[str, str] = _NOTHING,
    callers: Mapping[str, str] = _NOTHING,
    trusted_proxies: Sequence[str] = (),
    revision_weights: Mapping[str, Mapping[str, float]] = _NO_WEIGHTS,
) -> wire.Snapshot:
    """The snapshot at `generation`.

    - `projects`: the desired ones and the adopted ones. Where two hold the same service key,
      the first given wins.
    - `endpoints`: by service key, as `meshd.discovery` judged them; a key without a service is
      left out, a service without endpoints parks its requests.
    - `listeners`, `credentials` (token → service key), `callers` (address → service key) and
      `trusted_proxies` are passed on in a fixed order.
    - `revision_weights`: service key → revision → weight, for a rollout that shifts traffic by
      weight; without an entry a route goes to every revision alike.
    """
    services: dict[str, wire.Service] = {}
    routes: list[wire.Route] = []
    for project in sorted(projects, key=lambda each: each.name):
        for service in project.services:
            key = service_key(project.name, service.name)
            if key in services:
                continue
            services[key] = _service(project.name, service, endpoints.get(key, ()))
            routes += _routes(key, service.mesh.routes, revision_weights.get(key))
    return wire.Snapshot(
        generation=generation,
        services=tuple(services[key] for key in sorted(services)),
        routes=tuple(routes),
        listeners=tuple(sorted(listeners, key=lambda each: each.address)),
        credentials=dict(sorted(credentials.items())),
        callers=dict(sorted(callers.items())),
        trusted_proxies=tuple(sorted(trusted_proxies)),
    )


def route_conflicts(projects: Sequence[model.Project]) -> list[str]:
    """Routes that two services of `projects` both claim, a sentence each; empty when none.

    Within one Compose file the spec refuses them already; this is for several projects.
    """
    owners: dict[tuple[str, str], str] = {}
    conflicts = []
    for project in sorted(projects, key=lambda each: each.name):
        for service in project.services:
            key = service_key(project.name, service.name)
            for route in service.mesh.routes:
                owner = owners.setdefault((route.host, route.path), key)
                if owner != key:
                    conflicts.append(f"route {route} of {key} is already taken by {owner}")
    return conflicts


def _service(
    project: str, service: model.Service, endpoints: Sequence[wire.Endpoint]
) -> wire.Service:
    """One service's part, named by a fingerprint over all of its content."""
    mesh = service.mesh
    compiled = wire.Service(
        name=service_key(project, service.name),
        fingerprint="",
        endpoints=tuple(sorted(endpoints, key=lambda each: each.id)),
        allow=None if mesh.allow is None else _allow(project, mesh.allow),
        balance=_balance(mesh.balance),
        timeouts=wire.Timeouts(**vars(mesh.timeouts)),
        retries=wire.Retries(**vars(mesh.retries)),
        limits=wire.Limits(**vars(mesh.limits)),
        parking=wire.Parking(**vars(mesh.parking)),
        ejection=wire.Ejection(**vars(mesh.eject)),
    )
    digest = hashlib.sha256(_encoder.encode(compiled)).hexdigest()
    return msgspec.structs.replace(compiled, fingerprint=digest[:16])


def _allow(project: str, names: Sequence[str]) -> tuple[str, ...]:
    """Callers as keys; a name with a slash is a key of another project already."""
    return tuple(sorted(n if "/" in n else service_key(project, n) for n in set(names)))


def _balance(balance: model.Balance) -> wire.Balance:
    source, _, name = balance.hash_by.partition(":")
    key = {"source": source, "name": name} if source else {}
    return wire.Balance(
        algorithm=balance.algorithm,
        hash_key=msgspec.convert(key, wire.HashKey),
        sticky_cookie=balance.sticky_cookie,
        slow_start=balance.slow_start,
        panic=balance.panic,
    )


def _routes(
    key: str, specs: Sequence[model.RouteSpec], weights: Mapping[str, float] | None
) -> list[wire.Route]:
    """The service's routes, `PROJECT/SERVICE#i` in the order the spec lists them."""
    targets: tuple[wire.Target, ...] = (wire.Target(service=key),)
    if weights:
        targets = tuple(
            wire.Target(service=key, revision=revision, weight=weight)
            for revision, weight in sorted(weights.items())
        )
    return [
        wire.Route(
            id=f"{key}#{index}", targets=targets, host=spec.host, path=spec.path, strip=spec.strip
        )
        for index, spec in enumerate(specs)
    ]
