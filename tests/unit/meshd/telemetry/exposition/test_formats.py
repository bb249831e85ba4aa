"""The three formats of the exposition, each read back with a separate decoder."""

import asyncio
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from meshd.telemetry.exposition import messages
from meshd.telemetry.exposition.formats import OPENMETRICS, TEXT, choose_format, protobuf
from meshd.telemetry.ingest import Ingest
from tests.fakes import traffic

NOW = 1_000_002.0
PROTOBUF = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
)
# As Prometheus 2.42 sends it, without and with native histograms, and Prometheus 3.
PLAIN_SCRAPE = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
NATIVE_SCRAPE = f"{PROTOBUF},{PLAIN_SCRAPE.replace('1.0.0,', '1.0.0;q=0.8,')}"
SCRAPE_OF_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,*/*;q=0.2"
)


def exposed(accept: str) -> bytes:
    metrics = traffic.metrics(Ingest(), NOW)
    return asyncio.run(metrics.exposition(accept)).body


def messages_of(data: bytes) -> Iterator[Any]:
    """Yield the families of a stream of messages that are preceded by their lengths."""
    while data:
        length = shift = used = 0
        while True:
            byte = data[used]
            length |= (byte & 0x7F) << shift
            used, shift = used + 1, shift + 7
            if byte < 0x80:
                break
        family = messages.MetricFamily()
        assert family.ParseFromString(data[used : used + length]) == length
        yield family
        data = data[used + length :]


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", TEXT.content_type),
        ("*/*", TEXT.content_type),
        ("text/html, */*;q=0.1", TEXT.content_type),
        ("nonsense;;q=x, ;", TEXT.content_type),
        (PLAIN_SCRAPE, OPENMETRICS.content_type),
        (SCRAPE_OF_3, OPENMETRICS.content_type),
        (NATIVE_SCRAPE, protobuf().content_type),
        (f"text/plain, {PROTOBUF}", protobuf().content_type),
        (f"text/plain, {PROTOBUF};q=0.5", TEXT.content_type),
        (f"{PROTOBUF};q=0", TEXT.content_type),
        (PROTOBUF.replace("delimited", "text"), TEXT.content_type),
        (PROTOBUF.replace("MetricFamily", "Other"), TEXT.content_type),
        ("application/openmetrics-text;version=2.0.0", TEXT.content_type),
    ],
)
def test_the_accept_field_chooses_the_format(accept: str, content_type: str) -> None:
    assert choose_format(accept).content_type == content_type


def test_all_formats_have_the_same_samples() -> None:
    """The counters and gauges of the text format, in the other two."""

    def plain(families: Any) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
            if family.type in ("counter", "gauge") and family.name.startswith("meshd_")
        }

    text = plain(parse_text(exposed("").decode()))
    assert len(text) > 100
    assert plain(parse_openmetrics(exposed(PLAIN_SCRAPE).decode())) == text
    found = {}
    for family in messages_of(exposed(NATIVE_SCRAPE)):
        for metric in family.metric:
            if not metric.HasField("histogram") and family.name.startswith("meshd_"):
                labels = frozenset((each.name, each.value) for each in metric.label)
                number = metric.counter if family.type == messages.COUNTER else metric.gauge
                found[family.name, labels] = number.value
    assert found == text


def test_openmetrics_has_exemplars_with_trace_ids() -> None:
    found = {
        sample.labels["le"]: sample.exemplar
        for family in parse_openmetrics(exposed(PLAIN_SCRAPE).decode())
        for sample in family.samples
        if sample.exemplar and sample.labels.get("service") == "shop/orders"
    }
    assert list(found) == ["0.05"]
    assert found["0.05"].labels == {"trace_id": traffic.TRACE}
    assert (found["0.05"].value, float(found["0.05"].timestamp)) == (0.03, NOW - 0.25)


def test_a_histogram_is_sent_with_classic_and_native_buckets() -> None:
    (family,) = (
        family
        for family in messages_of(exposed(NATIVE_SCRAPE))
        if family.name == "meshd_request_duration_seconds"
    )
    found = family.metric[0].histogram
    assert found.sample_count == 20
    assert [each.cumulative_count for each in found.bucket][-1] == 20
    (exemplar,) = [each.exemplar for each in found.bucket if each.HasField("exemplar")]
    assert (exemplar.label[0].value, exemplar.value) == (traffic.TRACE, 0.03)
    index = total = count = 0
    buckets: dict[int, int] = {}
    deltas = iter(found.positive_delta)
    for span in found.positive_span:
        index += span.offset
        for _ in range(span.length):
            count += next(deltas)
            total += count
            if count:
                buckets[index] = count
            index += 1
    assert total == 20
    # Each latency of the traffic lies in its bucket: 2 ** ((index - 1) / 8) < seconds.
    bounds = [(2 ** ((index - 2) / 8), 2 ** (index / 8)) for index in sorted(buckets)]
    for seconds, (low, high) in zip((0.002, 0.004, 0.03, 0.2, 1.2), bounds, strict=True):
        assert low < seconds <= high
    assert set(buckets.values()) == {4}


@pytest.mark.prometheus
def test_promtool_finds_nothing_wrong_with_the_names() -> None:
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=exposed(""), capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
