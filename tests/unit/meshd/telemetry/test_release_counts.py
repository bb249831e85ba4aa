"""Counts of a release: exact over workers, kept over restarts, with the missing time."""

from collections.abc import Mapping

from meshd.model.release import ReleaseCounts, RevisionCounts
from meshd.telemetry.release_counts import LATE, ReleaseCounter
from proxy.wire.report import EndpointReport, Report, ServiceReport
from proxy.wire.snapshot import Generation


class Memory:
    """A store of counts in memory."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, int], ReleaseCounts] = {}

    def counts(self, key: str, number: int) -> ReleaseCounts | None:
        return self.kept.get((key, number))

    def keep(self, counts: Mapping[tuple[str, int], ReleaseCounts]) -> None:
        self.kept |= counts


def report(worker: int, start: float, end: float, good: int, failed: int, retried: int) -> Report:
    service = ServiceReport(
        name="shop/web",
        codes={"GET 2xx": good, "GET 5xx": failed - retried},
        parked_total=1,
        endpoints=(
            EndpointReport("a", "old", succeeded=good),
            EndpointReport("b", "new", failed=failed, retried=retried),
        ),
    )
    other = ServiceReport(name="shop/other", codes={"GET 2xx": 99})
    return Report(worker, int(end), start, end, Generation(), (service, other))


def test_all_workers_count_for_releases_in_progress_only() -> None:
    memory, in_progress = Memory(), {"shop/web": 4}
    counter = ReleaseCounter(memory, lambda: in_progress)
    counter.take(report(1, 9.0, 10.0, 5, 0, 0))
    counter.step(10.0)
    counter.take(report(1, 10.0, 11.0, 5, 3, 2))
    counter.take(report(2, 10.0, 11.1, 7, 0, 0))
    counter.step(11.2)
    assert memory.kept["shop/web", 4] == ReleaseCounts(
        requests=13, errors=1, parked=2, until=11.1,
        revisions={"old": RevisionCounts(12, 0, 0), "new": RevisionCounts(0, 1, 2)},
    )  # fmt: skip
    in_progress.clear()
    counter.step(12.0)
    counter.take(report(1, 11.0, 12.0, 1, 0, 0))
    counter.step(12.0 + LATE)
    assert memory.kept["shop/web", 4].requests == 14
    counter.take(report(1, 12.0, 15.0, 1, 0, 0))
    counter.step(15.0)
    assert memory.kept["shop/web", 4].requests == 14
    assert counter.of("shop/web", 4) is None


def test_a_restarted_process_continues_and_counts_the_missing_time() -> None:
    memory, in_progress = Memory(), {"shop/web": 4}
    first = ReleaseCounter(memory, lambda: in_progress)
    first.step(10.0)
    first.take(report(1, 10.0, 11.0, 5, 0, 0))
    first.flush()
    second = ReleaseCounter(memory, lambda: in_progress)
    second.step(14.0)
    second.take(report(1, 13.0, 14.0, 2, 0, 0))
    second.take(report(1, 14.0, 15.0, 2, 0, 0))
    found = second.of("shop/web", 4)
    assert found is not None
    assert (found.requests, found.unknown) == (9, 2.0)


def test_the_missing_time_counts_also_for_a_service_without_requests() -> None:
    counter = ReleaseCounter(Memory(), lambda: {"shop/web": 4})
    counter.step(10.0)
    counter.take(report(1, 10.0, 11.0, 5, 0, 0))
    counter.take(Report(1, 14, 13.0, 14.0, Generation()))
    found = counter.of("shop/web", 4)
    assert found is not None
    assert (found.requests, found.unknown, found.until) == (5, 2.0, 14.0)


def test_a_superseded_release_keeps_its_counts() -> None:
    memory, in_progress = Memory(), {"shop/web": 4}
    counter = ReleaseCounter(memory, lambda: in_progress)
    counter.step(10.0)
    counter.take(report(1, 10.0, 11.0, 5, 0, 0))
    in_progress["shop/web"] = 5
    counter.step(11.0)
    counter.take(report(1, 11.0, 12.0, 3, 0, 0))
    counter.step(12.0)
    assert [memory.kept["shop/web", n].requests for n in (4, 5)] == [5, 3]
