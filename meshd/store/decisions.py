"""The log of the autoscaler's decisions: bounded, kept over restarts. Written by the scaling
controller, read by `meshd explain`."""

import contextlib
from collections.abc import Sequence
from typing import Final

import msgspec

from meshd.model.errors import StoreWriteError
from meshd.model.scaling import ScaleDecision
from meshd.store.store import Store

KEPT: Final = 50_000
"""Decisions kept over all services."""
LIFE: Final = 7 * 86400.0
"""Seconds that a decision is kept."""
BEHIND: Final = 200
"""Decisions that may wait to be stored."""


class DecisionLog:
    """Decisions by service (`PROJECT/SERVICE`), stored in batches by `flush`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._unwritten: list[tuple[str, ScaleDecision]] = []

    def add(self, key: str, decision: ScaleDecision) -> None:
        """Add one decision."""
        self._unwritten.append((key, decision))
        if len(self._unwritten) >= BEHIND:
            with contextlib.suppress(StoreWriteError):
                self.flush(decision.at)
            del self._unwritten[:-BEHIND]  # while storing fails, the oldest are lost

    def flush(self, now: float) -> None:
        """Store the decisions not stored yet; delete what is too old or too many."""
        if not self._unwritten:
            return
        rows = [
            (*key.split("/", 1), decision.at, msgspec.json.encode(decision).decode())
            for key, decision in self._unwritten
        ]
        with self._store.transaction() as database:
            database.executemany(
                "INSERT INTO decision (project, service, at, body) VALUES (?, ?, ?, ?)", rows
            )
            database.execute(
                "DELETE FROM decision WHERE at < ? OR id <= (SELECT max(id) FROM decision) - ?",
                (now - LIFE, KEPT),
            )
        self._unwritten.clear()

    def of(self, key: str, at: float, limit: int) -> Sequence[ScaleDecision]:
        """Return the decisions on a service up to `at` (0: all), newest first."""
        if self._unwritten:
            with contextlib.suppress(StoreWriteError):
                self.flush(self._unwritten[-1][1].at)
        rows = self._store.database.execute(
            "SELECT body FROM decision WHERE project = ? AND service = ? AND at <= ? "
            "ORDER BY at DESC, id DESC LIMIT ?",
            (*key.split("/", 1), at or 1e18, limit),
        )
        return [msgspec.json.decode(body, type=ScaleDecision) for (body,) in rows]
