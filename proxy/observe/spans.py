"""Spans of requests: which are recorded, how they hang together, and where they wait for export.

A request whose trace is sampled gets one span here: a child of the one that its `traceparent`
names, and the parent of whatever the origin records. Who sent the request decides whether it is
sampled; where nobody has decided, a share of them is. What is recorded waits in a bounded queue
for a thread that exports it; what finds no room is dropped and counted.
"""

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from proxy.observe.trace import TraceContext, continue_trace, parse_traceparent

MAX_PENDING: Final = 4096
Value = str | int | float
NOT_RECORDED: Final = TraceContext(b"", b"", b"", b"00")
"""In place of a span: it was decided that there is none."""


class Span(NamedTuple):
    """One request. Times are Unix seconds; `failure` is empty where it went well."""

    trace: TraceContext
    state: str
    name: str
    start: float
    end: float
    attributes: dict[str, Value]
    failure: str


class SpanQueue:
    """Decides, and collects. `sample` is the share of the requests that nobody decided about.
    `exported` and `lost` are counted by whoever takes the spans away."""

    def __init__(self, sample: float, limit: int = MAX_PENDING) -> None:
        self.sample = sample
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
        """The span of a request that came with this `traceparent`; NOT_RECORDED where there is
        to be none. `share` takes the place of `sample`; `roll` is in [0, 1)."""
        parent = parse_traceparent(header)
        if parent is not None:
            recorded = int(parent[2], 16) & 1
        else:
            recorded = roll < (self.sample if share is None else share)
        return continue_trace(header, bits, sample=True) if recorded else NOT_RECORDED

    def add(self, span: Span) -> None:
        """Puts a finished span into the queue, if there is room."""
        if len(self._queue) >= self._limit:
            self.dropped += 1
        else:
            self._queue.append(span)

    def take(self, most: int) -> list[Span]:
        """The oldest spans; may be called from another thread."""
        return [self._queue.popleft() for _ in range(min(most, len(self._queue)))]
