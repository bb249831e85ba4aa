"""What the control process does once a second, however little happens."""

import asyncio
import time
from typing import Final

import structlog

from meshd.control.status import by_service
from meshd.daemon.stores import Stores
from meshd.model.errors import StoreWriteError
from meshd.reconcile.loop import Reconciler
from meshd.scaling.controller import INTERVAL, ScalingController
from meshd.telemetry.ingest import Ingest

_log = structlog.stdlib.get_logger(__name__)
REPORT_LATE: Final = 0.15
"""Seconds after the full second at which workers' reports of it are in."""


class Ticker:
    """Scaling decisions, and what has to be written down."""

    def __init__(
        self, ingest: Ingest, ledgers: Stores, scaling: ScalingController, loop: Reconciler
    ) -> None:
        self._ingest = ingest
        self._ledgers = ledgers
        self._scaling = scaling
        self._loop = loop

    async def run(self) -> None:
        """Second after second until cancelled; then all that was learned is stored."""
        try:
            while True:
                now = time.time()
                await asyncio.sleep(INTERVAL - (now - REPORT_LATE) % INTERVAL)
                try:
                    self._beat(time.time())
                except StoreWriteError as error:
                    _log.error("what happens is not stored", reason=str(error))
        finally:
            now = time.time()
            self._ledgers.flush(now)
            self._scaling.close(now)

    def _beat(self, now: float) -> None:
        services = self._loop.desired.services
        self._ingest.keep([service.key for service in services])
        self._scaling.step(services, by_service(self._loop.observed.replicas), now)
        self._ledgers.step(now)
