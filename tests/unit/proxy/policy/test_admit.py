"""Limits, parking, rate limits and the adaptive limit."""

import pytest

from proxy.policy.admit import Wait, may_connect, may_park, may_send, wait_or_shed
from proxy.policy.gradient import Gradient
from proxy.policy.ratelimit import MAX_KEYS, RateLimiter
from proxy.wire.snapshot import Limits, Parking, RateLimit

TIGHT = Limits(service_in_flight=10, endpoint_in_flight=2, pending=3)


@pytest.mark.parametrize(
    ("limits", "state", "outcome"),
    [
        (TIGHT, {}, "queue"),
        (TIGHT, {"pending": 2}, "queue"),
        (TIGHT, {"pending": 3}, "shed"),
        (TIGHT, {"parked": 1024}, "queue"),
        (Limits(pending=0), {}, "shed"),
        (Limits(), {"ready": 0}, "park"),
        (TIGHT, {"ready": 0, "pending": 3}, "park"),
        (Limits(), {"ready": 0, "parked": 10_000}, "shed"),
        (Limits(), {"ready": 0, "parked_bytes": 16 * 1024 * 1024, "body_bytes": 1}, "shed"),
    ],
)
def test_a_request_without_a_slot_is_queued_or_parked(
    limits: Limits, state: dict[str, int], outcome: Wait
) -> None:
    values = {"ready": 2, "pending": 0, "parked": 0, "parked_bytes": 0, "body_bytes": 0, **state}
    assert wait_or_shed(limits, Parking(), **values) == outcome


def test_parking_can_be_off() -> None:
    assert may_park(Parking(), 0, 0, 0)
    assert not may_park(Parking(timeout=0.0), 0, 0, 0)
    assert not may_park(Parking(requests=0), 0, 0, 0)


def test_endpoint_bounds() -> None:
    assert may_send(Limits(), 10**6)
    assert may_send(TIGHT, 1)
    assert not may_send(TIGHT, 2)
    assert not may_send(Limits(), 20, adaptive_limit=20)
    assert may_connect(Limits(), 10**6)
    assert not may_connect(Limits(endpoint_connections=5), 5)


def test_burst_then_rate() -> None:
    limiter = RateLimiter(RateLimit(rate=10.0, burst=5.0))
    assert [limiter.acquire(b"a", 100.0) == 0.0 for _ in range(6)] == [True] * 5 + [False]
    assert limiter.acquire(b"a", 100.0) == pytest.approx(0.1)
    assert limiter.acquire(b"b", 100.0) == 0.0
    assert limiter.acquire(b"a", 100.1) == 0.0
    assert limiter.acquire(b"a", 100.1) > 0.0


def test_rate_holds_over_time() -> None:
    limiter = RateLimiter(RateLimit(rate=50.0, burst=10.0))
    passed = sum(limiter.acquire(b"a", tick / 1000) == 0.0 for tick in range(10_000))
    assert passed == pytest.approx(510, abs=2)


def test_keys_are_bounded_and_the_active_one_stays_limited() -> None:
    limiter = RateLimiter(RateLimit(rate=1.0, burst=2.0))
    passed = 0
    for number in range(3 * MAX_KEYS):
        passed += limiter.acquire(b"greedy", 5.0) == 0.0
        limiter.acquire(b"%d" % number, 5.0)
    assert passed == 2
    assert len(limiter._full_at) <= MAX_KEYS + 1


def test_gradient_finds_what_the_endpoint_can_do() -> None:
    """An endpoint with 10 servers at 10 ms each: more in flight only makes it wait."""
    gradient = Gradient()
    in_flight = 0
    for _ in range(5000):
        in_flight = gradient.limit
        gradient.observe(0.01 * max(1.0, in_flight / 10), in_flight)
    assert 10 <= gradient.limit <= 120
    settled = gradient.limit
    for _ in range(200):
        gradient.observe(0.2, gradient.limit)
    assert gradient.limit < settled


def test_gradient_grows_while_latency_is_flat_and_it_is_used() -> None:
    gradient = Gradient(start=20)
    for _ in range(100):
        gradient.observe(0.01, gradient.limit)
    assert gradient.limit > 60
    idle = Gradient(start=20)
    for _ in range(100):
        idle.observe(0.01, 1)
    assert idle.limit == 20


def test_gradient_keeps_to_its_bounds() -> None:
    gradient = Gradient(start=20, lowest=4, highest=50)
    for _ in range(1000):
        gradient.observe(0.01, 50)
    assert gradient.limit == 50
    for step in range(200):
        gradient.observe(0.01 * 1.3**step, gradient.limit)
    assert gradient.limit >= 4
