"""Who called whom, and which calls no `allow` list covered: counts that survive the daemon, for
`meshd policy`."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from meshd.model.errors import StoreWriteError
from meshd.model.scaling import CallerSeen
from meshd.store.store import Store

LIFE: Final = 30 * 86400.0
"""Seconds after its last call for which a caller is kept."""
PERIOD: Final = 10.0
"""Seconds between two writes."""

Counts = Mapping[str, int]
_UPSERT: Final = (
    "INSERT INTO call (project, service, caller, calls, uncovered, first, last) "
    "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET calls = calls + excluded.calls, "
    "uncovered = uncovered + excluded.uncovered, last = excluded.last"
)


class CallLog:
    """Keep what `totals` gives: for each service (`PROJECT/SERVICE`) the calls that were served
    and the calls that its `allow` did not cover, both by caller, both only growing."""

    def __init__(
        self, store: Store, totals: Callable[[], Mapping[str, tuple[Counts, Counts]]]
    ) -> None:
        self._store = store
        self._totals = totals
        self._stored: dict[str, tuple[Counts, Counts]] = {}
        self._due = 0.0

    def step(self, now: float) -> None:
        """Store what was added; called every second, writes every few seconds."""
        if now >= self._due:
            self.flush(now)

    def flush(self, now: float) -> None:
        """Store what was added since the last time."""
        self._due = now + PERIOD
        rows = []
        totals = self._totals()
        for key, (calls, uncovered) in totals.items():
            had_calls, had_uncovered = self._stored.get(key, ({}, {}))
            for caller in calls.keys() | uncovered.keys():
                more = _added(calls, had_calls, caller), _added(uncovered, had_uncovered, caller)
                if any(more):
                    rows.append((*key.split("/", 1), caller, *more, now, now))
        self._stored = {key: (dict(calls), dict(un)) for key, (calls, un) in totals.items()}
        if rows:
            with self._store.transaction() as database:
                database.executemany(_UPSERT, rows)
                database.execute("DELETE FROM call WHERE last < ?", (now - LIFE,))

    def of(self, project: str, now: float) -> Mapping[str, Sequence[CallerSeen]]:
        """Return the callers of each service of a project, by the service's name."""
        with contextlib.suppress(StoreWriteError):
            self.flush(now)
        found: dict[str, list[CallerSeen]] = {}
        for service, *seen in self._store.database.execute(
            "SELECT service, caller, calls, uncovered, first, last FROM call WHERE project = ? "
            "ORDER BY service, caller",
            (project,),
        ):
            found.setdefault(service, []).append(CallerSeen(*seen))
        return found


def _added(now: Counts, before: Counts, caller: str) -> int:
    """Return what was added to a total; a total that shrank has restarted."""
    more = now.get(caller, 0) - before.get(caller, 0)
    return more if more >= 0 else now.get(caller, 0)
