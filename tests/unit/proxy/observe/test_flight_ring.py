"""Which requests the flight recorder keeps, and the form in which they are saved."""

import pytest

from proxy.observe.flight import describe_flight
from proxy.observe.flight_ring import (
    FAILED_SLOTS,
    PER_SECOND,
    SLOTS,
    STICKY,
    FlightDetails,
    FlightRecord,
    FlightRing,
    find_threshold,
)
from proxy.wire import buckets
from proxy.wire.report import Histogram
from proxy.wire.snapshot import Endpoint

HEAD = (
    b"GET /a?token=x HTTP/1.1\r\nHost: shop.test\r\nUser-Agent: curl\r\n"
    b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
)
ENDPOINT = Endpoint("web-1", "10.0.0.1", 80, revision="r1")
SHORT = FlightRecord(
    50.0, 0.25, HEAD, False, "10.0.0.9", "", "all", "shop/web", ENDPOINT, 3, 2, 200, 0, 5, b"id",
    None,
)  # fmt: skip


def test_few_requests_are_all_recorded() -> None:
    assert find_threshold([], 1.0) == 0.0
    few = Histogram({buckets.index(0.01): PER_SECOND})
    assert find_threshold([few], 1.0) == 0.0


def test_of_many_requests_the_slowest_are_recorded() -> None:
    quick, slow = buckets.index(0.001), buckets.index(0.5)
    latencies = [Histogram({quick: 5000, slow: 50}), Histogram({quick: 5000, slow: 50})]
    threshold = find_threshold(latencies, 1.0)
    assert 0.001 < threshold < 0.01, "the quick ones are not, but any that is slower than they are"
    half = find_threshold([Histogram({quick: 5000, slow: 3 * PER_SECOND})], 1.0)
    assert half == buckets.upper_bound(slow)


def test_the_memory_is_bounded_and_failures_have_their_own() -> None:
    ring = FlightRing()
    for _ in range(SLOTS + 10):
        ring.answered.append(SHORT)
    ring.failed.append(SHORT._replace(status=502))
    assert len(ring.flights()) == SLOTS + 1
    for _ in range(FAILED_SLOTS + 10):
        ring.failed.append(SHORT)
    assert len(ring.flights()) == SLOTS + FAILED_SLOTS


def test_a_request_of_the_fast_path_is_described() -> None:
    flight = describe_flight(SHORT, "hot-cold", 1000.0, None)
    entry = flight.request
    assert (entry.time, entry.total, entry.first_byte) == (1049.75, 0.25, 0.25)
    assert (entry.method, entry.target, entry.host) == ("GET", "/a?token=x", "shop.test")
    assert (entry.endpoint, entry.revision, entry.user_agent) == ("web-1", "r1", "curl")
    assert entry.trace_id == "0af7651916cd43dd8448eb211c80319c"
    assert (flight.choice, flight.algorithm, flight.candidates) == ("balanced", "hot-cold", 3)
    alone = describe_flight(SHORT._replace(candidates=1), "hot-cold", 0.0, None)
    assert (alone.choice, alone.algorithm) == ("only", "")


@pytest.mark.parametrize(
    ("hidden", "target"), [(frozenset(), "/a"), (frozenset({"token"}), "/a?token=REDACTED")]
)
def test_query_strings_are_redacted(hidden: frozenset[str], target: str) -> None:
    assert describe_flight(SHORT, "", 0.0, hidden).request.target == target


def test_the_details_of_a_slow_request_are_described() -> None:
    details = FlightDetails(
        b"00-11111111111111111111111111111111-2222222222222222-00", True, STICKY, ("web-0",), False,
        0.1, 0.02, 0.05, 0.03, 1, "closed", "connection closed",
    )  # fmt: skip
    flight = describe_flight(SHORT._replace(details=details), "hot-cold", 0.0, None)
    entry = flight.request
    assert (entry.queue, entry.connect, entry.first_byte, entry.body) == (0.1, 0.02, 0.05, 0.03)
    assert (entry.version, entry.retries, entry.failure) == ("HTTP/1.0", 1, "closed")
    assert entry.trace_id == "1" * 32, "the trace that the proxy began"
    assert (flight.choice, flight.algorithm, flight.tried) == ("sticky", "", ("web-0",))
    gone = describe_flight(SHORT._replace(endpoint=None, head=b""), "", 0.0, None)
    assert (gone.choice, gone.request.endpoint, gone.request.target) == ("", "", "")
