"""Cost of the project's own code against the library that could replace it.

- HTTP/1 request heads: `proxy.http1` against httptools (llhttp, C) and h11 (Python)
- latency histogram: `proxy.observe.histogram` against `prometheus_client.Histogram`
- exposition: `meshd.telemetry.exposition` against `prometheus_client.generate_latest`

    python -m bench.libraries

httptools and h11 are not dependencies of the project; a library that is not installed is left out,
with a line that says so. For the compiled form: PYTHONPATH=build/compiled:. python -P
bench/libraries.py.
"""

import argparse
import importlib.util
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from bench.scenes import HEADERS
from meshd.telemetry.exposition.histograms import EDGES, exposed_buckets
from meshd.telemetry.exposition.labels import NO_LABELS
from meshd.telemetry.exposition.text import TextFamily
from meshd.telemetry.merge import Distribution
from proxy.http1.fields import REQUEST_KINDS, FieldLineCache
from proxy.http1.request import END, parse_request
from proxy.http1.request_template import add_template, match_templates
from proxy.observe.histogram import HistogramRecorder

ROUNDS: Final = 7
"""Rounds of each measurement; the best one counts, since other processes only add time."""
REPEATS: Final = 20_000
"""Calls per round of a call that takes microseconds."""
SERVICES: Final = 200
REPLICAS: Final = 10
"""Replicas per service."""
SERVICE_COUNTERS: Final = 10
"""Counter samples per service."""
SERVICE_HISTOGRAMS: Final = 3
"""Histograms per service."""
REPLICA_GAUGES: Final = 4
"""Gauge samples per replica."""


def request(number: int) -> bytes:
    """Return a GET with 13 fields; path and one value differ by number."""
    fields = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
    return (
        f"GET /api/orders/{number} HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n{fields}"
        f"X-Request-Tag: tag-{number}\r\n\r\n"
    ).encode()


def best(call: Callable[[], object], repeats: int) -> float:
    """Return the CPU seconds of one call: the best round."""
    times = []
    for _ in range(ROUNDS):
        begin = time.process_time()
        for _ in range(repeats):
            call()
        times.append(time.process_time() - begin)
    return min(times) / repeats


def is_installed(module: str) -> bool:
    """Return whether a module can be imported; print a line if not."""
    found = importlib.util.find_spec(module) is not None
    if not found:
        print(f"  {module}: not installed, left out (pip install {module})")
    return found


def report(rows: Iterable[tuple[str, float]], unit: str, factor: float) -> None:
    """Print times, and their ratio to the first one."""
    first = 0.0
    for name, seconds in rows:
        first = first or seconds
        print(f"  {name:46}{seconds * factor:10.2f} {unit}{seconds / first:8.1f}x", flush=True)


# --- HTTP/1 request heads


def parsers() -> Iterator[tuple[str, float]]:
    """Yield (name, seconds per request head)."""
    heads = [request(number) for number in range(REPEATS)]

    def each(parse: Callable[[bytes], object]) -> float:
        position = iter(heads * ROUNDS)
        return best(lambda: parse(next(position)), REPEATS)

    cache = FieldLineCache(REQUEST_KINDS)
    templates = add_template((), parse_request(request(1)[: -len(END)], cache))
    templates = add_template(templates, parse_request(request(2)[: -len(END)], cache))
    assert match_templates(templates, request(3)[: -len(END)]) is not None
    yield (
        "proxy.http1, matched by a template",
        each(lambda raw: match_templates(templates, raw.removesuffix(END))),
    )
    yield "proxy.http1, parsed", each(lambda raw: parse_request(raw[: -len(END)], cache))
    if is_installed("httptools"):
        yield "httptools, fields collected in a list", each(httptools_parser())
    if is_installed("h11"):
        yield "h11", each(h11_parser())


def httptools_parser() -> Callable[[bytes], object]:
    """Return a function that parses a head as a server with httptools does."""
    import httptools  # type: ignore[import-not-found,unused-ignore]

    class Receiver:
        """Collects what the parser reports."""

        def __init__(self) -> None:
            self.url = b""
            self.fields: list[tuple[bytes, bytes]] = []
            self.complete = False

        def on_url(self, url: bytes) -> None:
            self.url = url

        def on_header(self, name: bytes, value: bytes) -> None:
            self.fields.append((name.lower(), value))

        def on_headers_complete(self) -> None:
            self.complete = True

    def parse(raw: bytes) -> object:
        receiver = Receiver()
        parser = httptools.HttpRequestParser(receiver)
        parser.feed_data(raw)
        assert receiver.complete
        return parser.get_method(), receiver.url, receiver.fields

    return parse


def h11_parser() -> Callable[[bytes], object]:
    """Return a function that parses a head with a new h11 connection."""
    import h11  # type: ignore[import-not-found,unused-ignore]

    def parse(raw: bytes) -> object:
        connection = h11.Connection(h11.SERVER)
        connection.receive_data(raw)
        event = connection.next_event()
        assert isinstance(event, h11.Request)
        return event

    return parse


