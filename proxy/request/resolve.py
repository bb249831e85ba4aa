"""What an arriving request is for: service, revision and target, or the answer it gets at once.

Public connections go by the route table. Connections of the mesh name the service they call,
and who calls is known by where they come in.
"""

from typing import TYPE_CHECKING, Final

from proxy.http1.request import RequestHead
from proxy.http1.rewrite import CRLF
from proxy.policy.hashing import hash_key
from proxy.policy.route import MAX_CACHED_HOSTS, choose_target, find_cookie, normalize_host
from proxy.request import failure
from proxy.request.failure import Failure
from proxy.state.routing_table import CompiledRoute, Routing
from proxy.state.service_state import ServiceState
from proxy.wire.snapshot import HashKey, Listener

if TYPE_CHECKING:
    from proxy.request.data_plane import DataPlane
    from proxy.request.exchange import Exchange

_TOKEN_PATH: Final = b"/.mesh/"
NOBODY: Final = "unknown"
"""Who called, in counts, where that is not known."""


class RequestRefused(Exception):
    """The request gets an answer of the proxy's own. `extra` are further field lines."""

    def __init__(self, why: Failure, *, status: int = 0, extra: bytes = b"") -> None:
        super().__init__(why.reason)
        self.why = why
        self.status = status or why.status
        self.extra = extra


def by_route(plane: "DataPlane", exchange: "Exchange", now: float) -> None:
    """Finds route, service and target of a public request. Raises Refused."""
    head = exchange.head
    routing = plane.routing
    route = routing.table.match(head.host or b"", head.target, head.field)
    if route is None:
        raise RequestRefused(failure.NO_ROUTE)
    plan = routing.plans[route.id]
    exchange.plan = plan
    if not plan.plain:
        _treat(plane, exchange, plan, now)
    if plan.response is not None:
        exchange.edits_answer = True
    if plan.only is not None:
        exchange.service = plan.only
        exchange.revision = plan.revision or _revision(plane, exchange, plan.only)
        return
    if not plan.targets:
        raise RequestRefused(failure.NO_SERVICE)
    target = choose_target([target for target, _ in plan.targets], plane.dice())
    exchange.service = service = routing.services[target.service]
    exchange.revision = target.revision or _revision(plane, exchange, service)


def _revision(plane: "DataPlane", exchange: "Exchange", service: ServiceState) -> str:
    """The revision that is to serve a request; empty for any."""
    split = service.split
    return "" if split is None else split.choose(exchange.head.field, plane.dice())


def by_name(
    plane: "DataPlane", exchange: "Exchange", listener: Listener, address: str, now: float
) -> None:
    """Finds the service that another service of the mesh calls. Raises Refused."""
    head = exchange.head
    routing = plane.routing
    if listener.kind == "token":
        caller, name = _by_token(exchange, routing.credentials)
        project = caller.rpartition("/")[0]
    else:
        project, caller = routing.caller(listener, address)
        name = normalize_host(head.host or b"").decode("latin-1")
    service = routing.named(project, name)
    if service is None:
        raise RequestRefused(failure.NO_SERVICE)
    if not service.covers(caller):
        service.counters.count_uncovered(caller or NOBODY)
        if not service.config.audit:
            service.counters.denied += 1
            raise RequestRefused(failure.DENIED)
    exchange.caller = caller or NOBODY
    service.counters.start_call(exchange.caller, now)
    exchange.service = service
    exchange.revision = _revision(plane, exchange, service)


def straight_call(
    plane: "DataPlane", exchange: "Exchange", listener: Listener, address: str, now: float
) -> ServiceState | None:
    """As `by_name`, for a call to a simple service by one who may (see
    `proxy.request.fast_path`); None, with
    nothing done, where it is not such a call."""
    head, routing = exchange.head, plane.routing
    rest = b""
    if listener.kind == "token":
        cut = head.target.find(b"/", head.target.find(b"/", len(_TOKEN_PATH)) + 1)
        if cut < len(_TOKEN_PATH) or not head.target.startswith(_TOKEN_PATH):
            return None
        address, host, rest = "", head.target[:cut], head.target[cut:]
    else:
        host = head.host or b""
    key = (listener.address, address, host)
    call = routing.calls.get(key)
    if call is None:
        call = _straight_call(routing, listener, address, host)
        if call is None:
            return None
        if len(routing.calls) >= MAX_CACHED_HOSTS:
            routing.calls.clear()
        routing.calls[key] = call
    service, caller = call
    if head.length > service.largest_body:
        return None
    if rest:
        behind = head.upstream_head[len(head.method) + 1 + len(head.target) :]
        head.upstream_head = b"%b %b%b" % (head.method, rest, behind)
        exchange.target = rest
    exchange.caller = caller
    service.counters.start_call(caller, now)
    return service


