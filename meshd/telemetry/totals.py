"""Counts of each service since it was first seen, with a bounded number of labels. Pure.

`meshd.telemetry.ingest` adds every report; `meshd.telemetry.metrics` exposes the counts, and
`meshd.store` keeps those of releases. Clients and callers choose some label values (methods of
gRPC, for example), so each metric takes `MAX_VALUES` of them for a service; further ones count
under an overflow label, and `ServiceTotals.overflows` says how many.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import inf
from typing import Final

import msgspec

from meshd.spec.model.scale import Objective
from meshd.telemetry.merge import Distribution, MergedService
from proxy.wire import buckets
from proxy.wire.report import Exemplar, Histogram, ServiceReport

METHODS: Final = frozenset(
    ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "TCP")
)
"""Methods with their own count (RFC 9110 and RFC 5789), and TCP for connections. All others count
as OTHER, so that clients cannot add keys."""
OTHER_METHOD: Final = "OTHER"
"""Overflow label of methods; the proxy uses it too."""
OTHER: Final = "other"
"""Overflow label of all other metrics."""
MAX_VALUES: Final = 100
"""Label values of one metric of one service: more than a dashboard can show. 200 services with a
hundred callers each are 20,000 series, a tenth of what a small Prometheus holds."""
BOUNDED: Final = (
    "meshd_calls_total",
    "meshd_grpc_requests_total",
    "meshd_proxy_failures_total",
    "meshd_uncovered_calls_total",
)
"""Metrics with a bounded label, as exposed."""
DEFAULT_SHARE: Final = 99.0
"""Percent of the requests that must not fail, for a service without an objective."""
_LAST: Final = buckets.LAST


@dataclass(slots=True)
class ObjectiveCounts:
    """Requests of a service that count for its objective.

    - `latency`: seconds; infinite: only errors miss it.
    - `share`: percent of the requests that must meet it.
    - `requests`, `misses`: counts since the service was first seen.
    """

    latency: float = inf
    share: float = DEFAULT_SHARE
    requests: int = 0
    misses: int = 0

    def count(self, requests: int, missed: int) -> None:
        """Count requests, and those of them that missed the objective."""
        self.requests += requests
        self.misses += missed

    def change(self, objective: Objective | None) -> None:
        """Take the objective of the current spec; what was counted stays."""
        self.latency = objective.latency if objective else inf
        self.share = objective.share if objective else DEFAULT_SHARE


class ServiceTotals:
    """Takes reports and adds them up."""

    def __init__(self) -> None:
        self._overflows: Counter[tuple[str, str]] = Counter()
        self._services: dict[str, MergedService] = {}
        self._objectives: dict[str, ObjectiveCounts] = {}
        self._exemplars: dict[str, dict[int, Exemplar]] = {}
        self._values: dict[tuple[str, str], set[str]] = {}
        self._removed_overflows: Counter[str] = Counter()

    def add(self, report: ServiceReport) -> None:
        """Add a report."""
        name = report.name
        codes: dict[str, int] = {}
        for key, count in report.codes.items():
            method, _, code = key.partition(" ")
            label = f"{method if method in METHODS else OTHER_METHOD} {code}"
            codes[label] = codes.get(label, 0) + count
        bounded = msgspec.structs.replace(
            report,
            codes=codes,
            failures=self._bound("meshd_proxy_failures_total", name, report.failures),
            grpc=self._bound_grpc(name, report.grpc),
            endpoints=(),
        )
        self._services.setdefault(name, MergedService()).add_report(bounded)
        if report.total.counts:
            objective = self._objectives.setdefault(name, ObjectiveCounts())
            errors = sum(count for code, count in codes.items() if code.endswith(" 5xx"))
            missed = count_misses(report.total, report.failed, errors, objective.latency)
            objective.count(sum(report.total.counts.values()), missed)
        for exemplar in report.exemplars:
            size = buckets.index(exemplar.seconds)
            self._exemplars.setdefault(name, {})[size >> buckets.LINEAR_BITS] = exemplar

    def set_services(
        self, services: Collection[str], objectives: Mapping[str, Objective]
    ) -> list[str]:
        """Set the services that exist, and the objectives of those that have one. Return those
        that were forgotten."""
        removed = [name for name in self._services if name not in services]
        for name in removed:
            del self._services[name]
            self._objectives.pop(name, None)
            self._exemplars.pop(name, None)
        if removed:
            gone = set(removed)
            self._values = {key: v for key, v in self._values.items() if key[1] not in gone}
            for key in [key for key in self._overflows if key[1] in gone]:
                self._removed_overflows[key[0]] += self._overflows.pop(key)
        for name in services:
            self._services.setdefault(name, MergedService())
            self._objectives.setdefault(name, ObjectiveCounts()).change(objectives.get(name))
        return removed

    def names(self) -> list[str]:
        """Return the known services, sorted."""
        return sorted(self._services)

    def service(self, name: str) -> MergedService:
        """Return the counts of a service, without endpoints."""
        return self._services.get(name) or MergedService()

    def objective(self, name: str) -> ObjectiveCounts:
        """Return the counts for the objective of a service."""
        return self._objectives.get(name) or ObjectiveCounts()

    def exemplars(self, name: str) -> Collection[Exemplar]:
        """Return the last requests of a service with a recorded trace, of different durations."""
        return self._exemplars.get(name, {}).values()

    def exposed_calls(self, name: str) -> Mapping[str, int]:
        """Return the calls of a service by caller, with a bounded number of callers. The full
        counts, by which access is decided, are not bounded: callers are services."""
        return self._expose("meshd_calls_total", name, self.service(name).calls)

    def exposed_uncovered(self, name: str) -> Mapping[str, int]:
        """Return the calls that `allow` does not cover, in the same manner."""
        return self._expose("meshd_uncovered_calls_total", name, self.service(name).uncovered)

    def overflows(self) -> Mapping[str, int]:
        """Return the counts under an overflow label, by metric."""
        found = Counter(dict.fromkeys(BOUNDED, 0))
        found.update(self._removed_overflows)
        for (metric, _), count in self._overflows.items():
            found[metric] += count
        return found

    def _expose(self, metric: str, service: str, counts: Mapping[str, int]) -> Mapping[str, int]:
        if not counts:
            return counts
        self._overflows.pop((metric, service), None)
        return self._bound(metric, service, counts)

    def _bound(self, metric: str, service: str, counts: Mapping[str, int]) -> dict[str, int]:
        """Return counts with at most `MAX_VALUES` keys over all calls of this method."""
        found: dict[str, int] = {}
        for value, count in counts.items():
            label = value if self._admit(metric, service, value, count) else OTHER
            found[label] = found.get(label, 0) + count
        return found

    def _bound_grpc(self, service: str, counts: Mapping[str, int]) -> dict[str, int]:
        """The same for keys `METHOD CODE`, of which the methods are bounded."""
        found: dict[str, int] = {}
        for key, count in counts.items():
            method, _, code = key.rpartition(" ")
            admitted = self._admit("meshd_grpc_requests_total", service, method, count)
            label = f"{method if admitted else OTHER_METHOD} {code}"
            found[label] = found.get(label, 0) + count
        return found

    def _admit(self, metric: str, service: str, value: str, count: int) -> bool:
        known = self._values.setdefault((metric, service), set())
        if value in known:
            return True
        if len(known) < MAX_VALUES or value in (OTHER, OTHER_METHOD):
            known.add(value)
            return True
        self._overflows[metric, service] += count
        return False


def count_misses(
    total: Histogram | Distribution, failed: Histogram | Distribution, errors: int, latency: float
) -> int:
    """Return how many requests missed an objective of `latency` seconds.

    Those are the ones that took longer, and the 5xx answers (`errors`) in time. `failed` also has
    answers of the proxy that are the client's fault, which are not misses.
    """
    limit = buckets.index(latency) if latency < inf else _LAST
    late = sum(count for bucket, count in total.counts.items() if bucket > limit)
    failed_in_time = sum(count for bucket, count in failed.counts.items() if bucket <= limit)
    return late + min(failed_in_time, errors)