# --- Histogram


def histograms() -> Iterator[tuple[str, float]]:
    """Yield (name, seconds per recorded latency)."""
    times = [0.0005 * (1 + number % 400) for number in range(REPEATS)]

    def each(record: Callable[[float], object]) -> float:
        position = iter(times * ROUNDS)
        return best(lambda: record(next(position)), REPEATS)

    yield "proxy.observe.histogram (864 buckets)", each(HistogramRecorder().record)
    if is_installed("prometheus_client"):
        from prometheus_client import CollectorRegistry, Histogram

        made = Histogram("latency", "Latency.", ["service"], registry=CollectorRegistry(),
                         buckets=EDGES)  # fmt: skip
        yield "prometheus_client.Histogram (16 buckets)", each(made.labels("shop/web").observe)


# --- Exposition


def expositions() -> Iterator[tuple[str, float]]:
    """Yield (name, seconds per scrape)."""
    latencies = distribution()
    own = own_exposition(latencies)
    yield "meshd.telemetry.exposition", best(lambda: own_exposition(latencies), 1)
    print(f"  ({len(own.splitlines()):,} lines, {len(own) / 1e6:.1f} MB)")
    if is_installed("prometheus_client"):
        generate = library_exposition(latencies)
        lines = len(generate().splitlines())
        assert lines == len(own.splitlines()), (lines, len(own.splitlines()))
        yield "prometheus_client.generate_latest", best(generate, 1)


def distribution() -> Distribution:
    """Return latencies from 1 to 200 ms."""
    made = Distribution()
    for number in range(200):
        made.observe(0.001 * (1 + number))
    return made


def own_exposition(latencies: Distribution) -> bytes:
    """Return all metrics as text."""
    counters = [TextFamily("counter", f"bench_{n}_total", "Text.") for n in range(SERVICE_COUNTERS)]
    timings = [TextFamily("histogram", f"bench_h{n}", "Text.") for n in range(SERVICE_HISTOGRAMS)]
    gauges = [TextFamily("gauge", f"bench_g{n}", "Text.") for n in range(REPLICA_GAUGES)]
    for number in range(SERVICES):
        labels = NO_LABELS.add("service", f"shop/service-{number}")
        for value, family in enumerate(counters):
            family.add(labels, value)
        for family in timings:
            family.add_histogram(labels, latencies)
        for replica in range(REPLICAS):
            both = labels.add("replica", f"service-{number}-{replica}")
            for value, family in enumerate(gauges):
                family.add(both, value)
    return b"".join(family.encode() for family in (*counters, *timings, *gauges))


def library_exposition(latencies: Distribution) -> Callable[[], bytes]:
    """Return a function that generates the same metrics with the library."""
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        Metric,
    )
    from prometheus_client.registry import Collector
    from prometheus_client.utils import floatToGoString

    class AllMetrics(Collector):
        """Makes the families at each scrape, as a collector of changing services must."""

        def collect(self) -> Iterable[Metric]:
            names = [f"shop/service-{number}" for number in range(SERVICES)]
            for n in range(SERVICE_COUNTERS):
                counter = CounterMetricFamily(f"bench_{n}", "Text.", labels=["service"])
                for name in names:
                    counter.add_metric([name], n)
                yield counter
            exposed = exposed_buckets(latencies)
            buckets = [(floatToGoString(edge), float(count)) for edge, count in exposed]
            for n in range(SERVICE_HISTOGRAMS):
                timing = HistogramMetricFamily(f"bench_h{n}", "Text.", labels=["service"])
                for name in names:
                    timing.add_metric([name], buckets, latencies.sum)
                yield timing
            for n in range(REPLICA_GAUGES):
                gauge = GaugeMetricFamily(f"bench_g{n}", "Text.", labels=["service", "replica"])
                for number, name in enumerate(names):
                    for replica in range(REPLICAS):
                        gauge.add_metric([name, f"service-{number}-{replica}"], n)
                yield gauge

    registry = CollectorRegistry()
    registry.register(AllMetrics())
    return lambda: generate_latest(registry)


def main() -> None:
    """Print all comparisons."""
    argparse.ArgumentParser(description=__doc__.split("\n", 1)[0]).parse_args()
    comparisons: tuple[tuple[str, Any, str, float], ...] = (
        ("HTTP/1 request head, GET with 13 fields", parsers, "µs", 1e6),
        ("one latency", histograms, "µs", 1e6),
        (f"a scrape of {SERVICES} services with {REPLICAS} replicas each", expositions, "ms", 1e3),
    )
    for title, rows, unit, factor in comparisons:
        print(f"\n{title}")
        report(rows(), unit, factor)


if __name__ == "__main__":
    main()
