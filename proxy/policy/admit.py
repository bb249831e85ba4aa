"""Admission: may a request or connection be sent now, or may the request wait? Pure.

Called by `proxy.request.dispatch` and `proxy.state.concurrency_limits`. A request parks if its
service has no ready endpoint, and queues if all endpoints are full. Waiting is limited in number
and time; a request over the limit is shed at once, because a late answer is of no use.
"""

from typing import Literal

from proxy.wire.snapshot import Limits, Parking

Wait = Literal["queue", "park", "shed"]


def wait_or_shed(
    limits: Limits,
    parking: Parking,
    *,
    ready: int,
    pending: int,
    parked: int,
    parked_bytes: int,
    body_bytes: int,
) -> Wait:
    """Decide where a request waits that no endpoint can take.

    - `ready`: number of ready endpoints, all full
    - `pending`: requests that queue already
    - `parked`, `parked_bytes`: requests that wait for a first endpoint, and bytes of their bodies
    - `body_bytes`: bytes of this request's body
    """
    if ready == 0:
        return "park" if may_park(parking, parked, parked_bytes, body_bytes) else "shed"
    most = limits.pending
    if most and limits.adaptive:
        most = max(most, parking.requests)
    return "queue" if pending < most else "shed"


def queue_seconds(limits: Limits, parking: Parking) -> float:
    """Return how long a request may queue.

    An adaptive limit is not the user's: requests wait at least as long as for a first endpoint, so
    that none is refused while replicas start.
    """
    if limits.adaptive:
        return max(limits.pending_timeout, parking.timeout)
    return limits.pending_timeout


def may_park(parking: Parking, parked: int, parked_bytes: int, body_bytes: int) -> bool:
    """Return whether one more request may wait for a first endpoint."""
    return (
        parking.timeout > 0.0
        and parked < parking.requests
        and parked_bytes + body_bytes <= parking.bytes
    )


def may_send(limits: Limits, in_flight: int, adaptive_limit: int = 0) -> bool:
    """Return whether an endpoint takes one more request. `adaptive_limit` 0 means no limit."""
    if limits.endpoint_in_flight and in_flight >= limits.endpoint_in_flight:
        return False
    return not adaptive_limit or in_flight < adaptive_limit


def may_connect(limits: Limits, connections: int) -> bool:
    """Return whether one more connection to an endpoint may be opened."""
    return not limits.endpoint_connections or connections < limits.endpoint_connections
