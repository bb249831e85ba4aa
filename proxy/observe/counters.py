"""Counters of one worker for a service and for an endpoint, drained into report values.

Owned by `proxy.state`; `proxy.request.accounting` counts, `proxy.request.reporter` drains. Fields
are plain integers that callers add to; a method exists where two numbers change together. All
times are monotonic seconds of one clock.
"""

from collections.abc import Sequence
from typing import Final

from proxy.http2 import grpc
from proxy.observe.histogram import HistogramRecorder
from proxy.wire.report import EndpointReport, Exemplar, Histogram, ServiceReport

METHODS: Final = frozenset(
    (
        b"GET",
        b"HEAD",
        b"POST",
        b"PUT",
        b"DELETE",
        b"PATCH",
        b"OPTIONS",
        b"TRACE",
        b"CONNECT",
        b"TCP",
    )
)
"""Methods with their own label; clients can invent others, which are counted as OTHER. TCP is a
connection of `proxy.tcp`."""
CONNECTION: Final = b"TCP"
"""The label of TCP connections."""
_GET: Final = b"GET"
MAX_GRPC_METHODS: Final = 100
"""Methods of gRPC with their own label, of one service on one worker."""
OTHER: Final = "OTHER"
"""The label of all other methods."""
_STATUS_CLASSES: Final = 6
"""Status codes by their first digit, 1 to 5; index 0 is not used."""


class EndpointCounters:
    """Counts of one endpoint on this worker.

    - `in_flight`: requests in flight (a gauge)
    - `started`, `succeeded`, `failed`, `retried`: requests in this interval
    - `latency`: latencies of the successes
    - `integral`: requests in flight integrated over time, in seconds. A start subtracts the time,
      a finish adds it; `drain` accounts for those still running
    """

    __slots__ = (
        "failed",
        "in_flight",
        "integral",
        "latency",
        "retried",
        "started",
        "succeeded",
    )

    def __init__(self) -> None:
        self.in_flight = 0
        self.started = 0
        self.succeeded = 0
        self.failed = 0
        self.retried = 0
        self.latency = HistogramRecorder()
        self.integral = 0.0

    def start(self, now: float) -> None:
        """Count a request that is sent to the endpoint."""
        self.in_flight += 1
        self.started += 1
        self.integral -= now

    def finish(self, now: float) -> None:
        """Count the end of a request; the caller counts success or failure."""
        self.in_flight -= 1
        self.integral += now

    def drain(
        self, id: str, now: float, revision: str = "", ejected: bool = False, limit: int = 0
    ) -> EndpointReport:
        """Return the counts of the interval that ends now, and start the next."""
        report = EndpointReport(
            id=id,
            revision=revision,
            in_flight=self.in_flight,
            busy_seconds=max(0.0, self.integral + self.in_flight * now),
            started=self.started,
            succeeded=self.succeeded,
            failed=self.failed,
            latency=self.latency.drain(),
            ejected=ejected,
            retried=self.retried,
            limit=limit,
        )
        self.integral = -self.in_flight * now
        self.started = self.succeeded = self.failed = self.retried = 0
        return report


class CallCounters:
    """Counts of the requests of one calling service.

    - `count`: requests and connections that began in this interval; `errors`: requests that ended
      with a 5xx or without an answer of an endpoint; `latency`: of all that ended
    - `calling`: requests in flight (a gauge)
    - `integral`: requests in flight integrated over time, in seconds, as in `EndpointCounters`
    """

    __slots__ = ("calling", "count", "errors", "integral", "latency")

    def __init__(self) -> None:
        self.count = 0
        self.errors = 0
        self.calling = 0
        self.integral = 0.0
        self.latency = HistogramRecorder()


