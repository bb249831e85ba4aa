"""What a worker tells about itself: acknowledgements, and counts over one interval."""

import msgspec

from proxy.wire.snapshot import Frozen, Generation, Listener, SnapshotUpdate


class Ack(Frozen, frozen=True, tag=True):
    """Worker `worker` routes by `generation`. `busy` names every endpoint that is draining in
    it, or gone from it, and still has requests in flight on this worker, tunnels and streams
    included. Sent again, with the same generation, each time one of them falls to zero: an
    endpoint is drained once every live worker's last ack is at or above the generation that
    took it out and does not name it as busy."""

    worker: int
    generation: Generation
    busy: tuple[str, ...] = ()


class Resync(Frozen, frozen=True, tag=True):
    """The receiver lacks a service that an update left out; send everything."""

    worker: int


class SnapshotRefused(Frozen, frozen=True, tag=True):
    """Worker `worker` cannot route by `generation`, and why; it serves on by the one before.
    It gets the next one as usual."""

    worker: int
    generation: Generation
    reason: str


class Wake(Frozen, frozen=True, tag=True):
    """The first request is parked for a service without a ready endpoint; told again each
    time the number of those `parked` on this worker has doubled."""

    worker: int
    service: str
    parked: int = 1


class Ejected(Frozen, frozen=True, tag=True):
    """The worker took an endpoint out of rotation until `until` (Unix time), and why."""

    worker: int
    service: str
    endpoint: str
    until: float
    cause: str


class Histogram(Frozen, frozen=True):
    """Sparse log-linear histogram: bucket index → count, and the exact sum in seconds.

    The bucket layout is `proxy.wire.buckets`: about 3 % wide, from 100 µs up.
    """

    counts: dict[int, int] = msgspec.field(default_factory=dict)
    sum: float = 0.0


class EndpointReport(Frozen, frozen=True):
    """One endpoint over one interval. `busy_seconds` is in-flight integrated over the
    interval; divided by its length it is the mean number in flight, exactly. `retried` are the
    `failed` ones that were then tried elsewhere, so that no client saw that failure. `limit` is
    the adaptive limit of requests in flight as of its end; 0 where there is none."""

    id: str
    revision: str = ""
    in_flight: int = 0
    busy_seconds: float = 0.0
    started: int = 0
    succeeded: int = 0
    failed: int = 0
    latency: Histogram = Histogram()
    ejected: bool = False
    retried: int = 0
    limit: int = 0


class ServiceReport(Frozen, frozen=True):
    """One service over one interval, as clients saw it.

    `codes` counts final answers by `METHOD class` ("GET 2xx"). `failures` counts answers the
    proxy made itself, by reason (`proxy.request.failure`). The histograms split the time of an
    exchange: `total` = queue + connect + first byte + body; streams of events are in them once
    they have begun, with the time that took, and tunnels are not. `failed` is the part of
    `total` that ended with a 5xx or was answered by the proxy itself. `calls` counts requests by
    the service they came from, and `call_seconds` is the time that such a caller had requests
    here in flight, each counted, integrated over the interval. `uncovered` counts by caller the
    calls that the service's `allow` does not name, refused or let through for an audit.
    """

    name: str
    arrivals: int = 0
    codes: dict[str, int] = msgspec.field(default_factory=dict)
    failures: dict[str, int] = msgspec.field(default_factory=dict)
    retries: int = 0
    ejections: int = 0
    parked: int = 0
    parked_total: int = 0
    queued: int = 0
    shed: int = 0
    denied: int = 0
    queue_seconds: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0
    total: Histogram = Histogram()
    queue: Histogram = Histogram()
    connect: Histogram = Histogram()
    first_byte: Histogram = Histogram()
    body: Histogram = Histogram()
    endpoints: tuple[EndpointReport, ...] = ()
    calls: dict[str, int] = msgspec.field(default_factory=dict)
    call_seconds: dict[str, float] = msgspec.field(default_factory=dict)
    failed: Histogram = Histogram()
    uncovered: dict[str, int] = msgspec.field(default_factory=dict)


class Report(Frozen, frozen=True, tag=True):
    """One worker's counts over (`start`, `end`] (Unix time). Counts are deltas of this
    interval; gauges (`in_flight`, `parked`, `queued`) are as of `end`. `refused` counts by reason
    what was answered before it was known to be for a service: bytes that are no request, hosts
    and paths without a route. Lines of the access log and spans are dropped where they cannot be
    written or sent fast enough."""

    worker: int
    sequence: int
    start: float
    end: float
    generation: Generation
    services: tuple[ServiceReport, ...] = ()
    connections: int = 0
    rss_bytes: int = 0
    cpu_seconds: float = 0.0
    refused: dict[str, int] = msgspec.field(default_factory=dict)
    log_dropped: int = 0
    spans_dropped: int = 0
    spans_exported: int = 0


class Workers(Frozen, frozen=True, tag=True):
    """From the supervisor: the worker processes whose acks count, draining ones included."""

    live: tuple[int, ...]


class Publish(Frozen, frozen=True, tag=True):
    """From the control process to the supervisor, and from it to each worker."""

    update: SnapshotUpdate


class Hello(Frozen, frozen=True, tag=True):
    """First message of a connection to the feed socket. The supervisor answers with `Hello`
    carrying the generation it holds, so that a new control process goes on above it. It
    sends the same again as the refusal of a `Publish` that is not above what it holds."""

    role: str
    generation: Generation = Generation()


class Listening(Frozen, frozen=True, tag=True):
    """From the supervisor, after `Hello` and whenever it changes: the addresses asked for and
    what they are bound to (they differ where port 0 was asked for)."""

    bound: dict[str, str]


class ListenFailed(Frozen, frozen=True, tag=True):
    """The supervisor could not open a listener's address, and why; it tries again at the
    next snapshot."""

    address: str
    error: str


class ListenOn(Frozen, frozen=True, tag=True):
    """From the supervisor to a worker, with the listening socket as ancillary data: accept
    on it, instead of whatever was accepted on at that address before."""

    listener: Listener


class StopListening(Frozen, frozen=True, tag=True):
    """From the supervisor to a worker: the address is no longer ours."""

    address: str


class Accepting(Frozen, frozen=True, tag=True):
    """From a worker to the supervisor: the addresses, as asked for, that it accepts on."""

    worker: int
    addresses: tuple[str, ...]


class Drain(Frozen, frozen=True, tag=True):
    """From the supervisor to a worker: accept nothing more, finish what there is, exit."""


Message = (
    Ack
    | Resync
    | SnapshotRefused
    | Wake
    | Ejected
    | Report
    | Workers
    | Publish
    | Hello
    | Listening
    | ListenFailed
    | ListenOn
    | StopListening
    | Accepting
    | Drain
)