def _straight_call(
    routing: Routing, listener: Listener, address: str, host: bytes
) -> tuple[ServiceState, str] | None:
    """Who calls whom; `host` is the path's first segments at a listener that goes by tokens."""
    if listener.kind == "token":
        token, _, segment = host[len(_TOKEN_PATH) :].partition(b"/")
        caller = routing.credentials.get(token, "")
        if not caller or b"?" in segment:
            return None
        project, name = caller.rpartition("/")[0], segment.decode("latin-1")
    else:
        project, caller = routing.caller(listener, address)
        name = normalize_host(host).decode("latin-1")
    service = routing.named(project, name)
    if service is None or not service.simple or not service.covers(caller):
        return None
    return service, caller or NOBODY


def _by_token(exchange: "Exchange", credentials: dict[bytes, str]) -> tuple[str, str]:
    """Who calls whom, by the path's first segments, which are taken off."""
    target = exchange.target
    if not target.startswith(_TOKEN_PATH):
        raise RequestRefused(failure.BAD_TOKEN)
    path, question, query = target[len(_TOKEN_PATH) :].partition(b"?")
    token, _, rest = path.partition(b"/")
    caller = credentials.get(token)
    if caller is None:
        raise RequestRefused(failure.BAD_TOKEN)
    name, _, rest = rest.partition(b"/")
    exchange.target = b"/" + rest + question + query
    return caller, name.decode("latin-1")


def _treat(plane: "DataPlane", exchange: "Exchange", plan: CompiledRoute, now: float) -> None:
    """What a route does to a request before it goes anywhere. Raises Refused."""
    route = plan.route
    if plan.limiter is not None:
        assert route.rate_limit is not None
        key = key_of(exchange.head, route.rate_limit.key, exchange.address)
        wait = plan.limiter.acquire(key, now)
        if wait > 0.0:
            raise RequestRefused(
                failure.RATE, extra=b"Retry-After: %d\r\n" % max(1, int(wait + 0.999))
            )
    exchange.target = plan.target(exchange.target)
    if route.redirect:
        where = _location(route.redirect, exchange.head)
        raise RequestRefused(
            failure.REDIRECT, status=route.redirect_status, extra=b"Location: " + where + CRLF
        )
    if plan.fault is not None and plane.dice() < plan.fault.share:
        if plan.fault.abort:
            raise RequestRefused(failure.FAULT, status=plan.fault.abort)
        exchange.delay = plan.fault.delay


def _location(redirect: str, head: RequestHead) -> bytes:
    """A redirect's target; `{host}`, `{path}` and `{query}` stand for the request's own."""
    path, question, query = head.target.partition(b"?")
    return (
        redirect.encode()
        .replace(b"{host}", normalize_host(head.host or b""))
        .replace(b"{path}", path)
        .replace(b"{query}", question + query)
    )


def key_of(head: RequestHead, key: HashKey, address: bytes) -> bytes | None:
    """What a policy's key is in a request; None where the request does not have it."""
    if key.source == "address":
        return address
    if key.source == "header":
        return head.field(key.name.lower().encode())
    return find_cookie(head.field(b"cookie"), key.name.encode())


def balance_key(exchange: "Exchange", service: ServiceState) -> int | None:
    """The hash that consistent balancing goes by; None where the rule needs none."""
    policy = service.config.balance
    if policy.algorithm not in ("ring-hash", "maglev"):
        return None
    key = key_of(exchange.head, policy.hash_key, exchange.address)
    return None if key is None else hash_key(key)
