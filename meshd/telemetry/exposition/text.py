"""Metric families in the text formats: Prometheus 0.0.4 and OpenMetrics 1.0. Pure.

`formats` makes the families. The client library makes an object of each line and reads it several
times, which takes a second for a thousand services; this module appends strings. OpenMetrics
differs in the name of a counter's family and has exemplars.

Formats: https://prometheus.io/docs/instrumenting/exposition_formats/ and
https://prometheus.io/docs/specs/om/open_metrics_spec/
"""

from collections.abc import Mapping
from math import inf
from typing import Final, Literal

from meshd.telemetry.exposition.histograms import EDGES, exposed_buckets
from meshd.telemetry.exposition.labels import Labels
from meshd.telemetry.merge import Distribution
from proxy.wire.report import Exemplar

Kind = Literal["counter", "gauge", "histogram"]
NO_EXEMPLARS: Final[Mapping[int, Exemplar]] = {}


class TextFamily:
    """One metric with its samples. `name` is the name in the samples, including a counter's
    `_total`."""

    exemplars = False

    def __init__(self, kind: Kind, name: str, text: str) -> None:
        self._name = name
        family = self._family_name(name)
        self._lines = [f"# HELP {family} {text}\n# TYPE {family} {kind}\n"]

    def _family_name(self, name: str) -> str:
        return name

    def add(self, labels: Labels, value: float) -> None:
        """Add one sample."""
        self._lines.append(f"{self._name}{{{labels.text}}} {float(value)!r}\n")

    def add_histogram(
        self,
        labels: Labels,
        merged: Distribution,
        edges: tuple[float, ...] = EDGES,
        exemplars: Mapping[int, Exemplar] = NO_EXEMPLARS,
    ) -> None:
        """Add all samples of one histogram. `exemplars`: by number of bucket."""
        name, count, text = self._name, 0, labels.text
        for number, (edge, count) in enumerate(exposed_buckets(merged, edges)):
            bound = "+Inf" if edge == inf else repr(edge)
            end = ""
            if self.exemplars and number in exemplars:
                end = _exemplar(exemplars[number])
            self._lines.append(f'{name}_bucket{{{text},le="{bound}"}} {count}.0{end}\n')
        self._lines.append(f"{name}_count{{{text}}} {count}.0\n")
        self._lines.append(f"{name}_sum{{{text}}} {float(merged.sum)!r}\n")

    def encode(self) -> bytes:
        """Return the family as text."""
        return "".join(self._lines).encode()


class OpenMetricsFamily(TextFamily):
    """The same in OpenMetrics, with exemplars."""

    exemplars = True

    def _family_name(self, name: str) -> str:
        return name.removesuffix("_total")


def _exemplar(each: Exemplar) -> str:
    return f' # {{trace_id="{each.trace_id}"}} {each.seconds!r} {each.at:.3f}'
