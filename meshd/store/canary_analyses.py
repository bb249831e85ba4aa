"""The stored canary analyses of rollouts in progress.

`meshd.reconcile.rollout.analysis_feed` stores each analysis before anything follows from it. So a
control process that takes over never tests more often than the confidence allows. The row is
deleted with the rollout, by `meshd.store.store`.
"""

from collections.abc import Mapping

import msgspec

from meshd.model.canary import CanaryAnalysis
from meshd.model.service_key import ServiceKey, service_key, split_key
from meshd.store.store import Store

NumberedAnalysis = tuple[int, CanaryAnalysis]
"""The number of a release, and its analysis."""


class CanaryAnalysisLog:
    """Canary analyses by service key."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def read(self) -> Mapping[ServiceKey, NumberedAnalysis]:
        """Return all that are stored."""
        rows = self._store.database.execute(
            "SELECT project, service, number, body FROM canary_analysis"
        )
        return {
            service_key(project, service): (number, msgspec.json.decode(body, type=CanaryAnalysis))
            for project, service, number, body in rows
        }

    def keep(self, analyses: Mapping[ServiceKey, NumberedAnalysis]) -> None:
        """Store these."""
        rows = [
            (*split_key(key), number, msgspec.json.encode(analysis).decode())
            for key, (number, analysis) in analyses.items()
        ]
        with self._store.transaction() as database:
            database.executemany(
                "INSERT OR REPLACE INTO canary_analysis (project, service, number, body) "
                "VALUES (?, ?, ?, ?)",
                rows,
            )
