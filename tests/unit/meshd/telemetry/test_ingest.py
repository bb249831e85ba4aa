"""Ingest: reports merged over workers and over time."""

import random
from collections.abc import Sequence

import pytest

from meshd.telemetry.ingest import HISTORY, EndpointNow, Ingest
from meshd.telemetry.merge import Distribution
from proxy.wire import buckets
from proxy.wire.report import EndpointReport, Histogram, Report, ServiceReport
from proxy.wire.snapshot import Generation

T = 1_000_000.0
SHOP = "shop/orders"


def histogram(*seconds: float) -> Histogram:
    counts: dict[int, int] = {}
    for value in seconds:
        bucket = buckets.index(value)
        counts[bucket] = counts.get(bucket, 0) + 1
    return Histogram(counts, sum(seconds))


def service(*latencies: float, busy: float = 0.0, **more: object) -> ServiceReport:
    count = len(latencies)
    values: dict[str, object] = {
        "name": SHOP,
        "arrivals": count,
        "codes": {"GET 2xx": count},
        "total": histogram(*latencies),
        "endpoints": (EndpointReport("a", "r1", 0, busy, count, count, 0, histogram(*latencies)),),
    }
    return ServiceReport(**(values | more))


def report(
    worker: int, sequence: int, start: float, end: float, *services: ServiceReport
) -> Report:
    return Report(worker, sequence, T + start, T + end, Generation(1, 1), services)


def ingest(*reports: Report) -> Ingest:
    made = Ingest()
    for each in reports:
        made.add(each)
    return made


def test_a_second_merges_all_workers() -> None:
    ingested = ingest(
        report(1, 1, 0, 1, service(0.010, 0.020, busy=1.5, retries=1, shed=2)),
        report(2, 1, 0, 1, service(0.030, busy=0.5, codes={"GET 2xx": 1, "POST 5xx": 4})),
    )
    second = ingested.second(T + 1.2)[SHOP]
    assert (second.start, second.interval) == (T, 1.0)
    assert (second.arrivals, second.completions, second.errors) == (3, 7, 4)
    assert (second.retries, second.shed) == (1, 2)
    assert second.in_flight == pytest.approx(2.0)
    assert second.total.count == 3
    assert second.total.sum == pytest.approx(0.060)
    assert second.revisions()["r1"].started == 3


def test_quantiles_are_of_the_merged_histogram() -> None:
    fast, slow = [0.010] * 98, [1.0] * 2
    window = ingest(report(1, 1, 0, 1, service(*fast)), report(2, 1, 0, 1, service(*slow))).window(
        SHOP, 10, T + 1
    )
    assert window.p50 == pytest.approx(0.010, rel=0.04)
    assert window.p95 == pytest.approx(0.010, rel=0.04)
    assert window.p99 == pytest.approx(1.0, rel=0.04)
    assert window.rps == pytest.approx(100.0)


def test_duplicates_count_once_and_gaps_are_counted() -> None:
    first = report(1, 1, 0, 1, service(0.01))
    ingested = ingest(first, first, report(1, 4, 3, 4, service(0.01)), first)
    assert (ingested.duplicates, ingested.missing) == (2, 2)
    assert ingested.total(SHOP).arrivals == 2


def test_a_restarted_worker_with_the_same_number_is_counted() -> None:
    ingested = ingest(report(1, 9, 0, 1, service(0.01)), report(1, 1, 5, 6, service(0.01)))
    assert ingested.duplicates == 0
    assert ingested.total(SHOP).arrivals == 2


@pytest.mark.parametrize(
    ("ends", "now", "expected"),
    [
        ((2.0, 2.0), 2.01, 1.0),
        ((2.0, 1.0), 2.1, 0.0),
        ((2.0, 1.0), 3.6, 1.0),
        ((1.99, 2.01), 2.02, 1.0),
    ],
)
def test_a_second_is_complete_once_all_reported_or_too_late(
    ends: tuple[float, float], now: float, expected: float
) -> None:
    reports: list[Report] = []
    for worker, end in enumerate(ends):
        reports += [
            report(worker, second + 1, second, min(second + 1.0, end), service(0.01))
            for second in range(round(end))
        ]
    assert ingest(*reports).second(T + now)[SHOP].start == T + expected


def test_no_report_is_no_data_and_idle_is_data() -> None:
    ingested = Ingest()
    ingested.set_services([SHOP])
    assert ingested.second(T) == {}
    ingested.add(report(1, 1, 0, 1))
    idle = ingested.second(T + 1)[SHOP]
    assert (idle.interval, idle.arrivals, idle.in_flight) == (1.0, 0, 0.0)
    assert ingested.second(T + 60) == {}


