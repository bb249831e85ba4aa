"""Who gets a request, and what it does when nobody can take it: wait, bounded, or be turned away.

One queue a service holds both those that wait for a first ready endpoint (parked) and those that
wait for room at one (queued); it is served in order whenever something changes.
"""

from typing import TYPE_CHECKING

from proxy.policy import admit
from proxy.policy.hashing import hash_key
from proxy.policy.route import find_cookie
from proxy.request import failure
from proxy.request.phases import NEW, WAITING
from proxy.request.resolve import balance_key

if TYPE_CHECKING:
    from proxy.request.exchange import Exchange
    from proxy.state.endpoint_state import EndpointState
    from proxy.state.service_state import ServiceState

Endpoints = tuple["EndpointState", ...]


def dispatch(exchange: "Exchange", now: float) -> None:
    """Sends an exchange on its way, or has it wait, or fails it."""
    endpoint = _find(exchange, now, waits=False)
    if endpoint is not None:
        exchange.go_to(endpoint, now)
    else:
        _wait_or_fail(exchange, now)


def _find(exchange: "Exchange", now: float, *, waits: bool) -> "EndpointState | None":
    """Who gets it, with the place there taken; None when nobody has room."""
    service = exchange.service
    if service.limited:
        return _with_room(exchange, now, waits=waits)
    if service.split is not None and not exchange.tried:
        stuck = _stuck_in_split(exchange, service)
        if stuck is not None:
            return stuck
    found = service.candidates
    if exchange.revision or exchange.tried:
        found = candidates(exchange, exchange.tried)
    return _pick(exchange, found, now) if found else None


def _with_room(exchange: "Exchange", now: float, *, waits: bool) -> "EndpointState | None":
    bounds = exchange.service.bounds
    found = candidates(exchange, exchange.tried)
    since = float("inf") if exchange.tried else exchange.queued_at or now
    if found and bounds.enter(now, since, int(waits)):
        while found:
            endpoint = _pick(exchange, found, now)
            if bounds.take(endpoint, now, since):
                return endpoint
            endpoint.tell()
            found = tuple(each for each in found if each is not endpoint)
    bounds.tell()
    return None


def _pick(exchange: "Exchange", found: Endpoints, now: float) -> "EndpointState":
    if len(found) == 1:
        return found[0]
    service = exchange.service
    policy = service.config.balance
    if policy.sticky_cookie:
        stuck = _stuck(exchange, found)
        if stuck is not None:
            return stuck
    key = balance_key(exchange, service)
    endpoint = found[service.picker.pick(found, key, exchange.plane.dice, now)]
    if policy.sticky_cookie:
        exchange.edits_answer = True
        exchange.sticky = b"%b=%b" % (policy.sticky_cookie.encode(), _tag(endpoint))
    return endpoint


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
        found = tuple(state for state in found if service.bounds.open(state))
    return found


def _wait_or_fail(exchange: "Exchange", now: float) -> None:
    service = exchange.service
    config, counters = service.config, service.counters
    if exchange.tried:
        exchange.fail(failure.NO_ENDPOINT)
        return
    held, ready = exchange.body_size, len(service.ready)
    others, others_bytes = service.bounds.ask_to_wait()
    verdict = admit.wait_or_shed(
        config.limits,
        config.parking,
        ready=ready,
        pending=counters.queued + others,
        parked=counters.parked + others,
        parked_bytes=service.parked_bytes + others_bytes,
        body_bytes=held,
    )
    if verdict == "shed":
        service.bounds.tell()
        counters.shed += 1
        exchange.fail(failure.SHED if ready else failure.NO_ENDPOINT)
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
    service.bounds.tell()
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
    service.bounds.tell()


def wake(service: "ServiceState", now: float) -> None:
    """Sends on those that wait, as far as there is room for them."""
    waiting = service.waiting
    while waiting:
        exchange = waiting[0]
        endpoint = _find(exchange, now, waits=True)
        if endpoint is None:
            return
        waiting.popleft()
        _uncount(exchange)
        exchange.queue_seconds += now - exchange.queued_at
        exchange.queued_at = 0.0
        exchange.phase = NEW
        exchange.go_to(endpoint, now)


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
    tag = find_cookie(exchange.head.field(b"cookie"), name)
    if tag is None:
        return None
    return next((state for state in found if _tag(state) == tag), None)


def _tag(endpoint: "EndpointState") -> bytes:
    """What a sticky cookie holds: not the name, which is nobody's business."""
    return b"%016x" % hash_key(endpoint.id.encode())
