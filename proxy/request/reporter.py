"""The reports of one worker: counts by service and endpoint, requests that were refused before
they belonged to a service, and the resources that the process used.

`DataPlane` owns the only `Reporter` of a worker and asks it for a report every second.
"""

import resource
from collections.abc import Sequence
from typing import TYPE_CHECKING

from proxy.state.endpoint_state import EndpointState
from proxy.state.service_state import ServiceState
from proxy.wire.report import Report, ServiceReport

if TYPE_CHECKING:
    from proxy.request.data_plane import DataPlane


class Reporter:
    """Makes reports. A report takes its counts with it: each count is in one report only."""

    def __init__(self) -> None:
        self._sequence = 0
        self._cpu_seconds = 0.0
        self._refused: dict[str, int] = {}
        self._reported = (0, 0, 0, 0, 0)

    def count_refused(self, reason: str) -> None:
        """Count a response to a request that belonged to no known service."""
        self._refused[reason] = self._refused.get(reason, 0) + 1

    def report(
        self,
        plane: "DataPlane",
        services: Sequence[ServiceState],
        removed: Sequence[EndpointState],
        start: float,
        end: float,
        *,
        busy_only: bool = False,
    ) -> Report:
        """Return the counts since the last call, over (`start`, `end`] in Unix time. `removed`
        are endpoints that their services have no longer. With `busy_only`, services and endpoints
        about which there is nothing to say are left out."""
        now = plane.clock()
        self._sequence += 1
        usage = resource.getrusage(resource.RUSAGE_SELF)
        cpu = usage.ru_utime + usage.ru_stime
        used, self._cpu_seconds = cpu - self._cpu_seconds, cpu
        refused, self._refused = self._refused, {}
        return Report(
            worker=plane.worker,
            sequence=self._sequence,
            start=start,
            end=end,
            generation=plane.routing.generation,
            services=_report_services(
                services, removed, now, own_node=plane.peers.own_node, busy_only=busy_only
            ),
            connections=len(plane.clients),
            rss_bytes=_resident_bytes(),
            cpu_seconds=used,
            refused=refused,
            handshakes=plane.handshakes.take(),
            descriptor_limit=plane.descriptors.limit,
            **self._counts(plane),
        )

    def _counts(self, plane: "DataPlane") -> dict[str, int]:
        """Numbers of log lines, spans and missing descriptors since the last call, by the report's
        fields."""
        log, spans, descriptors = plane.access_log, plane.spans, plane.descriptors
        now = (
            log.dropped if log is not None else 0,
            spans.dropped if spans is not None else 0,
            spans.exported if spans is not None else 0,
            descriptors.shortages,
            descriptors.pauses,
        )
        before, self._reported = self._reported, now
        names = (
            "log_dropped", "spans_dropped", "spans_exported", "descriptor_shortages",
            "accept_pauses",
        )  # fmt: skip
        return {name: new - old for name, new, old in zip(names, now, before, strict=True)}


def _report_services(
    services: Sequence[ServiceState],
    removed: Sequence[EndpointState],
    now: float,
    *,
    own_node: str,
    busy_only: bool,
) -> tuple[ServiceReport, ...]:
    found = [
        _report_service(service, removed, now, own_node=own_node, busy_only=busy_only)
        for service in services
    ]
    return tuple([report for report in found if not busy_only or has_news(report)])


def has_news(report: ServiceReport) -> bool:
    """Return whether a service's report differs from that of an idle service."""
    return report != ServiceReport(report.name)


def _is_idle(state: EndpointState) -> bool:
    """Return whether an endpoint's report would say nothing: no request, no ejection, no limit."""
    counters = state.counters
    return not (
        counters.in_flight
        or counters.started
        or counters.succeeded
        or counters.failed
        or counters.retried
        or counters.integral
        or state.health.ejected
        or state.gradient is not None
    )


def _report_service(
    service: ServiceState,
    removed: Sequence[EndpointState],
    now: float,
    *,
    own_node: str,
    busy_only: bool,
) -> ServiceReport:
    left = [each for each in removed if each.service == service.name]
    states = [*service.endpoints.values(), *left]
    if busy_only:
        states = [state for state in states if not _is_idle(state)]
    endpoints = [
        state.counters.drain(
            state.id,
            now,
            state.endpoint.revision,
            ejected=state.health.ejected,
            limit=state.gradient.limit if state.gradient is not None else 0,
        )
        for state in states
    ]
    other_node = sum(
        report.started
        for state, report in zip(states, endpoints, strict=True)
        if own_node and state.node and state.node.lower() != own_node
    )
    return service.counters.drain(service.name, now, endpoints, other_node)


def _resident_bytes() -> int:
    """Resident memory of this process in bytes; 0 where the kernel has no /proc."""
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * resource.getpagesize()
    except OSError:
        return 0
