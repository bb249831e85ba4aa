"""Finds out what a request is for: its route, service, revision and target, or the response that
it gets at once.

`Exchange.start` calls it. Requests to a public listener are matched against the route table. A
request to a mesh listener names the service that it calls; the caller is known from the source
address, or from a token in the path.
"""

from typing import TYPE_CHECKING, Final

from proxy.http1.request import RequestHead
from proxy.http1.rewrite import CRLF
from proxy.policy.client_address import limit_key
from proxy.policy.hashing import hash_key
from proxy.policy.route import MAX_CACHED_HOSTS, choose_target, find_cookie, normalize_host
from proxy.request import failure
from proxy.request.failure import Failure
from proxy.request.sinks import ClientSink
from proxy.state.routing_table import CompiledRoute, Routing
from proxy.state.service_state import ServiceState
from proxy.wire.snapshot import HashKey, Listener

if TYPE_CHECKING:
    from proxy.filters.compiled import CompiledFilters
    from proxy.request.data_plane import DataPlane
    from proxy.request.exchange import Exchange

TOKEN_PATH: Final = b"/.mesh/"
"""Prefix of a target that names the caller's token and the called service."""
UNKNOWN_CALLER: Final = "unknown"
"""The caller's name in counts where it is not known."""
OUTSIDE: Final = "outside"
"""The caller's name in counts for clients of a published port."""
_NO_HOST: Final = failure.BAD_REQUEST._replace(text="the request has no host to redirect to")
_HTTPS_PORT: Final = 443
"""The port of https URLs without one."""
_CLIMBS: Final = failure.BAD_REQUEST._replace(text="the path leads out of its route")


class RequestRefused(Exception):
    """The request gets a response of the proxy's own. `extra` holds further field lines."""

    def __init__(self, why: Failure, *, status: int = 0, extra: bytes = b"") -> None:
        super().__init__(why.reason)
        self.why = why
        self.status = status or why.status
        self.extra = extra


class Destination:
    """Where a request goes.

    - `service`, `revision`: the service, and the revision to serve it (empty: any).
    - `target`: the target for the upstream.
    - `caller`: the calling service in counts; empty on public listeners.
    - `delay`: seconds to wait before it is sent, by a fault rule.
    """

    __slots__ = ("caller", "delay", "revision", "service", "target")

    def __init__(
        self,
        service: ServiceState,
        revision: str,
        target: bytes,
        *,
        caller: str = "",
        delay: float = 0.0,
    ) -> None:
        self.service = service
        self.revision = revision
        self.target = target
        self.caller = caller
        self.delay = delay


def find_route(routing: Routing, head: RequestHead, listener: Listener) -> CompiledRoute:
    """Return the route of a public request to `listener`. Raises RequestRefused."""
    if routing.challenges:
        answer = routing.challenges.get(head.target)
        if answer is not None:
            raise RequestRefused(failure.CHALLENGE._replace(text=answer))
    if listener.https_port:
        raise _redirect_to_https(head, listener.https_port)
    route = routing.table.match(head.host or b"", head.target, head.field)
    if route is None:
        raise RequestRefused(failure.NO_ROUTE)
    compiled = routing.routes[route.id]
    if routing.table.has_guards:
        guards = routing.table.path_guards(head.host or b"")
        if (
            guards is not None
            and guards.is_ambiguous(head.target)
            and compiled.is_strict(listener, guards)
        ):
            raise RequestRefused(failure.AMBIGUOUS_PATH)
    return compiled


def _redirect_to_https(head: RequestHead, port: int) -> RequestRefused:
    """The redirect to the same URL with https."""
    host = normalize_host(head.host or b"")
    if not host:
        return RequestRefused(_NO_HOST)
    suffix = b"" if port == _HTTPS_PORT else b":%d" % port
    target = head.target if head.target.startswith(b"/") else b"/"
    location = b"Location: https://%b%b%b\r\n" % (host, suffix, target)
    return RequestRefused(failure.REDIRECT, status=308, extra=location)