class ServiceCounters:
    """Counts of one service on this worker; see `proxy.wire.report.ServiceReport`.

    `parked`, `queued` and `streams` are gauges, the rest counts up. `fast_path_latency` holds
    requests whose first byte was also the last; `drain` adds it to `total` and `first_byte`.
    """

    __slots__ = (
        "_background",
        "_background_integral",
        "_calls",
        "_codes",
        "_exemplars",
        "_grpc_methods",
        "_ok_gets",
        "_stream_integral",
        "arrivals",
        "body",
        "bytes_in",
        "bytes_out",
        "connect",
        "denied",
        "ejections",
        "failed",
        "failures",
        "fast_path_latency",
        "first_byte",
        "grpc",
        "parked",
        "parked_total",
        "queue",
        "queue_seconds",
        "queued",
        "retries",
        "shed",
        "streams",
        "total",
        "uncovered",
    )

    def __init__(self) -> None:
        self._codes: dict[bytes, list[int]] = {}
        self._ok_gets = 0
        self.uncovered: dict[str, int] = {}
        self.failures: dict[str, int] = {}
        self.grpc: dict[str, int] = {}
        self._exemplars: dict[int, Exemplar] = {}
        self._grpc_methods: set[str] = set()
        self._calls: dict[str, CallCounters] = {}
        self.arrivals = 0
        self.retries = 0
        self.ejections = 0
        self.parked = 0
        self.parked_total = 0
        self.queued = 0
        self.shed = 0
        self.denied = 0
        self.queue_seconds = 0.0
        self.streams = 0
        self._stream_integral = 0.0
        self._background = 0
        self._background_integral = 0.0
        self.bytes_in = 0
        self.bytes_out = 0
        self.fast_path_latency = HistogramRecorder()
        self.total = HistogramRecorder()
        self.queue = HistogramRecorder()
        self.connect = HistogramRecorder()
        self.first_byte = HistogramRecorder()
        self.body = HistogramRecorder()
        self.failed = HistogramRecorder()

    def count_response(self, method: bytes, status: int) -> None:
        """Count a final response."""
        if status == 200 and method == _GET:
            # Most are: this takes a twentieth of the instructions of the lookups below.
            self._ok_gets += 1
            return
        by_class = self._codes.get(method)
        if by_class is None:
            label = method if method in METHODS else b"OTHER"
            by_class = self._codes.setdefault(label, [0] * _STATUS_CLASSES)
        by_class[status // 100] += 1

    def count_connection(self, status: int) -> None:
        """Count a TCP connection, by the status of its outcome."""
        self._codes.setdefault(CONNECTION, [0] * _STATUS_CLASSES)[status // 100] += 1

    def count_failure(self, reason: str) -> None:
        """Count an answer of the proxy itself, by reason."""
        self.failures[reason] = self.failures.get(reason, 0) + 1

    def count_call_of_grpc(self, method: bytes, code: int) -> None:
        """Count a call of gRPC by method, `/package.Service/Method`, and status code. Names that
        the service does not implement, and those beyond MAX_GRPC_METHODS, are counted as OTHER."""
        name = method.decode("latin-1")
        if name not in self._grpc_methods:
            if code == grpc.UNIMPLEMENTED or len(self._grpc_methods) >= MAX_GRPC_METHODS:
                name = OTHER
            else:
                self._grpc_methods.add(name)
        key = f"{name} {grpc.CODES[code]}"
        self.grpc[key] = self.grpc.get(key, 0) + 1

    def add_exemplar(self, trace_id: str, seconds: float, at: float) -> None:
        """Keep a request with a recorded trace: the last one of each power of two."""
        size = int(seconds * 10_000.0).bit_length()
        self._exemplars[size] = Exemplar(trace_id, seconds, at)

    def count_uncovered(self, caller: str) -> None:
        """Count a call from a service that `allow` does not name."""
        self.uncovered[caller] = self.uncovered.get(caller, 0) + 1

    def count_call(self, caller: str) -> None:
        """Count a connection from another service of the mesh. Its duration says nothing about
        how long the caller waits."""
        self._call_counters(caller).count += 1

    def start_stream(self, now: float) -> None:
        """Count a tunnel, an event stream or a TCP connection that begins to pass bytes."""
        self.streams += 1
        self._stream_integral -= now

    def end_stream(self, now: float) -> None:
        """Count its end."""
        self.streams -= 1
        self._stream_integral += now

    def start_background(self, now: float) -> None:
        """Count a request of a background route."""
        self._background += 1
        self._background_integral -= now

    def end_background(self, now: float) -> None:
        """Count its end."""
        self._background -= 1
        self._background_integral += now

    def start_call(self, caller: str, now: float) -> None:
        """Count a request from another service of the mesh."""
        calls = self._calls.get(caller)
        if calls is None:
            calls = self._call_counters(caller)
        calls.count += 1
        calls.calling += 1
        calls.integral -= now

    def end_call(self, caller: str, now: float) -> None:
        """Count that the caller awaits no answer any more, because a stream has begun."""
        calls = self._calls[caller]
        calls.calling -= 1
        calls.integral += now

    def record_call(self, caller: str, bucket: int, seconds: float) -> None:
        """Count the time until a stream began."""
        self._calls[caller].latency.record_bucket(bucket, seconds)

    def finish_call(
        self, caller: str, now: float, failed: bool, bucket: int, seconds: float
    ) -> None:
        """Count the end of a request from another service, which took `seconds`, and their
        `bucket`."""
        calls = self._calls[caller]
        calls.calling -= 1
        calls.integral += now
        calls.latency.record_bucket(bucket, seconds)
        if failed:
            calls.errors += 1

    def _call_counters(self, caller: str) -> CallCounters:
        calls = self._calls.get(caller)
        if calls is None:
            calls = self._calls[caller] = CallCounters()
        return calls

    def _drain_calls(
        self, now: float
    ) -> tuple[dict[str, int], dict[str, float], dict[str, int], dict[str, Histogram]]:
        """Return counts, seconds, errors and latencies by caller. A caller that did not call in
        the interval is forgotten."""
        counts: dict[str, int] = {}
        seconds: dict[str, float] = {}
        errors: dict[str, int] = {}
        latency: dict[str, Histogram] = {}
        kept: dict[str, CallCounters] = {}
        for caller, calls in self._calls.items():
            if calls.count or calls.calling:
                kept[caller] = calls
            if calls.count:
                counts[caller] = calls.count
            took = calls.integral + calls.calling * now
            if took > 0.0 or calls.calling:
                seconds[caller] = max(0.0, took)
            if calls.errors:
                errors[caller] = calls.errors
            recorded = calls.latency.drain()
            if recorded.counts:
                latency[caller] = recorded
            calls.count = calls.errors = 0
            calls.integral = -calls.calling * now
        self._calls = kept
        return counts, seconds, errors, latency

    def drain(
        self,
        name: str,
        now: float,
        endpoints: Sequence[EndpointReport] = (),
        other_node: int = 0,
    ) -> ServiceReport:
        """Return the counts of the interval that ends now, and start the next. `endpoints` and
        `other_node` are counted elsewhere."""
        self.total.merge(self.fast_path_latency)
        self.first_byte.merge(self.fast_path_latency)
        self.fast_path_latency.drain()
        if self._ok_gets:
            self._codes.setdefault(_GET, [0] * _STATUS_CLASSES)[2] += self._ok_gets
            self._ok_gets = 0
        codes = {
            f"{method.decode()} {status_class}xx": count
            for method, by_class in self._codes.items()
            for status_class, count in enumerate(by_class)
            if count
        }
        calls, call_seconds, call_errors, call_latency = self._drain_calls(now)
        report = ServiceReport(
            name=name,
            arrivals=self.arrivals,
            codes=codes,
            failures=self.failures,
            grpc=self.grpc,
            retries=self.retries,
            ejections=self.ejections,
            parked=self.parked,
            parked_total=self.parked_total,
            queued=self.queued,
            shed=self.shed,
            denied=self.denied,
            queue_seconds=self.queue_seconds,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            total=self.total.drain(),
            queue=self.queue.drain(),
            connect=self.connect.drain(),
            first_byte=self.first_byte.drain(),
            body=self.body.drain(),
            endpoints=tuple(endpoints),
            calls=calls,
            call_seconds=call_seconds,
            call_errors=call_errors,
            call_latency=call_latency,
            failed=self.failed.drain(),
            uncovered=self.uncovered,
            streams=self.streams,
            stream_seconds=max(0.0, self._stream_integral + self.streams * now),
            background_seconds=max(0.0, self._background_integral + self._background * now),
            exemplars=tuple(self._exemplars.values()),
            other_node=other_node,
        )
        self._exemplars.clear()
        self._stream_integral = -self.streams * now
        self._background_integral = -self._background * now
        self._codes, self.failures, self.uncovered = {}, {}, {}
        self.grpc = {}
        self.arrivals = self.retries = self.ejections = self.parked_total = 0
        self.shed = self.denied = self.bytes_in = self.bytes_out = 0
        self.queue_seconds = 0.0
        return report
