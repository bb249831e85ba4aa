"""Counts of everything that a service was asked while a release was under way.

Taken from the workers' reports as they come, so that nothing is counted twice or rounded, and
stored each second, so that a control process that is killed loses what came in the meantime
and no more: `Tally.unknown` says how much that is.
"""

from collections.abc import Callable, Mapping
from typing import Final, Protocol

import msgspec

from meshd.model.release import RevisionCounts, Tally
from proxy.wire.report import Report, ServiceReport

LATE: Final = 2.0
"""Seconds after its end in which reports of a release still come."""
GAP: Final = 0.1
"""Seconds between two reports of a worker that are no gap."""

Release = tuple[str, int]
"""A service's key, and the number of a release of it."""


class ReleaseCountsStore(Protocol):
    """Where tallies are stored."""

    def tally(self, key: str, number: int) -> Tally | None:
        """What was stored of a release."""

    def keep(self, tallies: Mapping[Release, Tally]) -> None:
        """Store some."""


class ReleaseCounter:
    """The tallies of releases that are under way. `under_way` tells which are, by service."""

    def __init__(
        self, kept: ReleaseCountsStore, under_way: Callable[[], Mapping[str, int]]
    ) -> None:
        self._kept = kept
        self._under_way = under_way
        self._open: dict[str, int] = {}
        self._ended: dict[str, float] = {}
        self._tallies: dict[Release, Tally] = {}
        self._changed: set[Release] = set()
        self._ends: dict[int, float] = {}

    def of(self, key: str, number: int) -> Tally | None:
        """The counts so far of a release that is under way or just ended."""
        return self._tallies.get((key, number))

    def take(self, report: Report) -> None:
        """One worker's counts."""
        since = self._ends.get(report.worker)
        self._ends[report.worker] = report.end
        for service in report.services:
            number = self._open.get(service.name)
            if number is None:
                continue
            release = (service.name, number)
            tally = self._tallies[release]
            missed = report.start - (tally.until if since is None else since)
            late = missed if GAP < missed < report.start else 0.0
            self._tallies[release] = added(tally, service, late, report.end)
            self._changed.add(release)

    def step(self, now: float) -> None:
        """Once a second: begin with what is under way, store, and end with what is over."""
        under_way = self._under_way()
        for key, number in under_way.items():
            if self._open.get(key) != number:
                self._open[key] = number
                stored = self._kept.tally(key, number)
                self._tallies[key, number] = stored or Tally(until=0.0)
            self._ended.pop(key, None)
        for key in self._open.keys() - under_way.keys():
            self._ended.setdefault(key, now)
        self.flush()
        for key, ended in list(self._ended.items()):
            if ended + LATE <= now:
                del self._ended[key]
                self._tallies.pop((key, self._open.pop(key)), None)
        current = set(self._open.items())
        self._tallies = {r: tally for r, tally in self._tallies.items() if r in current}

    def flush(self) -> None:
        """Store what has changed."""
        self._kept.keep({r: self._tallies[r] for r in self._changed if r in self._tallies})
        self._changed.clear()


def added(tally: Tally, report: ServiceReport, unknown: float, until: float) -> Tally:
    """With one more report."""
    revisions = dict(tally.revisions)
    for endpoint in report.endpoints:
        if endpoint.succeeded or endpoint.failed:
            had = revisions.get(endpoint.revision, RevisionCounts())
            revisions[endpoint.revision] = RevisionCounts(
                served=had.served + endpoint.succeeded,
                failed=had.failed + endpoint.failed - endpoint.retried,
                retried=had.retried + endpoint.retried,
            )
    errors = sum(count for code, count in report.codes.items() if code.endswith("5xx"))
    return msgspec.structs.replace(
        tally,
        requests=tally.requests + sum(report.codes.values()),
        errors=tally.errors + errors,
        parked=tally.parked + report.parked_total,
        unknown=tally.unknown + unknown,
        until=max(tally.until, until),
        revisions=revisions,
    )
