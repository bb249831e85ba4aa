"""Build the snapshot and the supervisor configuration of a standalone proxy from its settings.

Used by `meshd.cli.commands.proxy` at start, and by `meshd.standalone.helper` for later snapshots.
"""

import asyncio
import json
import socket
import sys
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import msgspec

from meshd.certificates.values import ServedCertificates
from meshd.discovery.probe import ProbeOpening
from meshd.model.service_key import service_key
from meshd.publish.compile import EdgeSettings, compile_snapshot
from meshd.spec.model import Mesh, Project, RouteSpec, Service, UpstreamSpec, UpstreamTlsSpec
from meshd.spec.model.proxy_settings import ProxySettings
from meshd.standalone import automatic
from meshd.standalone.listeners import build_listeners, list_acme
from meshd.standalone.settings import RawSettings, StandaloneSettings
from meshd.standalone.upstream_address import UpstreamAddress
from proxy.ipc import address
from proxy.ipc.config import ChildConfig, LogConfig, SpanConfig, SupervisorConfig
from proxy.wire.snapshot import Endpoint, Generation, Listener, Snapshot, UpstreamTls

PROJECT: Final = "proxy"
SERVICE: Final = "upstream"
MIRROR: Final = "mirror"
"""Names of the project and services that the proxy's metrics and logs show."""
KEY: Final = service_key(PROJECT, SERVICE)
SETTINGS_VARIABLE: Final = "MESHD_FRONT_DOOR"
"""Environment variable of the helper: its file and flags, as JSON."""
ADMIN_VARIABLE: Final = "MESHD_ADMIN_FD"
"""Environment variable of the helper: the file descriptor of the admin socket."""
HELPER_STOP_SECONDS: Final = 2.0
"""Seconds that the helper may take to end: more than the shutdown of its HTTP server takes."""
HELPER_SILENCE_SECONDS: Final = 10.0
"""Seconds without a sign of life after which the helper is replaced; as for a worker."""

LOCAL_NAME: Final = "localhost"
"""The name that the certificate of a server at a Unix socket must have, unless the settings say
another one."""

RESOLVE_INTERVAL: Final = 10.0
"""Seconds between two resolutions of the host names: a fraction of the usual TTL of DNS records for
failover, 30 to 60 seconds."""
RESOLVE_SECONDS: Final = 5.0
"""Seconds for one host name: the default timeout of a resolver for one name server."""

_NO_CERTIFICATES: Final = ServedCertificates()
ResolvedAddresses = Mapping[str, tuple[str, ...]]
"""IP addresses by host; none if the host did not resolve so far."""
HostResolver = Callable[[str], tuple[str, ...]]


class UnknownHost(Exception):
    """A host name does not resolve; the text names it."""


