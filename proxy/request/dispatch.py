"""Picks an endpoint for a request; if none has room, queues the request or rejects it.

`Exchange` calls `dispatch`; `DataPlane` and the end of every request call `wake`. Each service has
one queue, `ServiceState.waiting`. It holds requests that wait for a first ready endpoint (parked)
and requests that wait for room at one (queued), and is served in order whenever something changes.
`proxy.tcp.dispatch` puts TCP connections into the same queue.
"""

from typing import TYPE_CHECKING, Final

from proxy.observe.flight_ring import BALANCED, LEAST_LOADED, ONLY, STICKY
from proxy.policy import admit
from proxy.policy.backlog import NO_LIMIT
from proxy.policy.hashing import hash_key
from proxy.policy.route import find_cookie
from proxy.request import failure
from proxy.request.resolve import balance_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.request.data_plane import DataPlane
    from proxy.request.exchange import Exchange
    from proxy.state.concurrency_limits import ConcurrencyLimits
    from proxy.state.endpoint_state import EndpointState
    from proxy.state.service_state import ServiceState

Endpoints = tuple["EndpointState", ...]
MAX_OPENING: Final = 32
"""Connections to one endpoint that a worker opens at the same time for parked requests. Some
servers have a listening queue of 128 connections, or less, for all workers."""


class QueueEntry:
    """A place in the queue of a service.

    - `since`: monotonic seconds at which the waiting began.
    - `parked`: whether it waits for a first ready endpoint, and not for room.
    - `body_bytes`: bytes that are held for it.
    """

    __slots__ = ("body_bytes", "parked", "since")

    def __init__(self, since: float, body_bytes: int, *, parked: bool) -> None:
        self.since = since
        self.body_bytes = body_bytes
        self.parked = parked

    def send_on(self, now: float) -> bool:
        """Take the first entry of the queue out of it and send it to an endpoint, or end it.
        Return False, and do nothing, if it has to wait longer."""
        raise NotImplementedError


class WaitingExchange(QueueEntry):
    """The place of an exchange in the queue.

    - `suspect`: the endpoint that closed its last connection without an answer; None otherwise.
    """

    __slots__ = ("exchange", "suspect")

    def __init__(
        self,
        exchange: "Exchange",
        since: float,
        body_bytes: int,
        *,
        parked: bool,
        suspect: "EndpointState | None" = None,
    ) -> None:
        super().__init__(since, body_bytes, parked=parked)
        self.exchange = exchange
        self.suspect = suspect

    def send_on(self, now: float) -> bool:
        exchange = self.exchange
        service = exchange.service
        if self.suspect is not None:
            if self.suspect.unreachable and service.refused_at < self.since:
                return False
            if service.refused_at < self.since and not service.budget.withdraw(now):
                leave_queue(service, self)
                exchange.leave_queue(now)
                # Not here: its end wakes the next request, which may fail too, and so on.
                exchange.plane.loop.call_soon(exchange.fail_unsent)
                return True
            self.suspect = None
        if self.parked and is_opening(service):
            return False
        endpoint = _find(exchange, now, queued=True)
        if endpoint is None:
            return False
        leave_queue(service, self)
        exchange.leave_queue(now)
        exchange.go_to(endpoint, now)
        return True


def dispatch(exchange: "Exchange", now: float) -> None:
    """Send an exchange to an endpoint, or queue it, or fail it."""
    endpoint = _find(exchange, now, queued=False)
    if endpoint is not None:
        exchange.go_to(endpoint, now)
    else:
        _wait_or_fail(exchange, now)


def dispatch_again(
    exchange: "Exchange", now: float, suspect: "EndpointState | None" = None
) -> None:
    """Dispatch an exchange whose attempt has failed without a response. With a `suspect` it waits
    until it is known whether that endpoint has ended."""
    if suspect is None:
        dispatch(exchange, now)
    else:
        _wait_or_fail(exchange, now, suspect)


def _find(exchange: "Exchange", now: float, *, queued: bool) -> "EndpointState | None":
    """Pick an endpoint and reserve a slot on it; None if all are full. `queued` says whether the
    exchange is in the queue."""
    service = exchange.service
    if service.has_limits:
        return _find_with_room(exchange, now, queued=queued)
    if service.splitter is not None and not exchange.tried:
        sticky = _sticky_in_split(exchange, service)
        if sticky is not None:
            exchange.note_choice(STICKY, len(service.candidates))
            return sticky
    found = service.candidates
    if exchange.revision or exchange.tried:
        found = candidates(service, exchange.revision, exchange.tried)
    if not found:
        return None
    if service.backlog.limit != NO_LIMIT and not exchange.tried:
        return _find_unsaturated(exchange, found, now, queued=queued)
    return _pick(exchange, found, now)


