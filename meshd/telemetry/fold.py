"""Reports on the further ports of a service, folded into the service. Pure.

`meshd.daemon.worker_events` folds every report before `meshd.telemetry.ingest` adds it. Each port
of a service is a service for the workers (`meshd.publish.compile`); for telemetry, scaling and
drain they are one.
"""

from collections.abc import Iterable

import msgspec

from meshd.model.service_key import base_key
from meshd.telemetry.merge import Distribution, add_counts
from proxy.wire.report import EndpointReport, Histogram, Report, ServiceReport


def fold_ports(report: Report) -> Report:
    """Return the report with one entry for each service, whatever number of ports it has."""
    if not any(":" in service.name for service in report.services):
        return report
    groups: dict[str, list[ServiceReport]] = {}
    for service in report.services:
        groups.setdefault(base_key(service.name), []).append(service)
    folded = tuple(_fold(name, group) for name, group in groups.items())
    return msgspec.structs.replace(report, services=folded)


def _fold(name: str, group: list[ServiceReport]) -> ServiceReport:
    """Return the sum of the reports of one service's ports."""
    if len(group) == 1:
        return msgspec.structs.replace(group[0], name=name)
    fields: dict[str, object] = {}
    for each in ServiceReport.__struct_fields__[1:]:
        values = [getattr(service, each) for service in group]
        if each == "endpoints":
            fields[each] = _fold_endpoints(endpoint for part in values for endpoint in part)
        elif each == "exemplars":
            fields[each] = tuple(exemplar for part in values for exemplar in part)
        elif each == "call_latency":
            callers = {caller for value in values for caller in value}
            fields[each] = {
                caller: _add_histograms(value[caller] for value in values if caller in value)
                for caller in callers
            }
        elif isinstance(values[0], Histogram):
            fields[each] = _add_histograms(values)
        elif isinstance(values[0], dict):
            counts: dict[str, int] = {}
            for value in values:
                add_counts(counts, value)
            fields[each] = counts
        else:
            fields[each] = sum(values)
    return msgspec.convert({"name": name, **fields}, ServiceReport)


def _fold_endpoints(reports: Iterable[EndpointReport]) -> tuple[EndpointReport, ...]:
    """Return one report for each endpoint. It is ejected if it is so at any port, and has the
    lowest limit of its ports."""
    found: dict[str, EndpointReport] = {}
    for more in reports:
        before = found.get(more.id)
        if before is None:
            found[more.id] = more
            continue
        found[more.id] = EndpointReport(
            id=more.id,
            revision=more.revision or before.revision,
            in_flight=before.in_flight + more.in_flight,
            busy_seconds=before.busy_seconds + more.busy_seconds,
            started=before.started + more.started,
            succeeded=before.succeeded + more.succeeded,
            failed=before.failed + more.failed,
            latency=_add_histograms((before.latency, more.latency)),
            ejected=before.ejected or more.ejected,
            retried=before.retried + more.retried,
            limit=min(before.limit or more.limit, more.limit or before.limit),
        )
    return tuple(found.values())


def _add_histograms(values: Iterable[Histogram]) -> Histogram:
    total = Distribution()
    for value in values:
        total.add(value)
    return Histogram(total.counts, total.sum)