def resolve_host(host: str) -> tuple[str, ...]:
    """Return all addresses of a host. Blocks.

    The family that the system prefers comes first (RFC 6724); within a family the order is fixed,
    because name servers rotate it. Raises UnknownHost.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UnknownHost(f"cannot resolve the host {host} ({reason})") from error
    by_family: dict[int, set[str]] = {}
    for family, _, _, _, sockaddr in found:
        by_family.setdefault(family, set()).add(str(sockaddr[0]))
    return tuple(each for addresses in by_family.values() for each in sorted(addresses))


def list_hosts(settings: StandaloneSettings) -> list[str]:
    """Return every host in the settings."""
    to = [*settings.to, *settings.mirror, *(each for port in settings.tcp for each in port.to)]
    return sorted({parsed.host for each in to if not (parsed := address.parse(each.address)).path})


async def resolve_hosts(
    settings: StandaloneSettings, resolver: HostResolver, known: ResolvedAddresses
) -> tuple[ResolvedAddresses, Mapping[str, str]]:
    """Return the addresses of every host in the settings, and a problem for each host that does
    not resolve: it keeps its addresses in `known`. No host waits for another one."""
    hosts = list_hosts(settings)
    executor = ThreadPoolExecutor(max_workers=max(len(hosts), 1))
    problems: dict[str, str] = {}

    async def resolve(host: str) -> tuple[str, ...]:
        try:
            async with asyncio.timeout(RESOLVE_SECONDS):
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(executor, resolver, host)
        except UnknownHost as error:
            problems[host] = str(error)
        except TimeoutError:
            problems[host] = f"cannot resolve the host {host} (no answer in {RESOLVE_SECONDS:g} s)"
        return known.get(host, ())

    found = await asyncio.gather(*map(resolve, hosts))
    executor.shutdown(wait=False)  # a thread may still wait for a name server
    return dict(zip(hosts, found, strict=True)), problems


def build_endpoints(
    settings: StandaloneSettings, resolved: ResolvedAddresses
) -> tuple[Endpoint, ...]:
    """Return the endpoints to balance over, without duplicates.

    A host has an endpoint for each address of its preferred family. Addresses of the other family
    are alternatives for them, so that a host reached by both is not counted twice.
    """
    return _merge_endpoints(settings.to, resolved, settings.upstream_tls)


def list_services(
    settings: StandaloneSettings, resolved: ResolvedAddresses
) -> dict[str, tuple[Endpoint, ...]]:
    """Return the endpoints of each service that clients use, by its key."""
    found = {KEY: build_endpoints(settings, resolved)} if settings.to else {}
    for name, port in settings.tcp_services().items():
        found[service_key(PROJECT, name)] = _merge_endpoints(port.to, resolved, None)
    return found


def _merge_endpoints(
    upstreams: tuple[UpstreamAddress, ...],
    resolved: ResolvedAddresses,
    tls: UpstreamTlsSpec | None,
) -> tuple[Endpoint, ...]:
    found: dict[str, Endpoint] = {}
    for to in upstreams:
        for endpoint in _list_endpoints(to, resolved, tls):
            found.setdefault(endpoint.id, endpoint)
    return tuple(found.values())


def _list_endpoints(
    to: UpstreamAddress, resolved: ResolvedAddresses, tls: UpstreamTlsSpec | None
) -> list[Endpoint]:
    parsed = address.parse(to.address)
    server_name = "" if tls is None else tls.server_name or parsed.host or LOCAL_NAME
    if parsed.path:
        return [
            Endpoint(
                str(parsed),
                host="",
                port=0,
                path=parsed.path,
                weight=to.weight,
                server_name=server_name,
            )
        ]
    found = resolved.get(parsed.host, ())
    preferred = [ip for ip in found if _is_v6(ip) == _is_v6(found[0])]
    others = tuple(found[len(preferred) :])
    return [
        Endpoint(
            str(address.Address(ip, parsed.port)),
            ip,
            parsed.port,
            weight=to.weight,
            server_name=server_name,
            # Each endpoint begins with another one of them.
            alternatives=others[index % len(others) :] + others[: index % len(others)]
            if others
            else (),
        )
        for index, ip in enumerate(preferred)
    ]


def _is_v6(ip: str) -> bool:
    return ":" in ip


def build_snapshot(
    settings: StandaloneSettings,
    resolved: ResolvedAddresses,
    generation: Generation,
    unhealthy: Collection[str] = frozenset(),
    served: ServedCertificates = _NO_CERTIFICATES,
) -> Snapshot:
    """Return the snapshot for the workers; endpoints in `unhealthy` (ids) get no new requests.
    `served`: what a certificate authority has issued and asks."""
    services = [
        Service(name=name, mesh=port.policies(settings.mesh))
        for name, port in settings.tcp_services().items()
    ]
    if settings.to:
        services += _build_http_services(settings)
    endpoints = list_services(settings, resolved)
    if settings.mirror:
        endpoints[service_key(PROJECT, MIRROR)] = _merge_endpoints(
            settings.mirror, resolved, settings.mirror_tls
        )
    if KEY in endpoints:
        endpoints[KEY] = tuple(
            msgspec.structs.replace(each, state="draining") if each.id in unhealthy else each
            for each in endpoints[KEY]
        )
    return compile_snapshot(
        generation,
        [Project(name=PROJECT, services=tuple(services))],
        endpoints,
        listeners=build_tcp_listeners(settings),
        edge=build_edge(settings),
        fail_on_refusal=_list_failing(settings),
        certificates=served.certificates,
        challenges=served.challenges,
    )


def _build_http_services(settings: StandaloneSettings) -> list[Service]:
    mesh = settings.mesh
    routes = mesh.routes or (RouteSpec(),)
    services = []
    if settings.mirror:
        upstream = UpstreamSpec(tls=settings.mirror_tls)
        services.append(Service(name=MIRROR, mesh=Mesh(upstream=upstream)))
        routes = tuple(
            route
            if route.mirror
            else route.model_copy(update={"mirror": MIRROR, "mirror_share": settings.mirror_share})
            for route in routes
        )
    upstream = mesh.upstream.model_copy(update={"tls": settings.upstream_tls})
    mesh = mesh.model_copy(update={"routes": routes, "upstream": upstream})
    services.append(Service(name=SERVICE, mesh=mesh))
    return services


def _list_failing(settings: StandaloneSettings) -> list[str]:
    """Return the services without the setting `parking`: an origin that does not run may never
    run, so that a refused connection is an error at once."""
    if "parking" in settings.mesh.model_fields_set:
        return []
    ports = settings.tcp_services().items()
    names = [name for name, port in ports if port.parking is None]
    return [service_key(PROJECT, name) for name in (SERVICE, MIRROR, *names)]


def build_tcp_listeners(settings: StandaloneSettings) -> tuple[Listener, ...]:
    """Return the listeners of the TCP ports. They are in the configuration of the supervisor, which
    does not start without them, and in snapshots, so that a reload can add and change some."""
    given = {each.address: each for each in build_listeners(settings, settings.addresses)}
    found: dict[str, Listener] = {}
    for name, port in settings.tcp_services().items():
        own = found.get(port.listen) or given.get(port.listen, Listener(port.listen))
        key = service_key(PROJECT, name)
        found[port.listen] = msgspec.structs.replace(
            own,
            kind="published",
            tls=None,
            service=own.service if port.sni else key,
            server_names=(*own.server_names, *([(port.sni, key)] if port.sni else [])),
        )
    return tuple(found.values())


def build_supervisor_config(
    settings: StandaloneSettings,
    resolved: ResolvedAddresses,
    file: str,
    flags: RawSettings,
    memory: int = -1,
) -> SupervisorConfig:
    """Return the configuration of the supervisor. It has a helper process only if needed. `memory`
    is the descriptor of the helper's memory file (`meshd.standalone.memory`); -1 for none."""
    return SupervisorConfig(
        listen=settings.addresses,
        listeners=(*build_listeners(settings, settings.listen), *build_tcp_listeners(settings)),
        workers=settings.workers,
        pid_file=settings.pid_file,
        snapshot=build_snapshot(
            settings, resolved, Generation(1, 1), served=automatic.find_stored(settings)
        ),
        children=_helper_config(settings, resolved, file, flags, memory),
        drain=settings.mesh.drain.requests,
        access_log=msgspec.convert(settings.access_log.model_dump(), LogConfig),
        spans=build_span_config(settings),
        announce=True,
    )