def _find_unsaturated(
    exchange: "Exchange", found: Endpoints, now: float, *, queued: bool
) -> "EndpointState | None":
    """Pick an endpoint that has less than enough work; None if none has, or others wait."""
    service = exchange.service
    if service.waiting and not queued:
        return None
    limit = service.backlog.limit
    free = [state for state in found if state.in_flight < limit]
    if len(free) == len(found):
        return _pick(exchange, found, now)
    # Not the picker: it would derive its order again for each set of endpoints.
    best = None
    for state in free:
        if best is None or state.in_flight < best.in_flight:
            best = state
    exchange.note_choice(LEAST_LOADED, len(found))
    return best


def _find_with_room(exchange: "Exchange", now: float, *, queued: bool) -> "EndpointState | None":
    found = candidates(exchange.service, exchange.revision, exchange.tried)
    entry = exchange.queue_entry
    since = now if entry is None else entry.since
    if exchange.tried:
        since = float("inf")
    return reserve_slot(
        exchange.service.limits, found, lambda some: _pick(exchange, some, now), now, since, queued
    )


def reserve_slot(
    limits: "ConcurrencyLimits",
    found: Endpoints,
    pick: "Callable[[Endpoints], EndpointState]",
    now: float,
    since: float,
    queued: bool,
) -> "EndpointState | None":
    """Reserve a slot on one of `found`, in the order in which `pick` chooses; None if all are full.
    `since` is when the request or session began to wait, `queued` whether it is in the queue."""
    if found and limits.admits(now, since, int(queued)):
        while found:
            endpoint = pick(found)
            if limits.reserve(endpoint, now, since):
                return endpoint
            endpoint.publish()
            found = tuple(each for each in found if each is not endpoint)
    limits.publish()
    return None


def _pick(exchange: "Exchange", found: Endpoints, now: float) -> "EndpointState":
    """Pick one of `found`, by the sticky cookie or else by the balancing algorithm."""
    if len(found) == 1:
        exchange.note_choice(ONLY, 1)
        return found[0]
    service = exchange.service
    policy = service.config.balance
    if policy.sticky_cookie:
        sticky = _sticky(exchange, found)
        if sticky is not None:
            exchange.note_choice(STICKY, len(found))
            return sticky
    exchange.note_choice(BALANCED, len(found))
    key = balance_key(exchange, service)
    endpoint = found[service.picker.pick(found, key, exchange.plane.random, now)]
    if policy.sticky_cookie:
        exchange.stick_to(b"%b=%b" % (policy.sticky_cookie.encode(), _tag(endpoint)))
    return endpoint


def candidates(service: "ServiceState", revision: str, excluded: Endpoints) -> Endpoints:
    """Return the endpoints that may be picked, without the `excluded` ones. If the revision has
    none, those of all revisions."""
    found = _with_room(service, service.candidates_of(revision), excluded)
    if not found and revision:
        return _with_room(service, service.candidates, excluded)
    return found


def _with_room(service: "ServiceState", found: Endpoints, excluded: Endpoints) -> Endpoints:
    if excluded:
        found = tuple(state for state in found if state not in excluded)
    if service.has_limits:
        found = tuple(state for state in found if service.limits.may_have_room(state))
    return found


def _wait_or_fail(exchange: "Exchange", now: float, suspect: "EndpointState | None" = None) -> None:
    service = exchange.service
    if exchange.tried:
        exchange.fail(failure.NO_ENDPOINT)
        return
    if exchange.background and not service.candidates:
        exchange.fail(failure.NO_ENDPOINT if service.endpoints else failure.ASLEEP)
        return
    held = exchange.body.size if exchange.body is not None else 0
    decision = may_wait(service, held, load=not exchange.background)
    if decision == "shed":
        exchange.fail(failure.SHED if service.candidates else failure.NO_ENDPOINT)
        return
    entry = WaitingExchange(exchange, now, held, parked=decision == "park", suspect=suspect)
    deadline = enter_queue(exchange.plane, service, entry, exchange.queue_seconds)
    route = exchange.route
    if entry.parked and route is not None and route.filters is not None:
        since = entry.since - exchange.queue_seconds
        deadline = route.filters.limit_wait(exchange.head, since, deadline)
    exchange.wait(entry, deadline)


