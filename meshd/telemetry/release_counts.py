"""Counts of the requests of a service during a release.

`meshd.daemon.worker_events` passes every report to `ReleaseCounter.take`; the daemon's ticker calls
`step`. `meshd.store` keeps the counts, and `meshd rollout history` shows them.

The counts come straight from the workers' reports, so nothing is counted twice or rounded. They are
stored each second, so a control process that is killed loses only the reports of its absence;
`ReleaseCounts.unknown` says how much that is.
"""

from collections.abc import Callable, Mapping
from typing import Final, Protocol

import msgspec

from meshd.model.release import ReleaseCounts, RevisionCounts
from proxy.wire.report import Report, ServiceReport

LATE: Final = 2.0
"""Seconds after the end of a release in which its last reports may arrive: workers report once a
second."""
MAX_GAP: Final = 0.1
"""Seconds between two reports of a worker that do not count as missing."""

Release = tuple[str, int]
"""A service's key, and the number of a release of it."""


class ReleaseCountsStore(Protocol):
    """Where the counts are stored."""

    def counts(self, key: str, number: int) -> ReleaseCounts | None:
        """Return the stored counts of a release; None if there are none."""

    def keep(self, counts: Mapping[Release, ReleaseCounts]) -> None:
        """Store the counts of these releases."""


class ReleaseCounter:
    """The counts of the releases in progress. `in_progress` returns their numbers by service."""

    def __init__(
        self, store: ReleaseCountsStore, in_progress: Callable[[], Mapping[str, int]]
    ) -> None:
        self._store = store
        self._in_progress = in_progress
        self._open: dict[str, int] = {}
        self._ended_at: dict[str, float] = {}
        self._counts: dict[Release, ReleaseCounts] = {}
        self._changed: set[Release] = set()
        self._last_report_end: dict[int, float] = {}

    def of(self, key: str, number: int) -> ReleaseCounts | None:
        """Return the counts so far of a release that is in progress or just ended; None
        otherwise."""
        return self._counts.get((key, number))

    def take(self, report: Report) -> None:
        """Count one worker's report."""
        last_end = self._last_report_end.get(report.worker)
        self._last_report_end[report.worker] = report.end
        services = {service.name: service for service in report.services}
        for name, number in self._open.items():
            service = services.get(name) or ServiceReport(name)  # idle ones are left out
            release = (name, number)
            counts = self._counts[release]
            gap = report.start - (counts.until if last_end is None else last_end)
            missing = gap if MAX_GAP < gap < report.start else 0.0
            self._counts[release] = add_report(counts, service, missing, report.end)
            self._changed.add(release)

    def step(self, now: float) -> None:
        """Once a second: start to count new releases, store the counts, and drop ended releases."""
        in_progress = self._in_progress()
        for key, number in in_progress.items():
            if self._open.get(key) != number:
                self._open[key] = number
                stored = self._store.counts(key, number)
                self._counts[key, number] = stored or ReleaseCounts(until=0.0)
            self._ended_at.pop(key, None)
        for key in self._open.keys() - in_progress.keys():
            self._ended_at.setdefault(key, now)
        self.flush()
        for key, ended in list(self._ended_at.items()):
            if ended + LATE <= now:
                del self._ended_at[key]
                self._counts.pop((key, self._open.pop(key)), None)
        current = set(self._open.items())
        self._counts = {r: counts for r, counts in self._counts.items() if r in current}

    def flush(self) -> None:
        """Store the counts that changed."""
        self._store.keep({r: self._counts[r] for r in self._changed if r in self._counts})
        self._changed.clear()


def add_report(
    counts: ReleaseCounts, report: ServiceReport, missing: float, until: float
) -> ReleaseCounts:
    """Return the counts with one more report. `missing` are the seconds before it that no report
    covers, `until` is its end (Unix time). Pure."""
    revisions = dict(counts.revisions)
    for endpoint in report.endpoints:
        if endpoint.succeeded or endpoint.failed:
            before = revisions.get(endpoint.revision, RevisionCounts())
            revisions[endpoint.revision] = RevisionCounts(
                served=before.served + endpoint.succeeded,
                failed=before.failed + endpoint.failed - endpoint.retried,
                retried=before.retried + endpoint.retried,
            )
    errors = sum(count for code, count in report.codes.items() if code.endswith("5xx"))
    return msgspec.structs.replace(
        counts,
        requests=counts.requests + sum(report.codes.values()),
        errors=counts.errors + errors,
        parked=counts.parked + report.parked_total,
        unknown=counts.unknown + missing,
        until=max(counts.until, until),
        revisions=revisions,
    )
