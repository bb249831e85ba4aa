"""Who called whom, and what of it an `allow` list did not cover: counts that outlive the daemon,
for audits and suggestions."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from meshd.model.errors import StoreWriteError
from meshd.model.scaling import CallerSeen
from meshd.store.store import Store

LIFE: Final = 30 * 86400.0
"""Seconds after its last call that a caller is remembered."""
PERIOD: Final = 10.0

Counts = Mapping[str, int]
_UPSERT: Final = (
    "INSERT INTO call (project, service, caller, calls, uncovered, first, last) "
    "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET calls = calls + excluded.calls, "
    "uncovered = uncovered + excluded.uncovered, last = excluded.last"
)


class CallLog:
    """Keeps what `totals` gives: for each service (`PROJECT/SERVICE`) its calls that got through
    and those that its `allow` did not cover, both by caller and only growing."""

    def __init__(
        self, store: Store, totals: Callable[[], Mapping[str, tuple[Counts, Counts]]]
    ) -> None:
        self._store = store
        self._totals = totals
        self._had: dict[str, tuple[Counts, Counts]] = {}
        self._due = 0.0

    def step(self, now: float) -> None:
        """Keep what was added, every few seconds."""
        if now >= self._due:
            self.flush(now)

    def flush(self, now: float) -> None:
        """Keep what was added since the last time."""
        self._due = now + PERIOD
        rows = []
        totals = self._totals()
        for key, (calls, uncovered) in totals.items():
            had_calls, had_uncovered = self._had.get(key, ({}, {}))
            for caller in calls.keys() | uncovered.keys():
                more = _added(calls, had_calls, caller), _added(uncovered, had_uncovered, caller)
                if any(more):
                    rows.append((*key.split("/", 1), caller, *more, now, now))
        self._had = {key: (dict(calls), dict(un)) for key, (calls, un) in totals.items()}
        if rows:
            with self._store.transaction() as database:
                database.executemany(_UPSERT, rows)
                database.execute("DELETE FROM call WHERE last < ?", (now - LIFE,))

    def of(self, project: str, now: float) -> Mapping[str, Sequence[CallerSeen]]:
        """The callers of each service of a project up to now, by the service's name."""
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
    """What was added to a total; one that shrank began anew."""
    more = now.get(caller, 0) - before.get(caller, 0)
    return more if more >= 0 else now.get(caller, 0)
