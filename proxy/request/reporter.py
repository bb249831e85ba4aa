"""What a worker tells of an interval: what was counted by service and endpoint, what was refused
before it was for any service, and what the process itself used."""

import resource
from collections.abc import Sequence
from typing import TYPE_CHECKING

from proxy.state.endpoint_state import EndpointState
from proxy.state.service_state import ServiceState
from proxy.wire.report import Report, ServiceReport

if TYPE_CHECKING:
    from proxy.request.data_plane import DataPlane


class Reporter:
    """See the module. Counts are taken away as they are told, so there is one a worker."""

    def __init__(self) -> None:
        self._sequence = 0
        self._cpu_seconds = 0.0
        self._refused: dict[str, int] = {}
        self._told = (0, 0, 0)

    def count_refused(self, reason: str) -> None:
        """Counts an answer to what was not known to be for any service."""
        self._refused[reason] = self._refused.get(reason, 0) + 1

    def report(
        self,
        plane: "DataPlane",
        services: Sequence[ServiceState],
        leaving: Sequence[EndpointState],
        start: float,
        end: float,
    ) -> Report:
        """Counts since the last call, over (`start`, `end`] in Unix time. `leaving` are endpoints
        that their services have no more."""
        now = plane.clock()
        self._sequence += 1
        usage = resource.getrusage(resource.RUSAGE_SELF)
        cpu = usage.ru_utime + usage.ru_stime
        spent, self._cpu_seconds = cpu - self._cpu_seconds, cpu
        refused, self._refused = self._refused, {}
        return Report(
            worker=plane.worker,
            sequence=self._sequence,
            start=start,
            end=end,
            generation=plane.routing.generation,
            services=tuple([_of_service(service, leaving, now) for service in services]),
            connections=len(plane.connections),
            rss_bytes=_resident_bytes(),
            cpu_seconds=spent,
            refused=refused,
            **self._observed(plane),
        )

    def _observed(self, plane: "DataPlane") -> dict[str, int]:
        """What became of log lines and spans since the last call."""
        log, spans = plane.access_log, plane.spans
        now = (
            log.dropped if log is not None else 0,
            spans.dropped if spans is not None else 0,
            spans.exported if spans is not None else 0,
        )
        before, self._told = self._told, now
        names = ("log_dropped", "spans_dropped", "spans_exported")
        return {name: new - old for name, new, old in zip(names, now, before, strict=True)}


def _of_service(
    service: ServiceState, leaving: Sequence[EndpointState], now: float
) -> ServiceReport:
    left = [each for each in leaving if each.service == service.name]
    endpoints = [
        state.counters.drain(
            state.id,
            now,
            state.endpoint.revision,
            ejected=state.health.ejected,
            limit=state.gradient.limit if state.gradient is not None else 0,
        )
        for state in (*service.endpoints.values(), *left)
    ]
    return service.counters.drain(service.name, now, endpoints)


def _resident_bytes() -> int:
    """The resident memory of this process; 0 where the kernel does not tell."""
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * resource.getpagesize()
    except OSError:
        return 0
