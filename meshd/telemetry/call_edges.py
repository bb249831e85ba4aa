"""Who calls whom, and how well that works, over the last few seconds.

Made by `meshd.daemon.wiring` for `meshd.control.live`, which asks once a second while a page is
open.
"""

from collections.abc import Sequence
from typing import Final

from meshd.api.dto import CallEdge, ServiceStatus
from meshd.telemetry.ingest import Ingest

WINDOW: Final = 5
"""Seconds of traffic, as in the status."""
_SHOWN: Final = 0.01
"""Requests per second below which calls from outside are not shown: two rates are subtracted."""


class CallEdges:
    """Reads the calls between services from the merged reports."""

    def __init__(self, ingest: Ingest) -> None:
        self._ingest = ingest

    def list(self, services: Sequence[ServiceStatus], now: float) -> Sequence[CallEdge]:
        """Return the calls to each service, by caller; requests that are no calls of a service
        come from outside."""
        edges = []
        for service in services:
            key = f"{service.project}/{service.name}"
            calls, interval = self._ingest.calls(key, WINDOW, now)
            for caller, count in sorted(calls.items()):
                edges.append(CallEdge(caller, key, count / interval))
            outside = service.rps - sum(calls.values()) / interval
            if outside > _SHOWN:
                edges.append(CallEdge("", key, outside, service.errors_per_second, service.p95))
        return edges
