"""A mesh of many services with traffic of every kind, for the size and the cost of a scrape."""

import msgspec

from meshd.api.dto import ReplicaStatus, ServiceStatus, Status
from meshd.telemetry.counters import EventCounters
from meshd.telemetry.ingest import Ingest
from meshd.telemetry.metrics import Metrics
from proxy.wire.report import EndpointReport, Report
from tests.fakes import traffic

SERVICES, REPLICAS, CALLERS = 200, 10, 5
LATENCIES = tuple(0.0005 * 1.05**n for n in range(200))
"""Seconds from 0.5 ms to 8 s: an occupied bucket for each 5 %."""


def large_mesh(now: float) -> Metrics:
    """Return metrics of `SERVICES` services with `REPLICAS` replicas each."""
    ingest, counters = Ingest(), EventCounters()
    keys = [f"shop/service-{number}" for number in range(SERVICES)]
    ingest.set_services(keys)
    for worker in (1, 2):
        ingest.add(_report(worker, now))
    for key in keys:
        for cause in ("load", "idle", "schedule"):
            counters.count_scale(key, "up", cause)
        counters.observe_start(key, 0.7)
        counters.observe_cold_start(key, 1.4)
    one = traffic.status()
    services = tuple(_status(one.services[0], number) for number in range(SERVICES))
    whole: Status = msgspec.structs.replace(one, services=services)
    return Metrics(counters, ingest, lambda: whole, lambda: services, lambda: now)


def _report(worker: int, now: float) -> Report:
    small = traffic.report(worker, 1, now)
    latencies = traffic.histogram(*LATENCIES)
    services = []
    for number in range(SERVICES):
        endpoints = tuple(
            EndpointReport(f"service-{number}-{n}", "r2", 1, 0.5, 20, 20, 0, latencies)
            for n in range(REPLICAS)
        )
        calls = {f"shop/service-{(number + n) % SERVICES}": 3 for n in range(1, 1 + CALLERS)}
        services.append(
            msgspec.structs.replace(
                small.services[0],
                name=f"shop/service-{number}",
                endpoints=endpoints,
                calls=calls,
                total=latencies,
                queue=latencies,
                connect=latencies,
                first_byte=latencies,
                body=latencies,
            )
        )
    return msgspec.structs.replace(small, services=tuple(services))


def _status(one: ServiceStatus, number: int) -> ServiceStatus:
    name = f"service-{number}"
    replicas = tuple(
        ReplicaStatus(f"{name}-{n}", name, "r2", "ready", cores=0.2, memory=50_000_000)
        for n in range(REPLICAS)
    )
    return msgspec.structs.replace(one, name=name, replicas=replicas)