def build_edge(proxy_settings: ProxySettings) -> EdgeSettings:
    """Return the settings of the proxy as a whole for the snapshot."""
    return EdgeSettings(proxy_settings.trusted_proxies, proxy_settings.via)


def build_span_config(proxy_settings: ProxySettings) -> SpanConfig:
    """Return the configuration of span export for the workers."""
    otlp = proxy_settings.otlp
    if otlp is None:
        return SpanConfig()
    query = proxy_settings.access_log.query if otlp.query is None else otlp.query
    return SpanConfig(otlp.endpoint, otlp.sample, otlp.service_name, query)


def build_probe_opening(settings: StandaloneSettings, endpoint: Endpoint) -> ProbeOpening:
    """Return what probes of an endpoint begin with."""
    proxy_protocol, tls = settings.mesh.upstream.proxy_protocol or "", settings.upstream_tls
    if tls is None:
        return ProbeOpening(proxy_protocol=proxy_protocol)
    named = UpstreamTls(**{**vars(tls), "server_name": endpoint.server_name})
    return ProbeOpening(named, proxy_protocol)


def _helper_config(
    settings: StandaloneSettings,
    resolved: ResolvedAddresses,
    file: str,
    flags: RawSettings,
    memory: int,
) -> tuple[ChildConfig, ...]:
    has_names = any(ips != (host,) for host, ips in resolved.items())
    acme = list_acme(settings, settings.listen)
    if not (file or has_names or settings.probes or settings.admin or acme):
        return ()
    return (
        ChildConfig(
            name="helper",
            argv=(sys.executable, "-P", "-m", "meshd.standalone"),
            env={SETTINGS_VARIABLE: json.dumps({"file": file, "flags": flags, "memory": memory})},
            descriptors=(memory,) if memory >= 0 else (),
            listen={ADMIN_VARIABLE: settings.admin} if settings.admin else {},
            stop_seconds=HELPER_STOP_SECONDS,
            feed=True,
            reload=True,
            silence_seconds=HELPER_SILENCE_SECONDS,
            upgrades=True,
        ),
    )
