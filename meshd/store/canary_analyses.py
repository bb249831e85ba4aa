"""Running canary analyses, kept over restarts of the control process, so that a result is never
requested more often than its confidence allows. A row is deleted with its rollout. Written by
`meshd.reconcile.rollout.analysis_feed`."""

from collections.abc import Mapping

import msgspec

from meshd.model.canary import CanaryAnalysis
from meshd.store.store import Store

Numbered = tuple[int, CanaryAnalysis]
"""The number of a release, and its analysis."""


class TrialLog:
    """Analyses by service (`PROJECT/SERVICE`)."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def read(self) -> Mapping[str, Numbered]:
        """Return all stored analyses."""
        rows = self._store.database.execute("SELECT project, service, number, body FROM trial")
        return {
            f"{project}/{service}": (number, msgspec.json.decode(body, type=CanaryAnalysis))
            for project, service, number, body in rows
        }

    def keep(self, trials: Mapping[str, Numbered]) -> None:
        """Store some analyses."""
        rows = [
            (*key.split("/", 1), number, msgspec.json.encode(trial).decode())
            for key, (number, trial) in trials.items()
        ]
        with self._store.transaction() as database:
            database.executemany("INSERT OR REPLACE INTO trial VALUES (?, ?, ?, ?)", rows)
