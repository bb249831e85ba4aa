"""Specs and endpoints → the snapshot. Pure and deterministic: equal input gives equal bytes.

`meshd.reconcile.publish_snapshot` and `meshd proxy` call it; `meshd.publish.publisher` sends the
result. Services are ordered by key, and routes by project name and then as the spec lists them, so
that the order of a caller's values never looks like a change.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import msgspec

from meshd.model.peers import NO_PEERS, PeerSettings
from meshd.model.service_key import port_key, service_key
from meshd.publish.filters import compile_filters
from meshd.spec import model
from proxy.http2.grpc import CODES
from proxy.wire import snapshot as wire

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
_NO_SPLITS: Final[Mapping[str, wire.Split]] = MappingProxyType({})
FINGERPRINT_LENGTH: Final = 16
"""Hexadecimal digits of a fingerprint: 64 bits, so that two contents hardly ever collide."""
_encoder: Final = msgspec.msgpack.Encoder()


@dataclass(frozen=True, slots=True)
class EdgeSettings:
    """Settings of the proxy as a whole that are part of the snapshot.

    - `trusted_proxies`: networks whose headers about earlier hops the proxy accepts.
    - `via`: whether requests to endpoints have a Via field.
    """

    trusted_proxies: tuple[str, ...] = ()
    via: bool = False


_NO_EDGE: Final = EdgeSettings()


def compile_snapshot(
    generation: wire.Generation,
    projects: Sequence[model.Project],
    endpoints: Mapping[str, Sequence[wire.Endpoint]],
    *,
    listeners: Sequence[wire.Listener] = (),
    credentials: Mapping[str, str] = _NOTHING,
    callers: Mapping[str, str] = _NOTHING,
    edge: EdgeSettings = _NO_EDGE,
    splits: Mapping[str, wire.Split] = _NO_SPLITS,
    virtual: Mapping[str, str] = _NOTHING,
    fail_on_refusal: Collection[str] = (),
    retained: Collection[str] = (),
    certificates: tuple[wire.CertificateFiles, ...] = (),
    challenges: tuple[wire.AcmeChallenge, ...] = (),
    peers: PeerSettings = NO_PEERS,
    starting: Sequence[wire.Endpoint] = (),
) -> wire.Snapshot:
    """Return the snapshot at `generation`.

    - `projects`: the desired and the adopted ones. If two have the same service key, the first one
      counts.
    - `endpoints`: by service key, from `meshd.discovery.endpoints`. A key without a service is
      ignored; a service without endpoints parks its requests.
    - `listeners`, `credentials` (token → service key), `callers` (address → service key), `virtual`
      (virtual address → service): copied in a fixed order.
    - `edge`: settings of the proxy as a whole.
    - `retained`: plain services that are part of it all the same, because containers may still call
      them at a virtual address.
    - `splits`: service key → how its revisions share the requests, during a rollout that shifts
      traffic by weight. Without an entry all replicas are equal.
    - `fail_on_refusal`: services whose requests fail at once while all endpoints refuse
      connections; those of others wait.
    - `certificates`, `challenges`: from a certificate authority, copied.
    - `peers`: how proxies reach endpoints of other nodes.
    - `starting`: replicas on other nodes that are probed, and take no requests yet.
    """
    services: dict[str, wire.Service] = {}
    routes: list[wire.Route] = []
    for project in sorted(projects, key=lambda each: each.name):
        for service in project.services:
            key = service_key(project.name, service.name)
            if key in services or (service.plain and key not in retained):
                continue
            found = endpoints.get(key, ())
            services |= _compile_ports(
                project.name,
                service,
                found,
                splits.get(key),
                park_on_refusal=key not in fail_on_refusal,
            )
            routes += _compile_routes(project.name, key, service.mesh.routes)
    return wire.Snapshot(
        generation=generation,
        services=tuple(services[key] for key in sorted(services)),
        routes=tuple(routes),
        listeners=tuple(sorted(listeners, key=lambda each: each.address)),
        credentials=dict(sorted(credentials.items())),
        callers=dict(sorted(callers.items())),
        trusted_proxies=tuple(sorted(edge.trusted_proxies)),
        via=edge.via,
        virtual=dict(sorted(virtual.items())),
        certificates=certificates,
        challenges=challenges,
        peers=dict(sorted(peers.ports.items())),
        peers_valid_from={
            node: peers.valid_from[node] for node in sorted(peers.ports) if node in peers.valid_from
        },
        requires_peers=peers.required,
        starting=tuple(sorted(starting, key=lambda each: each.id)),
    )


def route_conflicts(projects: Sequence[model.Project]) -> list[str]:
    """Return a sentence for each route that two services of `projects` claim; empty if none. The
    first project in the list has the route.

    Within one Compose file the spec already rejects such routes; this is for several projects.
    """
    owners: dict[tuple[str, ...], str] = {}
    conflicts = []
    for project in projects:
        for service in project.services:
            key = service_key(project.name, service.name)
            for route in service.mesh.routes:
                owner = owners.setdefault(route.key, key)
                if owner != key:
                    conflicts.append(f"route {route} of {key} is already taken by {owner}")
    return conflicts


def _compile_ports(
    project: str,
    service: model.Service,
    endpoints: Sequence[wire.Endpoint],
    split: wire.Split | None,
    *,
    park_on_refusal: bool,
) -> dict[str, wire.Service]:
    """Compile a service: one entry for its main port, and one for each further port."""
    key = service_key(project, service.name)
    ports = {key: (service.port, endpoints)}
    for port in service.tcp_ports[1:]:
        same = [msgspec.structs.replace(each, port=port) for each in endpoints]
        ports[port_key(key, port)] = (port, same)
    return {
        name: _compile_service(
            project, service, name, port, found, split, park_on_refusal=park_on_refusal
        )
        for name, (port, found) in ports.items()
    }


def _compile_service(
    project: str,
    service: model.Service,
    name: str,
    port: int,
    endpoints: Sequence[wire.Endpoint],
    split: wire.Split | None,
    *,
    park_on_refusal: bool,
) -> wire.Service:
    """Compile one port of a service, with a fingerprint of its whole content."""
    mesh = service.mesh.for_port(port) if service.mesh.tcp else service.mesh
    compiled = wire.Service(
        name=name,
        fingerprint="",
        endpoints=tuple(sorted(endpoints, key=lambda each: each.id)),
        allow=None if mesh.allow is None else _allowed_keys(project, mesh.allow),
        balance=_balance(mesh.balance),
        timeouts=wire.Timeouts(**vars(mesh.timeouts)),
        retries=_retries(mesh.retries),
        limits=wire.Limits(**vars(mesh.limits)),
        parking=wire.Parking(**vars(mesh.parking), on_refusal=park_on_refusal),
        ejection=wire.Ejection(**vars(mesh.eject)),
        trace=mesh.trace,
        audit=mesh.audit,
        split=split,
        drain_tunnels=mesh.drain.tunnels,
        protocol="tcp" if service.is_passthrough(port) else "http",
        tls=compile_upstream_tls(service) if not service.is_passthrough(port) else None,
        proxy_protocol=mesh.upstream.proxy_protocol or "",
        http_version=mesh.protocol,
    )
    digest = hashlib.sha256(_encoder.encode(compiled)).hexdigest()
    return msgspec.structs.replace(compiled, fingerprint=digest[:FINGERPRINT_LENGTH])


def compile_upstream_tls(service: model.Service) -> wire.UpstreamTls | None:
    """Return how connections to replicas are encrypted, with the name of the service as that of
    their certificates unless the spec has one; None for connections in the clear."""
    tls = service.mesh.upstream.tls
    if tls is None:
        return None
    found = wire.UpstreamTls(**vars(tls))
    return found if found.server_name else msgspec.structs.replace(found, server_name=service.name)


def _allowed_keys(project: str, names: Sequence[str]) -> tuple[str, ...]:
    """Return the callers as keys; a name with a slash already is a key of another project."""
    return tuple(sorted(n if "/" in n else service_key(project, n) for n in set(names)))


def _retries(retries: model.Retries) -> wire.Retries:
    codes = tuple(CODES.index(name) for name in retries.grpc)
    return wire.Retries(**{**vars(retries), "grpc": codes})


def _balance(balance: model.Balance) -> wire.Balance:
    return wire.Balance(
        algorithm=balance.algorithm,
        hash_key=_hash_key(balance.hash_by),
        sticky_cookie=balance.sticky_cookie,
        slow_start=balance.slow_start,
        panic=balance.panic,
    )


def _hash_key(text: str) -> wire.HashKey:
    """Return the key for `header:NAME`, `cookie:NAME` or `address`; empty means the address."""
    source, _, name = text.partition(":")
    key = {"source": source, "name": name} if source else {}
    return msgspec.convert(key, wire.HashKey)


def _compile_routes(
    project: str,
    key: str,
    specs: Sequence[model.RouteSpec],
) -> list[wire.Route]:
    """Return the service's routes as `PROJECT/SERVICE#i`, in the order of the spec."""
    targets = (wire.Target(service=key),)
    return [
        _compile_route(f"{key}#{index}", targets, spec, project) for index, spec in enumerate(specs)
    ]


