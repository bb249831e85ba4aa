"""Runs once a second: scaling decisions, storing what was counted, and updates of web pages.

One of the parts that `meshd.daemon.wiring` runs.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

import structlog

from meshd.control.live import LiveFeed
from meshd.control.recorder import Recorder
from meshd.control.status import by_service
from meshd.daemon.stores import Stores
from meshd.model.errors import StoreWriteError
from meshd.model.event import Kind
from meshd.reconcile.loop import Reconciler
from meshd.scaling.controller import INTERVAL, ScalingController
from meshd.telemetry.history_recorder import HistoryRecorder
from meshd.telemetry.ingest import Ingest

_log = structlog.stdlib.get_logger(__name__)
REPORT_DELAY: Final = 0.15
"""Seconds after a full second until the workers' reports about it have arrived."""


class Ticker:
    """Ticks shortly after each full second."""

    def __init__(
        self,
        ingest: Ingest,
        stores: Stores,
        scaling: ScalingController,
        reconciler: Reconciler,
        history: HistoryRecorder,
        flights: Recorder,
        live: LiveFeed,
        clock: Callable[[], float],
    ) -> None:
        self._ingest = ingest
        self._stores = stores
        self._scaling = scaling
        self._reconciler = reconciler
        self._history = history
        self._flights = flights
        self._live = live
        self._clock = clock
        self._state_is_lost = False

    async def run(self) -> None:
        """Tick every second until cancelled, then store everything."""
        try:
            while True:
                await asyncio.sleep(INTERVAL - (self._clock() - REPORT_DELAY) % INTERVAL)
                try:
                    self._tick(self._clock())
                except StoreWriteError as error:
                    _log.debug("state cannot be written", reason=str(error))
                self._watch_state(self._clock())
                self._live.step(self._clock())
        finally:
            now = self._clock()
            with contextlib.suppress(StoreWriteError):
                self._stores.flush(now)
                self._scaling.close(now)

    def _watch_state(self, now: float) -> None:
        """Record once that the state cannot be written, and once that it can again."""
        problem = self._stores.store.problem
        if bool(problem) == self._state_is_lost:
            return
        self._state_is_lost = bool(problem)
        if problem:
            text = f"{problem}; replicas are still replaced, changes are refused"
            self._stores.events.record(now, Kind.STATE_LOST, text)
            _log.error("state cannot be written", reason=problem)
        else:
            self._stores.events.record(now, Kind.STATE_BACK, "the state can be written again")

    def _tick(self, now: float) -> None:
        view = self._reconciler.view()
        services = view.desired.services
        scales = {service.key: service.spec.mesh.scale for service in services}
        objectives = {key: s.objective for key, s in scales.items() if s and s.objective}
        self._ingest.set_services([service.key for service in services], objectives)
        replicas = by_service(view.observed.replicas)
        self._scaling.step(services, replicas, now)
        self._stores.tick(now)
        self._history.step(services, replicas, now)
        self._flights.step(services, now)