def test_busy_time_is_spread_over_the_seconds_it_covers() -> None:
    ingested = ingest(
        report(1, 1, 0.0, 0.5, service(busy=0.0)),
        report(1, 2, 0.5, 1.5, service(busy=4.0)),
        report(1, 3, 1.5, 2.0, service(busy=2.0)),
    )
    assert ingested.second(T + 1)[SHOP].in_flight == pytest.approx(2.0)
    assert ingested.second(T + 2)[SHOP].in_flight == pytest.approx(4.0)


def test_a_report_of_half_a_second_does_not_halve_the_load() -> None:
    ingested = ingest(report(1, 1, 0.5, 1.0, service(busy=2.0)))
    assert ingested.second(T + 1)[SHOP].in_flight == pytest.approx(4.0)


def test_a_dead_workers_gauges_go_and_its_counts_stay() -> None:
    held = service(
        0.01, parked=3, endpoints=(EndpointReport("a", "r1", in_flight=5, ejected=True),)
    )
    ingested = ingest(report(1, 1, 0, 1, held), report(2, 1, 0, 1, held))
    assert ingested.endpoints(SHOP, T + 1) == {"a": EndpointNow(10, 2)}
    assert ingested.window(SHOP, 10, T + 1).in_flight == 10
    ingested.set_workers([2])
    assert ingested.endpoints(SHOP, T + 1) == {"a": EndpointNow(5, 1)}
    assert ingested.second(T + 1)[SHOP].parked == 3
    assert ingested.total(SHOP).arrivals == 2
    assert list(ingested.processes(T + 1)) == [2]


def test_a_silent_worker_counts_as_gone() -> None:
    ingested = ingest(report(1, 1, 0, 1, service(0.01)))
    for second in range(1, 8):
        ingested.add(report(2, second, second, second + 1, service(0.01)))
    assert list(ingested.processes(T + 8)) == [2]
    assert ingested.second(T + 8)[SHOP].start == T + 7


def test_removed_services_are_forgotten() -> None:
    ingested = ingest(report(1, 1, 0, 1, service(0.01)))
    ingested.set_services(["shop/auth"])
    assert ingested.services() == ["shop/auth"]
    assert ingested.window(SHOP, 10, T + 1).merged.arrivals == 0


def test_unknown_methods_do_not_grow_the_totals() -> None:
    odd = service(0.01, codes={f"BREW{n} 4xx": 1 for n in range(50)} | {"GET 2xx": 1})
    assert ingest(report(1, 1, 0, 1, odd)).total(SHOP).codes == {"OTHER 4xx": 50, "GET 2xx": 1}


def test_memory_is_bounded_by_the_history() -> None:
    ingested = Ingest()
    for second in range(3 * HISTORY):
        ingested.add(report(1, second, second, second + 1, service(0.01, 0.5)))
    assert ingested.window(SHOP, 10_000, T + 3 * HISTORY).merged.arrivals == 2 * HISTORY
    assert len(ingested._seconds) <= HISTORY + 2
    assert ingested.total(SHOP).arrivals == 6 * HISTORY


def test_history_restarts_when_the_clock_is_set_back() -> None:
    ingested = ingest(report(1, 1, 10_000, 10_001, service(0.01)))
    ingested.add(report(1, 2, 0, 1, service(0.01)))
    assert ingested.second(T + 1)[SHOP].arrivals == 1


def test_any_order_of_workers_gives_the_same_figures() -> None:
    rng = random.Random(7)
    reports: Sequence[Report] = [
        report(w, s + 1, s, s + 1, service(*(rng.random() for _ in range(5)), busy=rng.random()))
        for s in range(5)
        for w in range(4)
    ]
    apart: list[Report] = sorted(reports, key=lambda r: r.worker)
    one, other = ingest(*reports).window(SHOP, 5, T + 5), ingest(*apart).window(SHOP, 5, T + 5)
    assert one.merged.total.counts == other.merged.total.counts
    assert one.merged.in_flight == pytest.approx(other.merged.in_flight)
    assert one.merged.arrivals == 100


def test_a_distribution_returns_its_buckets() -> None:
    merged = Distribution()
    merged.add(histogram(0.001, 0.001, 0.5))
    assert merged.mean == pytest.approx(0.502 / 3)
    assert [count for _, count in merged.upper_bounds()] == [2, 1]
    assert Distribution().mean is None
