"""The state of the control process on disk: the store, and every log that is kept in it.

Made by `meshd.daemon.wiring`; `ticker` flushes it. `meshd.store` has the parts.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from meshd.model.event import Event
from meshd.store.audit import AuditLog
from meshd.store.calls import CallLog
from meshd.store.decisions import DecisionLog
from meshd.store.events import EventLog
from meshd.store.history import HistoryLog
from meshd.store.jobs import JobLog
from meshd.store.quiesced import QuiescedLog
from meshd.store.releases import Releases
from meshd.store.silences import SilenceTable
from meshd.store.store import Store
from meshd.store.tokens import TokenTable
from meshd.store.traffic import TrafficLog
from meshd.store.usage import UsageLog
from meshd.telemetry.ingest import Ingest
from meshd.telemetry.release_counts import ReleaseCounter


class Stores:
    """The store of one state directory and its logs. Calls between services are read from
    `ingest`; `on_event` is called with each new event."""

    def __init__(self, state: Path, ingest: Ingest, on_event: Callable[[Event], None]) -> None:
        self.store = Store(state)
        self.events = EventLog(self.store, on_event)
        self.decisions = DecisionLog(self.store)
        self.calls = CallLog(self.store, self._count_calls)
        self.traffic = TrafficLog(self.store)
        self.jobs = JobLog(self.store)
        self.sizes = UsageLog(self.store)
        self.history = HistoryLog(self.store)
        self.tokens = TokenTable(self.store)
        self.silences = SilenceTable(self.store)
        self.audit = AuditLog(self.store)
        self.quiesced = QuiescedLog(self.store)
        self.releases = Releases(self.store)
        self.release_counts = ReleaseCounter(self.releases, self.releases.in_progress)
        self._ingest = ingest

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Hold the state open. Raises StateLocked, SchemaTooNew, sqlite3.DatabaseError."""
        self.store.open()
        try:
            self.events.open()
            self.jobs.open()
            self.sizes.open()
            yield
        finally:
            self.store.close()

    def tick(self, now: float) -> None:
        """Store what came in during the last second."""
        self.release_counts.step(now)
        self.calls.step(now)
        self.events.flush()

    def flush(self, now: float) -> None:
        """Store everything that is only counted so far."""
        self.calls.flush(now)
        self.release_counts.flush()
        self.sizes.flush(now)

    def _count_calls(self) -> dict[str, tuple[Mapping[str, int], Mapping[str, int]]]:
        """Return the calls of each service by caller, and those that its `allow` does not cover."""
        totals = {name: self._ingest.total(name) for name in self._ingest.services()}
        return {name: (total.calls, total.uncovered) for name, total in totals.items()}
