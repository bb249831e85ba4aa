"""Passes urgent news to the autoscaler at once: requests that wait for a service at zero, and
replicas that became ready.

The workers' messages and the reconciler put news in; the scaling controller gets them from `run`.
The queue between them is why the parts need not know each other.
"""

import asyncio
from collections.abc import Callable
from typing import NamedTuple

import structlog

from meshd.model.errors import StoreWriteError
from meshd.reconcile.loop import Reconciler
from meshd.scaling.controller import ScalingController
from meshd.telemetry.counters import EventCounters
from proxy.wire.report import Wake

_log = structlog.stdlib.get_logger(__name__)


class ReplicaReady(NamedTuple):
    """A replica of a service became ready, `seconds` after its start was ordered."""

    service: str
    seconds: float


class ScaleFromZeroFeed:
    """A queue of parked requests and ready replicas; `run` passes them to the scaling
    controller."""

    def __init__(self, counters: EventCounters, clock: Callable[[], float]) -> None:
        self._counters = counters
        self._clock = clock
        self._queue: asyncio.Queue[Wake | ReplicaReady] = asyncio.Queue()

    def requests_parked(self, message: Wake) -> None:
        """Requests wait at a worker for the first replica of a service."""
        self._queue.put_nowait(message)

    def replica_ready(self, service: str, seconds: float) -> None:
        """A replica of a service became ready."""
        self._queue.put_nowait(ReplicaReady(service, seconds))

    async def run(self, scaling: ScalingController, reconciler: Reconciler) -> None:
        """Hand news on until cancelled."""
        while True:
            news = await self._queue.get()
            try:
                self._hand_on(news, scaling, reconciler)
            except StoreWriteError as error:
                _log.error("scaling from zero: state cannot be written", reason=str(error))

    def _hand_on(
        self, news: Wake | ReplicaReady, scaling: ScalingController, reconciler: Reconciler
    ) -> None:
        now = self._clock()
        if isinstance(news, ReplicaReady):
            self._counters.observe_start(news.service, news.seconds)
            scaling.replica_ready(news.service, now)
        else:
            service = reconciler.view().service(news.service)
            if service is not None:
                scaling.start_from_zero(service, news.worker, news.parked, now)
