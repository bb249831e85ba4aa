"""The flight recorder's memory: the last requests of a worker.

`proxy.request.accounting` adds a record at the end of a request; `proxy.worker.flight_files` saves
them. While there are few requests, all are recorded. Of many, those are that took longest, so that
the cost does not grow with the load: for the others the fast path compares two numbers. Failed
requests are always recorded. The memory is bounded: a new record replaces the oldest one.
`proxy.observe.flight` translates records to what is saved.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from proxy.wire import buckets
from proxy.wire.report import Histogram
from proxy.wire.snapshot import Endpoint

SLOTS: Final = 2048
"""Records of requests that were answered: ten seconds at `PER_SECOND`."""
FAILED_SLOTS: Final = 1024
"""Records of failed requests, which others must not replace."""
PER_SECOND: Final = 200
"""Requests of a second that are recorded if there are more: a record takes about 1 µs, so this is
0.02 % of a worker's time."""
MAX_HEAD: Final = 8 * 1024
"""Bytes that are kept of a head. The fast path has none that are longer."""
NEVER: Final = float("inf")

# How the endpoint was chosen, by `Flight.choice`.
BALANCED: Final = 0
"""By the balancing algorithm."""
ONLY: Final = 1
"""It was the only candidate."""
STICKY: Final = 2
"""The client's cookie named it."""
LEAST_LOADED: Final = 3
"""Others were saturated; of the rest it had the fewest requests."""
HEDGE: Final = 4
"""It answered a second attempt before the first one got an answer."""


class FlightDetails(NamedTuple):
    """What a request has that did not take the fast path. Durations in seconds.

    - `trace`: the `traceparent` that the proxy sent; empty if it passed on that of the client.
    - `choice`: how the endpoint was chosen; `tried`: ids of endpoints that failed before.
    - `reused`: whether the connection carried a request before.
    - `failure`, `detail`: as in the access log.
    """

    trace: bytes
    http10: bool
    choice: int
    tried: tuple[str, ...]
    reused: bool
    queue: float
    connect: float
    first_byte: float
    body: float
    retries: int
    failure: str
    detail: str


class FlightRecord(NamedTuple):
    """One request. Durations in seconds, sizes in bytes of bodies.

    - `ended`: when it ended, in monotonic seconds.
    - `head`: its head as received, or the beginning of it.
    - `service`: empty if none counted it.
    - `endpoint`: where the response came from; None if the proxy made it.
    - `candidates`, `load`: of how many the endpoint was chosen, and its requests in flight then.
    - `details`: None if it took the fast path.
    """

    ended: float
    total: float
    head: bytes
    http2: bool
    client: str
    caller: str
    route: str
    service: str
    endpoint: Endpoint | None
    candidates: int
    load: int
    status: int
    bytes_in: int
    bytes_out: int
    request_id: bytes
    details: FlightDetails | None


FlightTuple = tuple[
    float, float, bytes, bool, str, str, str, str, Endpoint | None, int, int, int, int, int, bytes,
    FlightDetails | None,
]  # fmt: skip
"""The values of a `FlightRecord`: a plain tuple costs a fifth of one with names."""


class FlightRing:
    """The records of a worker.

    - `answered`, `failed`: the last requests that were answered, and that failed; oldest first.
    """

    def __init__(self) -> None:
        self.answered: deque[FlightTuple] = deque(maxlen=SLOTS)
        self.failed: deque[FlightTuple] = deque(maxlen=FAILED_SLOTS)

    def flights(self) -> Sequence[FlightRecord]:
        """Return all records, in no particular order."""
        return [FlightRecord(*flight) for flight in (*self.answered, *self.failed)]


def find_threshold(latencies: Iterable[Histogram], seconds: float) -> float:
    """Return the latency from which on requests are recorded, so that they are about `PER_SECOND`;
    0.0: all are. `latencies` are those of the last `seconds`."""
    counts: dict[int, int] = {}
    for histogram in latencies:
        for bucket, count in histogram.counts.items():
            counts[bucket] = counts.get(bucket, 0) + count
    left = PER_SECOND * seconds
    for bucket in sorted(counts, reverse=True):
        left -= counts[bucket]
        if left < 0.0:
            return buckets.upper_bound(bucket)
    return 0.0
