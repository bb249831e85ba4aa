"""Counts of a release: exact over workers, kept over restarts, and honest about what is missing."""

from collections.abc import Mapping

from meshd.model.release import RevisionCounts, Tally
from meshd.telemetry.release_counts import LATE, ReleaseCounter
from proxy.wire.report import EndpointReport, Report, ServiceReport
from proxy.wire.snapshot import Generation


class Memory:
    """Where tallies are kept."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, int], Tally] = {}

    def tally(self, key: str, number: int) -> Tally | None:
        return self.kept.get((key, number))

    def keep(self, tallies: Mapping[tuple[str, int], Tally]) -> None:
        self.kept |= tallies


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


def test_every_worker_counts_and_only_what_is_under_way() -> None:
    memory, under_way = Memory(), {"shop/web": 4}
    tallies = ReleaseCounter(memory, lambda: under_way)
    tallies.take(report(1, 9.0, 10.0, 5, 0, 0))
    tallies.step(10.0)
    tallies.take(report(1, 10.0, 11.0, 5, 3, 2))
    tallies.take(report(2, 10.0, 11.1, 7, 0, 0))
    tallies.step(11.2)
    assert memory.kept["shop/web", 4] == Tally(
        requests=13, errors=1, parked=2, until=11.1,
        revisions={"old": RevisionCounts(12, 0, 0), "new": RevisionCounts(0, 1, 2)},
    )  # fmt: skip
    under_way.clear()
    tallies.step(12.0)
    tallies.take(report(1, 11.0, 12.0, 1, 0, 0))
    tallies.step(12.0 + LATE)
    assert memory.kept["shop/web", 4].requests == 14
    tallies.take(report(1, 12.0, 15.0, 1, 0, 0))
    tallies.step(15.0)
    assert memory.kept["shop/web", 4].requests == 14
    assert tallies.of("shop/web", 4) is None


def test_a_successor_goes_on_counting_and_tells_what_it_did_not_see() -> None:
    memory, under_way = Memory(), {"shop/web": 4}
    first = ReleaseCounter(memory, lambda: under_way)
    first.step(10.0)
    first.take(report(1, 10.0, 11.0, 5, 0, 0))
    first.flush()
    second = ReleaseCounter(memory, lambda: under_way)
    second.step(14.0)
    second.take(report(1, 13.0, 14.0, 2, 0, 0))
    second.take(report(1, 14.0, 15.0, 2, 0, 0))
    found = second.of("shop/web", 4)
    assert found is not None
    assert (found.requests, found.unknown) == (9, 2.0)


def test_a_release_that_is_overtaken_leaves_its_count() -> None:
    memory, under_way = Memory(), {"shop/web": 4}
    tallies = ReleaseCounter(memory, lambda: under_way)
    tallies.step(10.0)
    tallies.take(report(1, 10.0, 11.0, 5, 0, 0))
    under_way["shop/web"] = 5
    tallies.step(11.0)
    tallies.take(report(1, 11.0, 12.0, 3, 0, 0))
    tallies.step(12.0)
    assert [memory.kept["shop/web", n].requests for n in (4, 5)] == [5, 3]
