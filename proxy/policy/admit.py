"""May a request go now, must it wait, or is it turned away: bounds as pure checks.

Order of the questions: is there anyone to ask (else park), does the service take one more (else
shed), does an endpoint take one more (else queue). A wait is bounded in number and time; what
does not fit is turned away at once, because a late answer helps nobody.
"""

from typing import Final, Literal

from proxy.wire.snapshot import Limits, Parking

Admission = Literal["go", "queue", "park", "shed"]
REASONS: Final = {
    "shed": "the service is at its limit of requests in flight or waiting",
    "park": "no replica is ready",
    "queue": "every replica is at its limit",
}


def admit(
    limits: Limits,
    parking: Parking,
    *,
    ready: int,
    open_endpoints: int,
    service_in_flight: int,
    pending: int,
    parked: int,
    parked_bytes: int,
    body_bytes: int = 0,
) -> Admission:
    """What to do with a request that has just arrived.

    `ready` endpoints exist, `open_endpoints` of them are below their limits; `pending` requests
    queue already, `parked` wait for a first endpoint and hold `parked_bytes` of bodies.
    """
    if ready == 0:
        return "park" if may_park(parking, parked, parked_bytes, body_bytes) else "shed"
    if limits.service_in_flight and service_in_flight >= limits.service_in_flight:
        return "queue" if pending < limits.pending else "shed"
    if open_endpoints == 0:
        return "queue" if pending < limits.pending else "shed"
    return "go"


def may_park(parking: Parking, parked: int, parked_bytes: int, body_bytes: int) -> bool:
    """Whether one more request may wait for a first endpoint."""
    return (
        parking.timeout > 0.0
        and parked < parking.requests
        and parked_bytes + body_bytes <= parking.bytes
    )


def endpoint_open(limits: Limits, in_flight: int, adaptive_limit: int = 0) -> bool:
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
