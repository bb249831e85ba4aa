"""Who calls whom, and how well that works, over the last few seconds.

`meshd.daemon.worker_events` passes every report to `take`; `meshd.control.live` asks once a second
while a page is open. A service's requests that are no calls of another service come from outside:
their numbers are the difference, bucket by bucket.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import floor
from typing import Final

from meshd.api.dto import CallEdge, ServiceStatus
from meshd.telemetry.merge import Distribution
from proxy.wire.report import Report, ServiceReport

WINDOW: Final = 5
"""Seconds of traffic, as in the status."""
DELAY: Final = 2
"""Seconds after which all workers have reported a second: they report once a second."""
KEPT: Final = WINDOW + DELAY + 1
"""Seconds that are kept."""
_SHOWN: Final = 0.01
"""Requests per second below which calls from outside are not shown: two rates are subtracted."""
OUTSIDE: Final = ""
"""The caller of requests from outside of the mesh."""


@dataclass(slots=True)
class _CallSums:
    count: int = 0
    errors: int = 0
    latency: Distribution = field(default_factory=Distribution)


_Second = dict[tuple[str, str], _CallSums]
"""The sums of one second by (service, caller); those of all callers have the caller `_ALL`."""
_ALL: Final = "*"


class CallEdges:
    """The calls between services in the last seconds."""

    def __init__(self) -> None:
        self._seconds: dict[int, _Second] = {}

    def take(self, report: Report) -> None:
        """Add a report of a worker."""
        now = floor((report.start + report.end) / 2)
        second = self._seconds.get(now)
        if second is None:
            second = self._seconds[now] = {}
            for old in [each for each in self._seconds if abs(now - each) > KEPT]:
                del self._seconds[old]
        for service in report.services:
            if service.codes or service.calls or service.call_latency:
                _add(second, service)

    def list(self, services: Sequence[ServiceStatus], now: float) -> Sequence[CallEdge]:
        """Return the calls to each service, by caller."""
        sums = self._window(floor(now) - DELAY)
        callers: dict[str, list[str]] = {}
        for service, caller in sorted(sums):
            callers.setdefault(service, []).append(caller)
        edges = []
        for each in services:
            key = f"{each.project}/{each.name}"
            if key not in callers:
                continue
            rest = sums[key, _ALL]
            for caller in callers[key]:
                found = sums[key, caller]
                if caller == _ALL or not found.count:
                    continue
                edges.append(_edge(caller, key, found))
                _subtract(rest, found)
            if rest.count / WINDOW > _SHOWN:
                edges.append(_edge(OUTSIDE, key, rest))
        return edges

    def _window(self, last: int) -> _Second:
        total: _Second = {}
        for number in range(last + 1 - WINDOW, last + 1):
            for key, sums in self._seconds.get(number, {}).items():
                found = total.setdefault(key, _CallSums())
                found.count += sums.count
                found.errors += sums.errors
                found.latency.add(sums.latency)
        return total


def _add(second: _Second, service: ServiceReport) -> None:
    for caller, count in service.calls.items():
        second.setdefault((service.name, caller), _CallSums()).count += count
    for caller, errors in service.call_errors.items():
        second.setdefault((service.name, caller), _CallSums()).errors += errors
    for caller, latency in service.call_latency.items():
        second.setdefault((service.name, caller), _CallSums()).latency.add(latency)
    everything = second.setdefault((service.name, _ALL), _CallSums())
    everything.count += sum(service.codes.values())
    everything.errors += sum(count for code, count in service.codes.items() if code.endswith("5xx"))
    everything.latency.add(service.total)


def _subtract(rest: _CallSums, calls: _CallSums) -> None:
    # Those that ended, as in the counts of all; a connection has no latency.
    rest.count -= calls.latency.count or calls.count
    rest.errors = max(0, rest.errors - calls.errors)
    for bucket, count in calls.latency.counts.items():
        left = rest.latency.counts.get(bucket, 0) - count
        if left > 0:
            rest.latency.counts[bucket] = left
        else:
            rest.latency.counts.pop(bucket, None)


def _edge(caller: str, service: str, sums: _CallSums) -> CallEdge:
    return CallEdge(
        caller,
        service,
        sums.count / WINDOW,
        sums.errors / WINDOW,
        sums.latency.quantile(0.95),
    )
