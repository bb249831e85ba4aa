"""When an endpoint is saturated, and how much work it gets then."""

import pytest

from proxy.policy.backlog import FEWEST, FRESH, NO_LIMIT, STEP, WORK, Backlog
from proxy.policy.latency import LatencyAtLoad, PeakEwma


def observe(latency: LatencyAtLoad, workers: int, seconds: float, most: int, now: float) -> None:
    """Observe answers of an endpoint with this number of workers, at each load up to `most`."""
    for load in range(most):
        for _ in range(20):
            latency.observe(seconds * max(1.0, (load + 1) / workers), now, load)


def limit_of(workers: int, seconds: float, most: int) -> int:
    latency, backlog = LatencyAtLoad(), Backlog()
    observe(latency, workers, seconds, most, 100.0)
    backlog.update(latency, most, 100.0, waiting=False)
    return backlog.limit


@pytest.mark.parametrize(
    ("workers", "seconds", "most", "work"),
    [(4, 0.1, 100, WORK), (4, 1.0, 100, 2.0), (1, 0.05, 60, WORK), (50, 0.2, 500, WORK)],
)
def test_a_saturated_endpoint_gets_a_margin_of_work(
    workers: int, seconds: float, most: int, work: float
) -> None:
    enough = max(FEWEST, work * workers / seconds)
    assert enough * 0.75 <= limit_of(workers, seconds, most) <= enough * 1.25
    assert limit_of(workers, seconds, most) >= 1.5 * workers


@pytest.mark.parametrize(
    ("workers", "seconds", "most"),
    [
        (1000, 0.1, 500),  # not loaded
        (1000, 5.0, 500),  # slow, but as slow without load
        (4, 0.001, 400),  # saturated, but a queue of 0.1 s does not matter
        (4, 0.1, FEWEST),
    ],
)
def test_others_have_no_limit(workers: int, seconds: float, most: int) -> None:
    assert limit_of(workers, seconds, most) == NO_LIMIT


def test_old_latencies_are_no_evidence() -> None:
    latency, backlog = LatencyAtLoad(), Backlog()
    observe(latency, 4, 0.1, 100, 100.0)
    backlog.update(latency, 100, 101.0 + FRESH, waiting=False)
    assert backlog.limit == NO_LIMIT


def test_a_limit_without_evidence_grows_while_requests_wait() -> None:
    latency, backlog = LatencyAtLoad(), Backlog()
    observe(latency, 4, 0.1, 100, 100.0)
    backlog.update(latency, 100, 100.0, waiting=True)
    first = backlog.limit
    now = 100.1
    backlog.update(latency, first, now, waiting=True)
    assert backlog.limit == first
    for _ in range(4):
        now += 20.0
        before = backlog.limit
        backlog.update(latency, before, now, waiting=True)
        assert backlog.limit == int(before * STEP)


def test_a_limit_that_is_not_needed_ends() -> None:
    latency, backlog = LatencyAtLoad(), Backlog()
    observe(latency, 4, 0.1, 100, 100.0)
    backlog.update(latency, 100, 100.0, waiting=True)
    backlog.update(latency, 1, 101.0, waiting=False)
    assert backlog.limit != NO_LIMIT
    backlog.update(latency, 1, 100.5 + FRESH, waiting=False)
    assert backlog.limit == NO_LIMIT


def test_an_estimate_without_load_classes_gives_no_limit() -> None:
    latency, backlog = PeakEwma(), Backlog()
    latency.observe(5.0, 100.0, 50)
    backlog.update(latency, 500, 100.0, waiting=False)
    assert backlog.limit == NO_LIMIT
