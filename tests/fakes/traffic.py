"""A mesh with some traffic of every kind, for tests of its status, metrics and events."""

import time

from meshd.api.dto import ReplicaStatus, ServiceStatus, Status
from meshd.model.certificate import CertificateStatus
from meshd.model.event import Event
from meshd.spec.model.scale import Objective
from meshd.telemetry.counters import EventCounters
from meshd.telemetry.ingest import Ingest
from meshd.telemetry.metrics import Metrics
from proxy.wire import buckets
from proxy.wire.report import EndpointReport, Exemplar, Histogram, Report, ServiceReport
from proxy.wire.snapshot import Generation

TRACE = "0af7651916cd43dd8448eb211c80319c"
SERVICES = ("shop/orders", "shop/payments")


def histogram(*seconds: float) -> Histogram:
    counts: dict[int, int] = {}
    for value in seconds:
        bucket = buckets.index(value)
        counts[bucket] = counts.get(bucket, 0) + 1
    return Histogram(counts, sum(seconds))


def status() -> Status:
    """Return a status with two services, one of them with an override."""

    def service(name: str, override: int | None) -> ServiceStatus:
        return ServiceStatus(
            project="shop",
            name=name,
            desired=3,
            running=2,
            ready=1,
            minimum=1,
            maximum=5,
            revision="r2",
            routes=("/" + name,),
            rps=12.5,
            in_flight=1.5,
            p50=0.004,
            p95=0.25,
            p99=1.5,
            requests_total=1000,
            errors_total=3,
            override=override,
            last="2 → 3: p95 0.25 s over 0.2 s",
            replicas=(
                ReplicaStatus(f"{name}-a", name, "r2", "ready", address="127.0.0.1:1", in_flight=1),
                ReplicaStatus(f"{name}-b", name, "r1", "failed", reason="exit 1", restarts=4),
            ),
        )

    return Status(
        version="0.1.0",
        runtime="process",
        runtime_state="ok",
        generation=(1, 7),
        workers=(1, 2),
        proxy=("127.0.0.1:8080",),
        services=(service("orders", 3), service("payments", None)),
    )


def report(worker: int, sequence: int, end: float) -> Report:
    """Return one worker's report of a second, with a value in every field."""
    latencies = (0.002, 0.004, 0.03, 0.2, 1.2)
    services = tuple(
        ServiceReport(
            name=name,
            arrivals=6,
            codes={"GET 2xx": 4, "POST 5xx": 1, "BREW 4xx": 1},
            failures={"timeout": 1},
            retries=1,
            ejections=1,
            parked=1,
            parked_total=2,
            queued=1,
            shed=1,
            denied=1,
            other_node=2,
            queue_seconds=0.1,
            bytes_in=100,
            bytes_out=2000,
            total=histogram(*latencies),
            queue=histogram(0.0001),
            connect=histogram(0.001),
            first_byte=histogram(*latencies),
            body=histogram(0.001),
            endpoints=(
                EndpointReport("a", "r2", 2, 1.5, 6, 5, 1, histogram(*latencies), True, limit=40),
            ),
            calls={"shop/orders": 2},
            uncovered={"shop/snoop": 1},
            grpc={"/shop.Orders/Get UNAVAILABLE": 1},
            exemplars=(Exemplar(TRACE, 0.03, end - 0.25),),
        )
        for name in SERVICES
    )
    fields = (worker, sequence, end - 1.0, end, Generation(1, 7), services, 3, 50_000_000, 0.25)
    return Report(
        *fields,
        refused={"no-route": 2},
        log_dropped=1,
        spans_dropped=3,
        spans_exported=4,
        descriptor_shortages=5,
        accept_pauses=1,
        handshakes={"complete": 3, "timeout": 1},
    )


def events() -> list[Event]:
    kinds = (
        "deploy", "job.failed", "replica.started", "replica.died", "rollout.started",
        "rollout.done",
    )  # fmt: skip
    return [Event(n, 1.0, kind, "shop", "orders") for n, kind in enumerate(kinds, 1)]


def metrics(
    ingest: Ingest, now: float, live: bool = False, counters: EventCounters | None = None
) -> Metrics:
    """Return metrics with a sample in every family, from two seconds of two workers; with `live`
    gauges are read by the real clock."""
    ingest.set_services(SERVICES, {SERVICES[0]: Objective(latency=0.1, share=95.0)})
    for worker in (1, 2):
        for sequence in (1, 2):
            ingest.add(report(worker, sequence, now - 2 + sequence))
    clock = time.time if live else lambda: now
    made = counters or EventCounters()
    for event in events():
        made.observe_event(event)
    made.count_scale("shop/orders", "up", "load")
    made.count_scale("shop/orders", "down", "idle")
    made.observe_start("shop/orders", 0.7)
    made.observe_cold_start("shop/orders", 1.4)
    found = (CertificateStatus(("shop.test",), "acme", "https://ca.test/dir", "valid", now + 9.0),)
    return Metrics(made, ingest, status, lambda: status().services, clock, lambda: found)