def apply_route(
    plane: "DataPlane", route: CompiledRoute, head: RequestHead, client: ClientSink, now: float
) -> Destination:
    """Return where a route sends a request of `client`. Raises RequestRefused."""
    target, delay = head.target, 0.0
    if not route.passes_through:
        if route.route.client_certificate and (client.tls is None or client.tls.client is None):
            raise RequestRefused(failure.NO_CERTIFICATE)
        _check_rate(route, head, client.address, now)
        if route.filters is not None:
            _apply_filters(route.filters, head, client)
        rewritten = route.rewrite_target(target)
        if rewritten is None:
            raise RequestRefused(_CLIMBS)
        target = rewritten
        delay = _apply_rules(plane, route, head, client)
    service, revision = route.service, route.revision
    if service is None:
        if not route.targets:
            raise RequestRefused(failure.NO_SERVICE)
        chosen = choose_target([target for target, _ in route.targets], plane.random())
        service, revision = plane.routing.services[chosen.service], chosen.revision
    return Destination(
        service, revision or _choose_revision(plane, head, service), target, delay=delay
    )


def _check_rate(route: CompiledRoute, head: RequestHead, address: bytes, now: float) -> None:
    if route.limiter is None:
        return
    assert route.route.rate_limit is not None
    key = policy_key(head, route.route.rate_limit.key, limit_key(address))
    wait = route.limiter.acquire(key, now)
    if wait > 0.0:
        seconds = max(1, int(wait + 0.999))
        raise RequestRefused(failure.RATE, extra=b"Retry-After: %d\r\n" % seconds)


def _apply_filters(filters: "CompiledFilters", head: RequestHead, client: ClientSink) -> None:
    """Raise RequestRefused if the filters of a route answer a request at once."""
    found = filters.find_refusal(head, client.source)
    if found is not None:
        reason, extra = found
        why = failure.PREFLIGHT if reason == failure.PREFLIGHT.reason else failure.MAINTENANCE
        raise RequestRefused(why, extra=extra)


def _apply_rules(
    plane: "DataPlane", route: CompiledRoute, head: RequestHead, client: ClientSink
) -> float:
    """Apply redirect and fault rules. Return the seconds by which a fault delays the request."""
    config, fault = route.route, route.fault
    if config.redirect:
        location = b"Location: " + _redirect_location(config.redirect, head, client) + CRLF
        raise RequestRefused(failure.REDIRECT, status=config.redirect_status, extra=location)
    if fault is None or plane.random() >= fault.share:
        return 0.0
    if fault.abort:
        raise RequestRefused(failure.FAULT, status=fault.abort)
    return fault.delay


def _choose_revision(plane: "DataPlane", head: RequestHead, service: ServiceState) -> str:
    """The revision that a traffic split gives the request; empty for any."""
    splitter = service.splitter
    return "" if splitter is None else splitter.choose(head.field, plane.random())


def find_called_service(
    plane: "DataPlane", head: RequestHead, client: ClientSink, now: float
) -> Destination:
    """Return the service that another service calls through a mesh listener, and count the call.
    Raises RequestRefused."""
    routing, listener, target = plane.routing, client.listener, head.target
    if listener.kind == "token":
        caller, name, target = _parse_token_path(target, routing.credentials)
        project = caller.rpartition("/")[0]
    else:
        project, caller = routing.identify_caller(listener, client.peer)
        if client.source != client.peer:
            # A service that calls through a trusted proxy. Other clients of a proxy that is itself
            # a service call with that one's rights.
            known = routing.identify_caller(listener, client.source)
            project, caller = known if known[1] else (project, caller)
        name = normalize_host(head.host or b"").decode("latin-1")
    service = routing.find_called(listener, project, name)
    if service is None:
        raise RequestRefused(failure.NO_SERVICE)
    if not is_allowed(routing, service, listener, caller, client.peer):
        service.counters.count_uncovered(caller or UNKNOWN_CALLER)
        if not service.config.audit:
            service.counters.denied += 1
            raise RequestRefused(failure.DENIED)
    caller = caller or unknown_caller(listener)
    service.counters.start_call(caller, now)
    revision = _choose_revision(plane, head, service)
    return Destination(service, revision, target, caller=caller)