def _compile_route(
    id: str, targets: tuple[wire.Target, ...], spec: model.RouteSpec, project: str
) -> wire.Route:
    limit, fault = spec.rate_limit, spec.fault
    mirror = spec.mirror
    return wire.Route(
        id=id,
        targets=targets,
        host=spec.host,
        path=spec.path,
        matches=parse_conditions(spec.match),
        strip=spec.strip,
        replace=spec.replace,
        redirect=spec.redirect,
        redirect_status=spec.redirect_status,
        request_headers=_edits(spec.request_headers),
        response_headers=msgspec.structs.replace(
            _edits(spec.response_headers), always=spec.response_headers.always
        ),
        rate_limit=_rate_limit(limit) if limit else None,
        fault=wire.Fault(fault.share, fault.delay, fault.abort or 0) if fault else None,
        mirror=mirror if "/" in mirror or not mirror else service_key(project, mirror),
        mirror_share=spec.mirror_share,
        paths=spec.paths or "",
        background=spec.background,
        client_certificate=spec.client_certificate,
        filters=compile_filters(spec, project),
    )


def _rate_limit(limit: model.RateLimit) -> wire.RateLimit:
    return wire.RateLimit(limit.rate, limit.burst or max(1.0, limit.rate), _hash_key(limit.key))


def parse_conditions(texts: Sequence[str]) -> tuple[wire.Match, ...]:
    """Return the match conditions for texts like `header:NAME=VALUE`."""
    return tuple(map(_match, texts))


def _match(text: str) -> wire.Match:
    source, _, rest = text.partition(":")
    name, _, value = rest.partition("=")
    return msgspec.convert({"source": source, "name": name, "value": value}, wire.Match)


def _edits(edits: model.HeaderEdits) -> wire.HeaderEdit:
    return wire.HeaderEdit(tuple(edits.set.items()), tuple(edits.add.items()), edits.remove)
