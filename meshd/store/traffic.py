"""Recorded traffic: requests per service and their service time, so that the simulator can
replay them with other settings. Bounded: a day in steps of 10 s, a week in steps of a minute.
Fed by the scaling controller."""

from collections.abc import Sequence
from typing import Final

from meshd.model.scaling import Traffic, TrafficSpan
from meshd.store.store import Store

FINE: Final = 10
"""Seconds per fine step."""
COARSE: Final = 60
"""Seconds per coarse step."""
FINE_LIFE: Final = 86400
"""Seconds that fine steps are kept."""
COARSE_LIFE: Final = 7 * 86400
"""Seconds that coarse steps are kept."""


class TrafficLog:
    """Adds up seconds of traffic to steps; `flush` stores complete steps."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._sums: dict[tuple[str, int], TrafficSpan] = {}
        self._whole: list[tuple[str, TrafficSpan]] = []

    def add(self, key: str, second: TrafficSpan) -> None:
        """Add one second of a service (`PROJECT/SERVICE`)."""
        for span in (FINE, COARSE):
            at = second.at // span * span
            had = self._sums.get((key, span))
            if had is not None and had.at != at:
                self._whole.append((key, had))
                had = None
            self._sums[key, span] = TrafficSpan(
                at=at,
                seconds=span,
                arrivals=second.arrivals + (had.arrivals if had else 0),
                service_time=second.service_time,
                workers=second.workers,
                startup=second.startup,
            )

    def flush(self, now: float) -> None:
        """Store the complete steps, so that a killed process loses only the current step; delete
        what is too old."""
        over = [place for place, span in self._sums.items() if span.at + span.seconds < now - 2]
        self._whole += [(place[0], self._sums.pop(place)) for place in over]
        if not self._whole:
            return
        rows = [
            (*key.split("/", 1), span.seconds, span.at, span.arrivals, span.service_time,
             span.workers, span.startup)
            for key, span in self._whole
        ]  # fmt: skip
        with self._store.transaction() as database:
            database.executemany(
                "INSERT OR REPLACE INTO traffic VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows
            )
            database.executemany(
                "DELETE FROM traffic WHERE seconds = ? AND at < ?",
                ((FINE, now - FINE_LIFE), (COARSE, now - COARSE_LIFE)),
            )
        self._whole.clear()

    def of(self, key: str, since: float) -> Sequence[TrafficSpan]:
        """Return the steps since then, oldest first: fine steps as far back as they reach,
        coarse ones before."""
        where = key.split("/", 1)
        newest = self._store.database.execute(
            "SELECT max(at) FROM traffic WHERE project = ? AND service = ?", where
        ).fetchone()[0]
        step = FINE if newest is not None and newest - since < FINE_LIFE else COARSE
        rows = self._store.database.execute(
            "SELECT at, seconds, arrivals, service_time, workers, startup FROM traffic "
            "WHERE project = ? AND service = ? AND seconds = ? AND at >= ? ORDER BY at",
            (*where, step, since),
        )
        return [TrafficSpan(*row) for row in rows]


def peak_rate(spans: Sequence[TrafficSpan]) -> Traffic:
    """Return the highest request rate of any step, and the capacity of a replica as last
    learned. Pure."""
    most = max((span.arrivals / span.seconds for span in spans), default=0.0)
    learned = [s.workers / s.service_time for s in spans if s.workers and s.service_time]
    return Traffic(most, learned[-1] if learned else None)
