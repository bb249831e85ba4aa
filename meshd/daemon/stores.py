"""What the control process writes down: the store, and every log that is kept in it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from meshd.store.calls import CallLog
from meshd.store.decisions import DecisionLog
from meshd.store.events import EventLog
from meshd.store.jobs import JobLog
from meshd.store.releases import Releases
from meshd.store.store import Store
from meshd.store.traffic import TrafficLog
from meshd.store.usage import UsageLog
from meshd.telemetry.ingest import Ingest
from meshd.telemetry.release_counts import ReleaseCounter


class Stores:
    """The store of one state folder and its logs. Who called whom is read from `ingest`."""

    def __init__(self, state: Path, ingest: Ingest) -> None:
        self.store = Store(state)
        self.events = EventLog(self.store)
        self.decisions = DecisionLog(self.store)
        self.calls = CallLog(self.store, self._called)
        self.traffic = TrafficLog(self.store)
        self.jobs = JobLog(self.store)
        self.sizes = UsageLog(self.store)
        self.releases = Releases(self.store)
        self.tallies = ReleaseCounter(self.releases, self.releases.in_progress)
        self._ingest = ingest

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Hold the state meanwhile. Raises Held, TooNew, sqlite3.DatabaseError."""
        self.store.open()
        try:
            self.events.open()
            self.jobs.open()
            self.sizes.open()
            yield
        finally:
            self.store.close()

    def step(self, now: float) -> None:
        """Write down what came in the last second."""
        self.tallies.step(now)
        self.calls.step(now)
        self.events.flush()

    def flush(self, now: float) -> None:
        """Write down what was only counted so far."""
        self.calls.flush(now)
        self.tallies.flush()
        self.sizes.flush(now)

    def _called(self) -> dict[str, tuple[Mapping[str, int], Mapping[str, int]]]:
        """Who called whom so far, and what of it was not covered."""
        totals = {name: self._ingest.total(name) for name in self._ingest.services()}
        return {name: (total.calls, total.uncovered) for name, total in totals.items()}
