"""The exposition: families, labels and sums, read back with the client library's own parser."""

import asyncio
import re
from collections.abc import Iterator
from math import inf

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from meshd.api.dto import ServiceStatus
from meshd.model.event import Event
from meshd.telemetry.counters import MOST_CAUSES, EventCounters
from meshd.telemetry.exposition.histograms import EDGES, exposed_buckets
from meshd.telemetry.exposition.labels import NO_LABELS
from meshd.telemetry.exposition.text import TextFamily
from meshd.telemetry.ingest import Ingest
from meshd.telemetry.merge import Distribution
from meshd.telemetry.metrics import Metrics
from proxy.wire.report import Histogram
from tests.fakes import traffic
from tests.support.paths import ROOT

NOW = 1_000_002.0


def exposed(metrics: Metrics) -> str:
    return asyncio.run(metrics.exposition()).body.decode()


Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def counters() -> EventCounters:
    return EventCounters()


@pytest.fixture
def metrics(counters: EventCounters) -> Metrics:
    return traffic.metrics(Ingest(), NOW, counters=counters)


def samples(metrics: Metrics) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(exposed(metrics))
        for sample in family.samples
    }


@pytest.mark.parametrize(
    ("name", "labels", "value"),
    [
        ("meshd_requests_total", {"method": "GET", "code": "2xx"}, 16),
        ("meshd_requests_total", {"method": "OTHER", "code": "4xx"}, 4),
        ("meshd_proxy_failures_total", {"reason": "timeout"}, 4),
        ("meshd_grpc_requests_total", {"method": "/shop.Orders/Get", "code": "UNAVAILABLE"}, 4),
        ("meshd_calls_total", {"caller": "shop/orders"}, 8),
        ("meshd_arrivals_total", {}, 24),
        ("meshd_retries_total", {}, 4),
        ("meshd_ejections_total", {}, 4),
        ("meshd_shed_total", {}, 4),
        ("meshd_denied_total", {}, 4),
        ("meshd_other_node_requests_total", {}, 8),
        ("meshd_uncovered_calls_total", {"caller": "shop/snoop"}, 4),
        ("meshd_parked_requests_total", {}, 8),
        ("meshd_sent_bytes_total", {}, 8000),
        ("meshd_in_flight", {}, 4),
        ("meshd_parked", {}, 2),
        ("meshd_queued", {}, 2),
        ("meshd_ejected_endpoints", {}, 1),
        ("meshd_request_duration_seconds_count", {}, 20),
        ("meshd_request_duration_seconds_bucket", {"le": "0.005"}, 8),
        ("meshd_request_duration_seconds_bucket", {"le": "+Inf"}, 20),
        ("meshd_request_stage_seconds_count", {"stage": "connect"}, 4),
        ("meshd_replicas", {"state": "wanted"}, 3),
        ("meshd_replicas", {"state": "ready"}, 1),
        ("meshd_replicas_bound", {"bound": "max"}, 5),
        ("meshd_scale_override", {}, 1),
        ("meshd_scale_decisions_total", {"direction": "up", "cause": "load"}, 1),
        ("meshd_rollouts_total", {"result": "done"}, 1),
        ("meshd_jobs_total", {"result": "failed"}, 1),
        ("meshd_replica_start_seconds_count", {}, 1),
    ],
)
def test_a_services_sample(
    metrics: Metrics, name: str, labels: dict[str, str], value: float
) -> None:
    wanted = frozenset({("service", "shop/orders"), *labels.items()})
    assert samples(metrics)[name, wanted] == value


@pytest.mark.parametrize(
    ("name", "labels", "value"),
    [
        ("meshd_build_info", {"version": "0.1.0", "runtime": "process"}, 1),
        ("meshd_runtime_up", {}, 1),
        ("meshd_state_writable", {}, 1),
        ("meshd_workers", {}, 2),
        ("meshd_worker_cpu_seconds_total", {"worker": "2"}, 0.5),
        ("meshd_worker_resident_memory_bytes", {"worker": "1"}, 50_000_000),
        ("meshd_events_total", {"kind": "replica.died"}, 1),
        ("meshd_snapshot_generation", {"part": "number"}, 7),
    ],
)
def test_a_sample_of_the_daemon(
    metrics: Metrics, name: str, labels: dict[str, str], value: float
) -> None:
    assert samples(metrics)[name, frozenset(labels.items())] == value


def test_sums_are_exact() -> None:
    found = samples(traffic.metrics(Ingest(), NOW))
    key = ("meshd_request_duration_seconds_sum", frozenset({("service", "shop/orders")}))
    assert found[key] == pytest.approx(4 * 1.436)


def test_exposed_buckets_are_cumulative_and_never_too_optimistic() -> None:
    merged = Distribution()
    for value in (0.0009, 0.00101, 0.249, 0.2501, 100.0):
        merged.add(traffic.histogram(value))
    exposed = dict(exposed_buckets(merged))
    assert list(exposed.values()) == sorted(exposed.values())
    assert exposed[0.001] == 1
    assert exposed[0.25] <= 3
    assert exposed[0.5] == 4
    assert exposed[60.0] == 4
    assert exposed[inf] == 5
    assert len(exposed) == len(EDGES) + 1


