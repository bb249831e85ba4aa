"""The formats of `/metrics`, and the choice between them by the Accept field of a scrape. Pure.

`meshd.telemetry.metrics` calls it. Prometheus asks for OpenMetrics, or for protocol buffers if it
takes native histograms; everything else gets plain text.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

from meshd.telemetry.exposition.histograms import EDGES
from meshd.telemetry.exposition.labels import Labels
from meshd.telemetry.exposition.text import NO_EXEMPLARS, Kind, OpenMetricsFamily, TextFamily
from meshd.telemetry.merge import Distribution
from proxy.wire.report import Exemplar

_END: Final = b"# EOF\n"
_RANKS: Final = ("", "text", "openmetrics", "protobuf")
"""Formats, the one with most information last."""
_MESSAGE: Final = "io.prometheus.client.MetricFamily"


class Family(Protocol):
    """One metric with its samples, in one of the formats."""

    def add(self, labels: Labels, value: float) -> None:
        """Add one sample."""

    def add_histogram(
        self,
        labels: Labels,
        merged: Distribution,
        edges: tuple[float, ...] = EDGES,
        exemplars: Mapping[int, Exemplar] = NO_EXEMPLARS,
    ) -> None:
        """Add one histogram."""

    def encode(self) -> bytes:
        """Return the encoded family."""


@dataclass(frozen=True, slots=True)
class Format:
    """A format of `/metrics`.

    - `content_type`: for the response.
    - `family`: makes a family from kind, name and help text.
    - `encode_registry`: encodes a registry of the client library.
    - `end`: bytes after the last family.
    """

    content_type: str
    family: Callable[[Kind, str, str], Family]
    encode_registry: Callable[[CollectorRegistry], bytes]
    end: bytes = b""


def _encode_openmetrics(registry: CollectorRegistry) -> bytes:
    found: bytes = openmetrics.generate_latest(registry)  # type: ignore[no-untyped-call]
    return found.removesuffix(_END)


TEXT: Final = Format("text/plain; version=0.0.4; charset=utf-8", TextFamily, generate_latest)
OPENMETRICS: Final = Format(
    "application/openmetrics-text; version=1.0.0; charset=utf-8",
    OpenMetricsFamily,
    _encode_openmetrics,
    _END,
)


def protobuf() -> Format:
    """Return the protocol buffer format. The library is loaded with the first scrape that wants
    it: it takes a megabyte."""
    from meshd.telemetry.exposition.protobuf import ProtobufFamily, encode_registry

    return Format(
        f"application/vnd.google.protobuf; proto={_MESSAGE}; encoding=delimited",
        ProtobufFamily,
        encode_registry,
    )


def choose_format(accept: str) -> Format:
    """Return the format that an Accept field prefers; text for one that names none of them.

    At equal weight the one with more information comes first (RFC 9110, section 12.5.1).
    """
    best = (0.0, 0)
    for each in accept.split(","):
        name, weight, parameters = _parse_range(each)
        found = ""
        if name == "application/vnd.google.protobuf":
            wanted = (parameters.get("proto", _MESSAGE), parameters.get("encoding", "delimited"))
            found = "protobuf" if wanted == (_MESSAGE, "delimited") else ""
        elif name == "application/openmetrics-text":
            found = "openmetrics" if parameters.get("version", "1.0.0") == "1.0.0" else ""
        elif name in ("text/plain", "text/*", "*/*"):
            found = "text"
        rank = _RANKS.index(found)
        if rank and weight and (weight, rank) > best:
            best = (weight, rank)
    choice = _RANKS[best[1]]
    if choice == "protobuf":
        return protobuf()
    return OPENMETRICS if choice == "openmetrics" else TEXT


def _parse_range(text: str) -> tuple[str, float, dict[str, str]]:
    """Return name, weight and parameters of a media range."""
    name, *rest = (part.strip() for part in text.split(";"))
    parameters = {}
    for part in rest:
        key, _, value = part.partition("=")
        parameters[key.strip().lower()] = value.strip().strip('"')
    try:
        weight = float(parameters.get("q", "1"))
    except ValueError:
        weight = 0.0
    return name.lower(), weight, parameters