def is_allowed(
    routing: Routing, service: ServiceState, listener: Listener, caller: str, address: str
) -> bool:
    """Return whether a caller at an address may use a service at a listener. A published port is
    for clients from outside, so that there only a known caller is checked."""
    if caller or listener.kind == "token":
        return service.allows(caller)
    if listener.kind == "published":
        return True
    return service.allows("") and routing.may_call_unknown(listener, address, service)


def unknown_caller(listener: Listener) -> str:
    """Return the name in counts of a caller that is not known."""
    return OUTSIDE if listener.kind == "published" else UNKNOWN_CALLER


def _parse_token_path(target: bytes, credentials: dict[bytes, str]) -> tuple[str, str, bytes]:
    """The caller, the called service's name, and the target without the token and that name."""
    if not target.startswith(TOKEN_PATH):
        raise RequestRefused(failure.BAD_TOKEN)
    path, question, query = target[len(TOKEN_PATH) :].partition(b"?")
    token, _, rest = path.partition(b"/")
    caller = credentials.get(token)
    if caller is None:
        raise RequestRefused(failure.BAD_TOKEN)
    name, _, rest = rest.partition(b"/")
    return caller, name.decode("latin-1"), b"/" + rest + question + query


def find_fast_path_call(
    routing: Routing, listener: Listener, address: str, host: bytes
) -> tuple[ServiceState, str] | None:
    """Return the called service and the caller for a call that may take the fast path, and cache
    them in `Routing.fast_path_calls`. None for other calls, which `find_called_service` handles.

    `host` is the request's host, or at a token listener the part of its path that holds the token
    and the service's name; `address` is empty there.
    """
    if listener.kind == "token":
        token, _, segment = host[len(TOKEN_PATH) :].partition(b"/")
        caller = routing.credentials.get(token, "")
        if not caller or b"?" in segment:
            return None
        project, name = caller.rpartition("/")[0], segment.decode("latin-1")
    else:
        project, caller = routing.identify_caller(listener, address)
        name = normalize_host(host).decode("latin-1")
    service = routing.find_called(listener, project, name)
    if service is None or not service.fast_path_ok:
        return None
    if not is_allowed(routing, service, listener, caller, address):
        return None
    if len(routing.fast_path_calls) >= MAX_CACHED_HOSTS:
        routing.fast_path_calls.clear()
    call = service, caller or unknown_caller(listener)
    routing.fast_path_calls[(listener.address, address, host)] = call
    return call


def _redirect_location(redirect: str, head: RequestHead, client: ClientSink) -> bytes:
    """The target of a redirect, with `{scheme}`, `{host}`, `{path}` and `{query}` replaced by the
    request's."""
    path, question, query = head.target.partition(b"?")
    return (
        redirect.encode()
        .replace(b"{scheme}", client.scheme)
        .replace(b"{host}", normalize_host(head.host or b""))
        .replace(b"{path}", path)
        .replace(b"{query}", question + query)
    )


def policy_key(head: RequestHead, key: HashKey, address: bytes) -> bytes | None:
    """Return the value of a policy's key in a request of the client at `address`; None if the
    request has none."""
    if key.source == "address":
        return address
    if key.source == "header":
        return head.field(key.name.lower().encode())
    return find_cookie(head.field(b"cookie"), key.name.encode())


def balance_key(exchange: "Exchange", service: ServiceState) -> int | None:
    """Return the hash for consistent balancing; None if the algorithm needs none."""
    policy = service.config.balance
    if policy.algorithm not in ("ring-hash", "maglev"):
        return None
    key = policy_key(exchange.head, policy.hash_key, exchange.client.address)
    return None if key is None else hash_key(key)