def test_the_number_of_causes_and_kinds_is_bounded(counters: EventCounters) -> None:
    for number in range(3 * MOST_CAUSES):
        counters.count_scale("shop/orders", "up", f"cause {number}")
        counters.observe_event(Event(number, 1.0, f"invented.{number}"))
    assert len({key[2] for key in counters.scale_decisions}) == MOST_CAUSES + 1
    assert counters.events["other"] == 3 * MOST_CAUSES


def test_decisions_of_removed_services_are_not_exposed(
    metrics: Metrics, counters: EventCounters
) -> None:
    counters.count_scale("old/gone", "up", "load")
    assert "old/gone" not in exposed(metrics)


def test_losses_and_requests_without_a_service_are_exposed(metrics: Metrics) -> None:
    text = exposed(metrics)
    found = dict(re.findall(r'(?m)^meshd_(?:dropped|refused)\w+{\w+="([^"]+)"} (\S+)$', text))
    assert set(found) == {"access_log", "spans", "no-route"}
    assert float(found["spans"]) == 3 * float(found["access_log"]) > 0


def test_the_end_of_each_certificate_is_exposed(metrics: Metrics) -> None:
    text = exposed(metrics)
    found = re.findall(r"(?m)^meshd_certificate_expiry_timestamp_seconds{(.*)} (\S+)$", text)
    ((labels, at),) = found
    assert (labels, float(at)) == ('name="shop.test",source="acme"', NOW + 9.0)
    assert "meshd_certificate_" not in exposed(empty(Ingest()))


def empty(ingest: Ingest) -> Metrics:
    status = traffic.status
    return Metrics(EventCounters(), ingest, status, lambda: status().services, lambda: NOW)


def test_an_empty_mesh_has_metrics() -> None:
    ingest = Ingest()
    text = exposed(empty(ingest))
    assert "meshd_workers 2.0" in text
    ingest.set_services(["shop/orders"])
    text = exposed(empty(ingest))
    assert 'meshd_in_flight{service="shop/orders"} 0.0' in text


def test_the_documentation_lists_every_family_and_its_labels(metrics: Metrics) -> None:
    page = ROOT / "docs" / "metrics.md"
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([^|]*) \|", page.read_text(), re.MULTILINE)
    documented = {
        name: (kind, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows
    }
    found: dict[str, tuple[str, frozenset[str]]] = {}
    for family in text_string_to_metric_families(exposed(metrics)):
        if family.name.startswith("meshd_") and not family.name.endswith("_created"):
            name = family.name + ("_total" if family.type == "counter" else "")
            labels = {label for sample in family.samples for label in sample.labels}
            found[name] = (family.type, frozenset(labels - {"le"}))
    assert documented == found


def test_the_documentation_has_the_text_of_each_family(metrics: Metrics) -> None:
    """The page may add values of labels; it starts with the text that `/metrics` has."""
    page = ROOT / "docs" / "metrics.md"
    rows = re.findall(r"^\| `(\w+)` \| \w+ \| [^|]* \| (.*) \|$", page.read_text(), re.MULTILINE)
    meanings = dict(rows)
    different = {
        family.name
        for family in text_string_to_metric_families(exposed(metrics))
        for name in (family.name, f"{family.name}_total")
        if name in meanings and not meanings[name].replace("`", "").startswith(family.documentation)
    }
    assert len(meanings) > 40
    assert not different


def test_labels_are_quoted() -> None:
    family = TextFamily("gauge", "g", "text")
    value = 'a "quoted" \\ path\nand a line'
    family.add(NO_LABELS.add("x", value).add("y", "ü"), 2.5)
    (read,) = text_string_to_metric_families(family.encode().decode())
    (sample,) = read.samples
    assert (sample.labels, sample.value) == ({"x": value, "y": "ü"}, 2.5)


def test_a_scrape_of_many_services_yields_to_the_event_loop() -> None:
    """Only a few services are read before the event loop gets a turn."""
    ingest, read, most = Ingest(), [0], [0]
    ingest.set_services([f"shop/s{number}" for number in range(300)])
    one = traffic.status().services[0]

    def services() -> Iterator[ServiceStatus]:
        for number in range(300):
            read[0] += 1
            yield msgspec.structs.replace(one, name=f"s{number}")

    async def main() -> str:
        metrics = Metrics(EventCounters(), ingest, traffic.status, services, lambda: NOW)
        scrape = asyncio.create_task(metrics.exposition())
        while not scrape.done():
            before = read[0]
            await asyncio.sleep(0)
            most[0] = max(most[0], read[0] - before)
        return (await scrape).body.decode()

    text = asyncio.run(main())
    assert most[0] <= 20
    for name in ("meshd_replicas", "meshd_in_flight"):
        block = re.findall(rf"(?m)^(?:# TYPE )?{name}\b", text)
        first, last = text.index(f"# TYPE {name} "), text.rindex(f"\n{name}{{")
        assert len(block) > 300
        assert text[first:last].count("# TYPE") == 1, "the samples of a family are contiguous"


def test_an_empty_histogram_is_all_zero() -> None:
    merged = Distribution()
    merged.add(Histogram())
    assert {count for _, count in exposed_buckets(merged)} == {0.0}
