"""Metric families as protocol buffers, with native histograms next to the classic ones. Pure.

`formats` makes the families for a server that asks for this format, as Prometheus does if it takes
native histograms. `prometheus_client` has the format in no version; the messages are
those of `messages`, encoded by the `protobuf` library.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry

from meshd.telemetry.exposition import messages
from meshd.telemetry.exposition.histograms import EDGES, SCHEMA, exposed_buckets, native_buckets
from meshd.telemetry.exposition.labels import Labels
from meshd.telemetry.exposition.text import NO_EXEMPLARS, Kind
from meshd.telemetry.merge import Distribution
from proxy.wire.report import Exemplar

ZERO_THRESHOLD: Final = 2.0**-128
"""Seconds up to which a duration counts as zero in a native histogram: the default of other
clients. It also marks a histogram without samples as a native one."""
_KINDS: Final = {
    "counter": messages.COUNTER,
    "gauge": messages.GAUGE,
    "histogram": messages.HISTOGRAM,
}


class ProtobufFamily:
    """One metric with its samples, like `text.TextFamily`."""

    def __init__(self, kind: Kind, name: str, text: str) -> None:
        self._message: Any = messages.MetricFamily(name=name, help=text, type=_KINDS[kind])
        self._counts = kind == "counter"

    def add(self, labels: Labels, value: float) -> None:
        """Add one sample."""
        self._add(labels.pairs, value)

    def _add(self, pairs: Iterable[tuple[str, str]], value: float) -> None:
        metric = self._metric(pairs)
        (metric.counter if self._counts else metric.gauge).value = value

    def add_histogram(
        self,
        labels: Labels,
        merged: Distribution,
        edges: tuple[float, ...] = EDGES,
        exemplars: Mapping[int, Exemplar] = NO_EXEMPLARS,
    ) -> None:
        """Add one histogram with its classic and its native buckets. `exemplars`: by number of
        classic bucket."""
        found = self._metric(labels.pairs).histogram
        count = 0
        for number, (edge, count) in enumerate(exposed_buckets(merged, edges)):
            bucket = found.bucket.add(cumulative_count=count, upper_bound=edge)
            if number in exemplars:
                _set_exemplar(bucket.exemplar, exemplars[number])
        found.sample_count, found.sample_sum = count, merged.sum
        found.schema, found.zero_threshold, found.zero_count = SCHEMA, ZERO_THRESHOLD, 0
        spans, deltas = native_buckets(merged)
        for offset, length in spans:
            found.positive_span.add(offset=offset, length=length)
        found.positive_delta.extend(deltas)

    def _metric(self, pairs: Iterable[tuple[str, str]]) -> Any:
        metric = self._message.metric.add()
        for name, value in pairs:
            metric.label.add(name=name, value=value)
        return metric

    def encode(self) -> bytes:
        """Return the family, preceded by its length; nothing without samples."""
        if not self._message.metric:
            return b""
        data: bytes = self._message.SerializeToString()
        return _varint(len(data)) + data


def encode_registry(registry: CollectorRegistry) -> bytes:
    """Return the counters and gauges of a registry of the client library."""
    parts = []
    for metric in registry.collect():
        total = "_total" if metric.type == "counter" else ""
        kind: Kind = "counter" if total else "gauge"
        family = ProtobufFamily(kind, metric.name + total, metric.documentation)
        for sample in metric.samples:
            if sample.name == metric.name + total:
                family._add(sample.labels.items(), sample.value)
        parts.append(family.encode())
    return b"".join(parts)


def _set_exemplar(to: Any, each: Exemplar) -> None:
    to.label.add(name="trace_id", value=each.trace_id)
    to.value = each.seconds
    to.timestamp.FromMilliseconds(int(each.at * 1000))


def _varint(number: int) -> bytes:
    """Return a length as a base 128 varint."""
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)