def may_wait(service: "ServiceState", held: int, *, load: bool = True) -> admit.Wait:
    """Decide where a request waits that no endpoint can take, and count it if it is shed and part
    of the load. `held` is the number of bytes to hold for it. Unless it is shed, `enter_queue`
    must follow."""
    config, counters = service.config, service.counters
    if service.backlog.limit != NO_LIMIT and service.candidates:
        # It would wait at an endpoint otherwise, which nothing limits either.
        return "queue"
    others, others_bytes = service.limits.announce_waiter()
    decision = admit.wait_or_shed(
        config.limits,
        config.parking,
        ready=len(service.candidates),
        pending=counters.queued + others,
        parked=counters.parked + others,
        parked_bytes=service.parked_bytes + others_bytes,
        body_bytes=held,
    )
    if decision == "shed":
        service.limits.publish()
        counters.shed += load
    return decision


def enter_queue(
    plane: "DataPlane", service: "ServiceState", entry: QueueEntry, waited: float
) -> float:
    """Put an entry at the end of the queue. Return its deadline in monotonic seconds. `waited` is
    how long its request has waited before: the timeout is for all of it."""
    config, counters = service.config, service.counters
    if entry.parked:
        service.parked_bytes += entry.body_bytes
        counters.parked += 1
        counters.parked_total += 1
        timeout = config.parking.timeout
    else:
        counters.queued += 1
        timeout = admit.queue_seconds(config.limits, config.parking)
        if service.backlog.limit != NO_LIMIT:
            timeout = max(timeout, service.first_byte_timeout)
    service.waiting.append(entry)
    service.limits.publish()
    if entry.parked and not counters.parked & (counters.parked - 1):  # 1, 2, 4, 8, …
        plane.on_wake(service.name, counters.parked)
    return entry.since + max(0.0, timeout - waited)


def stop_waiting(service: "ServiceState", entry: QueueEntry | None) -> None:
    """Take an entry out of the queue, if it is there."""
    if entry is not None and entry in service.waiting:
        service.waiting.remove(entry)
        _uncount(service, entry)


def leave_queue(service: "ServiceState", entry: QueueEntry) -> None:
    """Take the first entry, which is `entry`, out of the queue."""
    service.waiting.popleft()
    _uncount(service, entry)


def _uncount(service: "ServiceState", entry: QueueEntry) -> None:
    if entry.parked:
        service.counters.parked -= 1
        service.parked_bytes -= entry.body_bytes
    else:
        service.counters.queued -= 1
    service.limits.publish()


def request_over(service: "ServiceState", now: float) -> None:
    """Count the end of a request of the service, and give its room to those that wait."""
    service.in_flight -= 1
    if service.has_limits:
        service.limits.publish()
        if service.ports:
            _wake_oldest(service, now)
    if service.waiting:
        wake(service, now)


def wake(service: "ServiceState", now: float) -> None:
    """Send waiting requests, the oldest first, as long as there is room for them."""
    waiting = service.waiting
    while waiting and waiting[0].send_on(now):
        pass


def _wake_oldest(service: "ServiceState", now: float) -> None:
    """Wake those that wait for the other ports of a service, if they wait for longer."""
    since = service.waiting[0].since if service.waiting else float("inf")
    for port in service.ports:
        if port.waiting and port.waiting[0].since < since:
            wake(port, now)


def is_opening(service: "ServiceState") -> bool:
    """Return whether the next parked request waits, because MAX_OPENING connections to each
    endpoint are being opened. An endpoint that has just started has a short queue for new
    connections."""
    if not service.parks_on_refusal or not service.candidates:
        return False
    return min([endpoint.opening for endpoint in service.candidates]) >= MAX_OPENING


def _sticky_in_split(exchange: "Exchange", service: "ServiceState") -> "EndpointState | None":
    """The endpoint that a client keeps while a split divides requests between revisions, so that
    it does not change the revision with every request. None once that revision has no share."""
    if not service.config.balance.sticky_cookie or service.splitter is None or service.has_limits:
        return None
    sticky = _sticky(exchange, service.candidates)
    if sticky is not None and sticky.endpoint.revision in service.splitter.open:
        return sticky
    return None


def _sticky(exchange: "Exchange", found: Endpoints) -> "EndpointState | None":
    """The endpoint among `found` that the client's sticky cookie names, or None."""
    name = exchange.service.config.balance.sticky_cookie.encode()
    tag = find_cookie(exchange.head.field(b"cookie"), name)
    if tag is None:
        return None
    return next((state for state in found if _tag(state) == tag), None)


def _tag(endpoint: "EndpointState") -> bytes:
    """The value of a sticky cookie. Not the endpoint's id, which clients need not know."""
    return b"%016x" % hash_key(endpoint.id.encode())
