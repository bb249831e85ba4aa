"""Who gets a request, and what it does when nobody can take it: wait, bounded, or be turned away.

One queue a service holds both those that wait for a first ready endpoint (parked) and those that
wait for room at one (queued); it is served in order whenever something changes.
"""

from typing import TYPE_CHECKING

from proxy import failure
from proxy.entry import balance_key
from proxy.exchange_phases import WAITING
from proxy.policy import admit
from proxy.policy.hashing import hash_key
from proxy.policy.route import cookie

if TYPE_CHECKING:
    from proxy.endpoint_state import EndpointState
    from proxy.exchange import Exchange
    from proxy.routing_table import ServiceState

Endpoints = tuple["EndpointState", ...]


def dispatch(exchange: "Exchange", now: float) -> None:
    """Sends an exchange on its way, or has it wait, or fails it."""
    service = exchange.service
    found = service.candidates
    if service.split is not None and not exchange.tried:
        stuck = _stuck_in_split(exchange, service)
        if stuck is not None:
            exchange.go_to(stuck, now)
            return
    if exchange.revision or exchange.tried or service.limited:
        found = candidates(exchange, exchange.tried)
    if not found or (service.limited and not _service_open(service)):
        _wait_or_fail(exchange, bool(found), now)
        return
    if len(found) == 1:
        exchange.go_to(found[0], now)
        return
    policy = service.config.balance
    if policy.sticky_cookie:
        stuck = _stuck(exchange, found)
        if stuck is not None:
            exchange.go_to(stuck, now)
            return
    plane = exchange.plane
    key = balance_key(exchange, service)
    endpoint = found[service.picker.pick(found, key, plane.dice, now)]
    if policy.sticky_cookie:
        exchange.edits_answer = True
        exchange.sticky = b"%b=%b" % (policy.sticky_cookie.encode(), _tag(endpoint))
    exchange.go_to(endpoint, now)


def candidates(exchange: "Exchange", but: Endpoints) -> Endpoints:
    """Who may be asked, leaving out those that failed this request already. Where the request's
    revision has nobody to offer, anybody."""
    service = exchange.service
    found = _open_of(service, service.of_revision(exchange.revision), but)
    if not found and exchange.revision:
        return _open_of(service, service.candidates, but)
    return found


def _open_of(service: "ServiceState", found: Endpoints, but: Endpoints) -> Endpoints:
    if but:
        found = tuple(state for state in found if state not in but)
    if service.limited:
        found = tuple(state for state in found if _open(service, state))
    return found


def _open(service: "ServiceState", state: "EndpointState") -> bool:
    limits = service.config.limits
    adaptive = state.gradient.limit if state.gradient is not None else 0
    if not admit.endpoint_open(limits, state.in_flight, adaptive):
        return False
    return bool(state.idle) or admit.may_connect(limits, state.connections)


def _service_open(service: "ServiceState") -> bool:
    limit = service.config.limits.service_in_flight
    # The exchange that asks is counted already, and so are those that wait.
    return not limit or service.in_flight - len(service.waiting) <= limit


def _wait_or_fail(exchange: "Exchange", found: bool, now: float) -> None:
    service = exchange.service
    config, counters = service.config, service.counters
    if exchange.tried:
        exchange.fail(failure.NO_ENDPOINT)
        return
    held = exchange.body_size
    verdict = admit.admit(
        config.limits,
        config.parking,
        ready=len(service.ready),
        open_endpoints=int(found),
        service_in_flight=service.in_flight if found else 0,
        pending=counters.queued,
        parked=counters.parked,
        parked_bytes=service.parked_bytes,
        body_bytes=held,
    )
    if verdict == "shed" or verdict == "go":
        counters.shed += 1
        exchange.fail(failure.SHED if service.ready else failure.NO_ENDPOINT)
        return
    exchange.phase = WAITING
    exchange.queued_at = exchange.queued_at or now
    exchange.parked = verdict == "park"
    if exchange.parked:
        exchange.parked_bytes = held
        service.parked_bytes += held
        counters.parked += 1
        counters.parked_total += 1
        timeout = config.parking.timeout
    else:
        counters.queued += 1
        timeout = config.limits.pending_timeout
    exchange.until(exchange.queued_at + timeout)
    service.waiting.append(exchange)
    if exchange.parked and not counters.parked & (counters.parked - 1):  # 1, 2, 4, 8, …
        exchange.plane.on_wake(service.name, counters.parked)


def stop_waiting(exchange: "Exchange") -> None:
    """Takes an exchange out of the queue, if it stands there."""
    waiting = exchange.service.waiting
    if exchange in waiting:
        waiting.remove(exchange)
        _uncount(exchange)


def _uncount(exchange: "Exchange") -> None:
    service = exchange.service
    if exchange.parked:
        service.counters.parked -= 1
        service.parked_bytes -= exchange.parked_bytes
    else:
        service.counters.queued -= 1


def wake(service: "ServiceState", now: float) -> None:
    """Sends on those that wait, as far as there is room for them."""
    waiting = service.waiting
    for _ in range(len(waiting)):
        exchange = waiting[0]
        if not candidates(exchange, ()) or not _room(service):
            return
        waiting.popleft()
        _uncount(exchange)
        exchange.queue_seconds += now - exchange.queued_at
        exchange.queued_at = 0.0
        exchange.phase = 0
        dispatch(exchange, now)


def _room(service: "ServiceState") -> bool:
    limit = service.config.limits.service_in_flight
    return not limit or service.in_flight - len(service.waiting) < limit


def _stuck_in_split(exchange: "Exchange", service: "ServiceState") -> "EndpointState | None":
    """Whom a client stays with while revisions share the requests: a client is not to change
    sides with every request. None once the other side has no share any more."""
    if not service.config.balance.sticky_cookie or service.split is None or service.limited:
        return None
    stuck = _stuck(exchange, service.candidates)
    return stuck if stuck is not None and stuck.endpoint.revision in service.split.open else None


def _stuck(exchange: "Exchange", found: Endpoints) -> "EndpointState | None":
    """The endpoint that a sticky cookie names, while it can be asked."""
    name = exchange.service.config.balance.sticky_cookie.encode()
    tag = cookie(exchange.head.field(b"cookie"), name)
    if tag is None:
        return None
    return next((state for state in found if _tag(state) == tag), None)


def _tag(endpoint: "EndpointState") -> bytes:
    """What a sticky cookie holds: not the name, which is nobody's business."""
    return b"%016x" % hash_key(endpoint.id.encode())
