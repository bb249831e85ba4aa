"""Metric families as text in the Prometheus format 0.0.4. Pure.

`meshd.telemetry.service_metrics` writes the families with a sample for each service through it. The
client library makes an object of each line and reads it several times, which takes a second for a
thousand services; this module appends strings.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from functools import cache
from math import inf
from typing import Final, Literal

from meshd.telemetry.merge import Distribution
from proxy.wire import buckets

EDGES: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
"""Upper bounds of the exposed histograms in seconds. The proxy's own buckets are finer: each, at
most 3 % wide, counts under the first edge that it lies wholly below."""
ROUNDING: Final = 1e-9
"""Relative error of a bucket's bound as a floating-point number."""


class Family:
    """One metric with its samples. `name` is the name in the samples, including a counter's
    `_total`."""

    def __init__(self, kind: Literal["counter", "gauge", "histogram"], name: str, text: str):
        self._name = name
        self._lines = [f"# HELP {name} {text}\n# TYPE {name} {kind}\n"]

    def add(self, labels: str, value: float) -> None:
        """Add one sample, with `labels` as `label` writes them, joined by commas."""
        self._lines.append(f"{self._name}{{{labels}}} {float(value)!r}\n")

    def add_histogram(
        self, labels: str, merged: Distribution, edges: tuple[float, ...] = EDGES
    ) -> None:
        """Add all samples of one histogram."""
        name, count = self._name, 0.0
        for edge, count in exposed_buckets(merged, edges):
            self._lines.append(f'{name}_bucket{{{labels},le="{edge}"}} {count!r}\n')
        self._lines.append(f"{name}_count{{{labels}}} {count!r}\n")
        self._lines.append(f"{name}_sum{{{labels}}} {float(merged.sum)!r}\n")

    def encode(self) -> bytes:
        """Return the family as text."""
        return "".join(self._lines).encode()


def label(name: str, value: str) -> str:
    """Return one label with its quoted value."""
    quoted = value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
    return f'{name}="{quoted}"'


def exposed_buckets(
    merged: Distribution, edges: tuple[float, ...] = EDGES
) -> list[tuple[str, float]]:
    """Return the cumulative (upper edge, count) pairs."""
    sums = [0] * (len(edges) + 1)
    for bucket, count in merged.counts.items():
        sums[_edge_index(bucket, edges)] += count
    found: list[tuple[str, float]] = []
    total = 0
    for edge, count in zip((*edges, inf), sums, strict=True):
        total += count
        found.append(("+Inf" if edge == inf else repr(edge), float(total)))
    return found


@cache  # bounded: the layout has a fixed number of buckets
def _edge_index(bucket: int, edges: tuple[float, ...]) -> int:
    bound = buckets.upper_bound(bucket) * (1 - ROUNDING)
    return next((i for i, edge in enumerate(edges) if bound <= edge), len(edges))
