"""Spans of requests: which requests are recorded, and a bounded queue for the export.

`proxy.request.tracing` starts and adds spans; `proxy.worker.span_exporter` takes them in a
thread. A request of a sampled trace gets one span: a child of the one in its `traceparent`, and
the parent of the spans that the origin records. The sender of a request decides about sampling;
without a decision a share of the requests is sampled. Spans that find the queue full are
dropped and counted.
"""

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from proxy.observe.access_log import hidden_names, redact_query
from proxy.observe.trace import TraceContext, continue_trace, parse_traceparent

MAX_PENDING: Final = 4096
"""Spans in the queue: some seconds of a busy worker at the default sample of 1 %."""
Value = str | int | float
NOT_RECORDED: Final = TraceContext(b"", b"", b"", b"00")
"""In place of a span: the request is not sampled."""


class Span(NamedTuple):
    """The span of one request.

    - `state`: its `tracestate`
    - `start`, `end`: Unix seconds
    - `failure`: error text; empty if it succeeded
    """

    trace: TraceContext
    state: str
    name: str
    start: float
    end: float
    attributes: dict[str, Value]
    failure: str


class SpanQueue:
    """Decides which requests get a span, and queues finished spans.

    - `sample`: share of requests that are sampled if the sender has not decided, 0 to 1
    - `dropped`: spans lost, here or by the exporter
    - `exported`: spans sent; the exporter counts them

    `query` says whether the query strings of targets are recorded; a tuple names parameters whose
    values are not.
    """

    def __init__(
        self, sample: float, limit: int = MAX_PENDING, query: bool | tuple[str, ...] = True
    ) -> None:
        self.sample = sample
        self._hides = query is not True and query != ()
        self._hidden = hidden_names(query)
        self._limit = limit
        self._queue: deque[Span] = deque()
        self.dropped = 0
        self.exported = 0

    def start_span(
        self,
        header: bytes | None,
        roll: float,
        bits: Callable[[int], int],
        share: float | None = None,
    ) -> TraceContext:
        """Return the span of a request, NOT_RECORDED if it is not sampled.

        - `header`: its `traceparent`
        - `roll`: a random number in [0, 1)
        - `bits(n)`: returns n random bits
        - `share`: replaces `sample` for this request
        """
        parent = parse_traceparent(header)
        if parent is not None:
            recorded = int(parent[2], 16) & 1
        else:
            recorded = roll < (self.sample if share is None else share)
        return continue_trace(header, bits, sample=True) if recorded else NOT_RECORDED

    def redact(self, target: str) -> str:
        """Return a target as a span may show it."""
        return redact_query(target, self._hidden) if self._hides else target

    def add(self, span: Span) -> None:
        """Queue a finished span; drop it if the queue is full."""
        if len(self._queue) >= self._limit:
            self.dropped += 1
        else:
            self._queue.append(span)

    def take(self, most: int) -> list[Span]:
        """Remove and return the oldest spans, at most `most`. May be called in another thread."""
        return [self._queue.popleft() for _ in range(min(most, len(self._queue)))]
