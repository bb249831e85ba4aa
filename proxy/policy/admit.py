"""What becomes of a request that nobody has room for: bounds as pure checks.

Where there is no replica it parks, where there is one it queues. A wait is bounded in number and
time; what does not fit is turned away at once, because a late answer helps nobody. Who has room
is asked by `endpoint_open` and `may_connect`.
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
    """Where a request with `body_bytes` may wait, none of the `ready` endpoints having room.
    `pending` requests queue already, `parked` wait for a first endpoint and hold `parked_bytes`."""
    if ready == 0:
        return "park" if may_park(parking, parked, parked_bytes, body_bytes) else "shed"
    return "queue" if pending < limits.pending else "shed"


def may_park(parking: Parking, parked: int, parked_bytes: int, body_bytes: int) -> bool:
    """Whether one more request may wait for a first endpoint."""
    return (
        parking.timeout > 0.0
        and parked < parking.requests
        and parked_bytes + body_bytes <= parking.bytes
    )


def may_send(limits: Limits, in_flight: int, adaptive_limit: int = 0) -> bool:
    """Whether an endpoint takes one more request; `adaptive_limit` 0 means none."""
    if limits.endpoint_in_flight and in_flight >= limits.endpoint_in_flight:
        return False
    return not adaptive_limit or in_flight < adaptive_limit


def may_connect(limits: Limits, connections: int) -> bool:
    """Whether one more connection to an endpoint may be opened."""
    return not limits.endpoint_connections or connections < limits.endpoint_connections


def retry_after(pending: int, completed_per_second: float) -> int:
    """Whole seconds for a Retry-After field: how long what waits now will take, 1 to 30."""
    if completed_per_second <= 0.0:
        return 1
    return max(1, min(30, int(pending / completed_per_second) + 1))
