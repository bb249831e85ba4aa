"""Picks an endpoint for a TCP session; if none has room, the session waits in the queue of its
service, or is refused.

`TcpSession` calls `dispatch`. The queue is that of `proxy.request.dispatch`, with the same limits.
"""

from typing import TYPE_CHECKING

from proxy.policy.hashing import hash_key
from proxy.request import dispatch as queue
from proxy.request import failure, retry

if TYPE_CHECKING:
    from proxy.state.endpoint_state import Endpoints, EndpointState
    from proxy.tcp.session import TcpSession


class WaitingSession(queue.QueueEntry):
    """The place of a session in the queue of its service."""

    __slots__ = ("session",)

    def __init__(self, session: "TcpSession", since: float, *, parked: bool) -> None:
        super().__init__(since, 0, parked=parked)
        self.session = session

    def send_on(self, now: float) -> bool:
        session = self.session
        if self.parked and queue.is_opening(session.service):
            return False
        endpoint = _find(session, now, self.since, queued=True)
        if endpoint is None:
            return False
        queue.leave_queue(session.service, self)
        session.leave_queue(now)
        session.go_to(endpoint, now)
        return True


def dispatch(session: "TcpSession", now: float) -> None:
    """Connect a session to an endpoint, or queue it, or end it."""
    endpoint = _find(session, now, now, queued=False)
    if endpoint is not None:
        session.go_to(endpoint, now)
        return
    service = session.service
    if session.tried:
        session.fail(failure.NO_ENDPOINT)
        return
    decision = queue.may_wait(service, 0)
    if decision == "shed":
        session.fail(failure.SHED if service.candidates else failure.NO_ENDPOINT)
        return
    entry = WaitingSession(session, now, parked=decision == "park")
    session.wait(entry, queue.enter_queue(session.plane, service, entry, session.queue_seconds))


def decide_retry(session: "TcpSession", now: float) -> int:
    """Return whether another attempt follows a connection that was not accepted: NO, ELSEWHERE or
    WAIT of `proxy.request.retry`. It is always safe, since no byte was sent."""
    service = session.service
    others = queue.candidates(service, session.revision, session.tried)
    if service.parks_on_refusal:
        if others:
            return retry.ELSEWHERE
        waited = now - session.started
        return retry.WAIT if waited < service.config.parking.timeout else retry.NO
    if not others or session.retries >= service.config.retries.attempts:
        return retry.NO
    return retry.ELSEWHERE if service.budget.withdraw(now) else retry.NO


def _find(
    session: "TcpSession", now: float, since: float, *, queued: bool
) -> "EndpointState | None":
    """Pick an endpoint and reserve a slot on it; None if all are full. `since` is when the
    session began to wait, `queued` whether it is in the queue."""
    service = session.service
    found = queue.candidates(service, session.revision, session.tried)
    if not service.has_limits:
        return _pick(session, found, now) if found else None
    if session.tried:
        since = float("inf")
    return queue.reserve_slot(
        service.limits, found, lambda some: _pick(session, some, now), now, since, queued
    )


def _pick(session: "TcpSession", found: "Endpoints", now: float) -> "EndpointState":
    """Pick one of `found` by the balancing algorithm. Only the client's address can be a key."""
    if len(found) == 1:
        return found[0]
    service = session.service
    key = None
    if service.config.balance.algorithm in ("ring-hash", "maglev"):
        key = hash_key(session.address)
    return found[service.picker.pick(found, key, session.plane.random, now)]
