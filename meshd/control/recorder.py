"""The flight recorder: saves the last requests on demand, and when a latency objective is missed;
shows live requests to clients of the API.

Implements `meshd.api.port.RecordControl`; made by `meshd.daemon.wiring`, stepped by
`meshd.daemon.ticker` once a second. `meshd.store.flight_records` has the files.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import Final

import structlog

from meshd.control.lookup import Lookup
from meshd.model.desired import DesiredService
from meshd.model.errors import Rejected, StoreWriteError
from meshd.model.event import Kind
from meshd.store.events import EventLog
from meshd.store.flight_records import FlightRecords
from meshd.telemetry.ingest import Ingest
from meshd.telemetry.objectives import WINDOW, describe_breach
from meshd.telemetry.tap_watcher import Watcher
from proxy.observe.flight import Flight, RecordInfo, RecordOrder
from proxy.observe.tap import TapFilter, TapLine

PAUSE: Final = 300.0
"""Seconds between two records of a service without an order: an objective may be missed for hours,
and the first minutes say why."""
MAX_WATCHERS: Final = 8
"""Clients of the API that watch live requests: half of those that a worker has, so that `meshd tap`
on this machine still works."""
_log: Final = structlog.stdlib.get_logger(__name__)


class Recorder:
    """Saves, lists and reads records; watches live requests."""

    def __init__(
        self,
        state: Path,
        lookup: Lookup,
        ingest: Ingest,
        events: EventLog,
        clock: Callable[[], float],
    ) -> None:
        self._state = state
        self._records = FlightRecords(state)
        self._lookup = lookup
        self._ingest = ingest
        self._events = events
        self._clock = clock
        self._saved_at: dict[str, float] = {}
        self._watchers = 0

    def save(self, project: str, service: str, who: str) -> RecordInfo:
        """See `RecordControl.save`."""
        key = self._lookup.service(project, service).key if service else ""
        return self._create(key, f"ordered by {who}")

    def list(self) -> Sequence[RecordInfo]:
        """See `RecordControl.list`."""
        return self._records.list()

    def find(self, id: str) -> RecordInfo:
        """See `RecordControl.find`."""
        return self._records.find(id)

    async def read(self, id: str) -> Sequence[Flight]:
        """See `RecordControl.read`."""
        return await asyncio.to_thread(self._records.read, id)

    def tap(self, wanted: TapFilter) -> AsyncGenerator[TapLine]:
        """See `RecordControl.tap`."""
        if self._watchers >= MAX_WATCHERS:
            raise Rejected(f"{MAX_WATCHERS} clients watch requests already; end one of them first")
        return self._watch(wanted)

    async def _watch(self, wanted: TapFilter) -> AsyncGenerator[TapLine]:
        self._watchers += 1
        try:
            with Watcher(self._state, wanted) as watcher:
                async with contextlib.aclosing(watcher.lines()) as lines:
                    async for line in lines:
                        yield line
        finally:
            self._watchers -= 1

    def step(self, services: Sequence[DesiredService], now: float) -> None:
        """Save the requests of each service that misses its latency objective."""
        for service in services:
            scale = service.spec.mesh.scale
            if scale is None or scale.objective is None:
                continue
            if now - self._saved_at.get(service.key, 0.0) < PAUSE:
                continue
            merged = self._ingest.window(service.key, WINDOW, now).merged
            breach = describe_breach(merged, scale.objective.latency, scale.objective.share)
            if breach is None:
                continue
            self._saved_at[service.key] = now
            try:
                self._create(service.key, breach)
            except StoreWriteError as error:
                _log.warning("flight record not saved", service=service.key, error=str(error))

    def _create(self, key: str, reason: str) -> RecordInfo:
        now = self._clock()
        found = self._records.create(RecordOrder(now, key, reason))
        project, _, service = key.partition("/")
        text = f"record {found.id} saved: {reason}; `meshd record show {found.id}`"
        self._events.record(now, Kind.RECORD_SAVED, text, project=project, service=service)
        return found
