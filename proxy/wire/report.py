"""The messages between workers, supervisor and control process: acks, reports, commands.

`proxy.wire.codec` encodes them; `Message` lists them all. Class and field names are sent, so they
are a contract between versions.
"""

from typing import Final

import msgspec

from proxy.wire.delta import SnapshotDelta, apply_changes, find_changes
from proxy.wire.frozen import Frozen, ToControl
from proxy.wire.snapshot import (
    Generation,
    Listener,
    Snapshot,
    SnapshotUpdate,
    apply,
    difference,
)

SUPERVISOR: Final = "supervisor, deltas"
"""Role of a supervisor that understands `PublishDelta` (`Hello.role`); earlier ones are called
`supervisor`."""


class Ack(ToControl, frozen=True, tag=True):
    """From a worker: it has installed `generation`.

    `busy` names every endpoint that is draining in this generation, or missing from it, and still
    has requests in flight on this worker, including tunnels and streams. The ack is sent again
    each time one of them has no more. An endpoint is drained once the last ack of every live
    worker is at or above the generation that removed it and does not name it as busy.
    """

    worker: int
    generation: Generation
    busy: tuple[str, ...] = ()


class Resync(ToControl, frozen=True, tag=True):
    """The receiver lacks a service that an update left out; it needs the full snapshot."""

    worker: int


class SnapshotRefused(ToControl, frozen=True, tag=True):
    """From a worker: it could not install `generation`, for `reason`; it still uses the one before.

    It gets the next snapshot like any other worker.
    """

    worker: int
    generation: Generation
    reason: str


class Wake(ToControl, frozen=True, tag=True):
    """From a worker: requests are parked for a service without a ready endpoint.

    Sent for the first one, and each time the number `parked` on this worker has doubled.
    """

    worker: int
    service: str
    parked: int = 1


class Ejected(ToControl, frozen=True, tag=True):
    """From a worker: it ejected an endpoint until `until` (Unix time), for `cause`."""

    worker: int
    service: str
    endpoint: str
    until: float
    cause: str


class Histogram(ToControl, frozen=True):
    """A sparse log-linear histogram: count by bucket index, and the exact sum in seconds.

    The bucket layout is `proxy.wire.buckets`: about 3 % wide, from 100 µs up.
    """

    counts: dict[int, int] = msgspec.field(default_factory=dict)
    sum: float = 0.0


class Exemplar(ToControl, frozen=True):
    """A request with a recorded trace: its duration in seconds, and when it ended (Unix time)."""

    trace_id: str
    seconds: float
    at: float


class EndpointReport(ToControl, frozen=True):
    """One endpoint's counts over one interval.

    - `in_flight`: requests in flight at the end of the interval
    - `busy_seconds`: requests in flight integrated over the interval, in seconds; divided by its
      length, this is the exact mean number in flight
    - `started`, `succeeded`, `failed`: requests
    - `retried`: the failed ones that were retried elsewhere, so that no client saw the failure
    - `latency`: latencies of the successes, without the time to connect
    - `ejected`: whether it is ejected
    - `limit`: adaptive limit of requests in flight at the end of the interval; 0 without one
    """

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


class ServiceReport(ToControl, frozen=True):
    """One service over one interval, as clients saw it.

    - `arrivals`: requests that arrived
    - `codes`: final responses by `METHOD class` ("GET 2xx")
    - `failures`: answers of the proxy itself by reason (`proxy.request.failure`)
    - `grpc`: calls of gRPC by `METHOD CODE` ("/shop.Orders/Get OK")
    - `retries`, `ejections`, `shed`, `denied`: counts
    - `other_node`: requests, retries included, sent to endpoints on other nodes than the proxy
    - `parked`, `queued`: requests that wait at the end of the interval
    - `parked_total`: requests that parked during the interval
    - `queue_seconds`: total waiting time
    - `bytes_in`, `bytes_out`: bytes of bodies
    - `total`, `queue`, `connect`, `first_byte`, `body`: latency histograms; total = queue +
      connect + first byte + body. Event streams count when they begin, with the time until then;
      tunnels do not count
    - `failed`: the part of `total` that ended with a 5xx or was answered by the proxy itself
    - `calls`: requests by calling service
    - `call_seconds`: by calling service, its requests in flight here integrated over the interval
    - `call_errors`, `call_latency`: by calling service, requests that ended with a 5xx or were
      answered by the proxy itself, and latencies of all; connections and streams do not count
    - `uncovered`: by calling service, requests that `allow` does not cover, refused or audited
    - `streams`: TCP connections, tunnels and event streams that are open at the end of the
      interval; they are in flight, and no answer is awaited
    - `stream_seconds`: the same, integrated over the interval
    - `background_seconds`: requests of background routes in flight, integrated over the interval;
      of these requests only `codes`, `failures`, `bytes_in`, `bytes_out` and the endpoints' counts
      know
    - `exemplars`: the last request with a recorded trace, of each power of two of its duration
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
    streams: int = 0
    stream_seconds: float = 0.0
    background_seconds: float = 0.0
    grpc: dict[str, int] = msgspec.field(default_factory=dict)
    exemplars: tuple[Exemplar, ...] = ()
    call_errors: dict[str, int] = msgspec.field(default_factory=dict)
    call_latency: dict[str, Histogram] = msgspec.field(default_factory=dict)
    other_node: int = 0


class Report(ToControl, frozen=True, tag=True):
    """One worker's counts over the interval (`start`, `end`], in Unix time.

    Counts are deltas of this interval; gauges (`in_flight`, `parked`, `queued`) are as of `end`.

    - `services`, and their `endpoints`: those that are missing had no requests, and have none
    - `connections`: open client connections
    - `rss_bytes`, `cpu_seconds`: memory of the process, and CPU time used in the interval
    - `refused`: by reason, requests answered before their service was known: invalid requests,
      hosts and paths without a route
    - `log_dropped`, `spans_dropped`, `spans_exported`: access log lines and spans
    - `descriptor_shortages`: connections to endpoints that failed for lack of a descriptor
    - `accept_pauses`: how often accepting was paused for lack of descriptors
    - `descriptor_limit`: how many descriptors the process may have
    - `handshakes`: TLS handshakes by outcome (`proxy.tls.counters`)
    """

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
    descriptor_shortages: int = 0
    accept_pauses: int = 0
    descriptor_limit: int = 0
    handshakes: dict[str, int] = msgspec.field(default_factory=dict)


class Workers(ToControl, frozen=True, tag=True):
    """From the supervisor: ids of the workers whose acks count, draining ones included. `ending`:
    whether it shuts down; it sends the message again when that begins."""

    live: tuple[int, ...]
    ending: bool = False


class Publish(Frozen, frozen=True, tag=True):
    """From the control process to the supervisor, and from it to each worker: a new snapshot."""

    update: SnapshotUpdate

    @property
    def generation(self) -> Generation:
        """The generation of the snapshot."""
        return self.update.generation


class PublishDelta(Frozen, frozen=True, tag=True):
    """As `Publish`, to a receiver that has the snapshot before and understands deltas."""

    delta: SnapshotDelta

    @property
    def generation(self) -> Generation:
        """The generation of the snapshot."""
        return self.delta.generation


def make_publication(
    old: Snapshot | None, new: Snapshot, *, deltas: bool
) -> Publish | PublishDelta:
    """Return the message that brings a receiver with `old`, or with none, to `new`; `deltas` says
    whether it understands them."""
    if old is None or not deltas:
        return Publish(difference(old, new))
    return PublishDelta(find_changes(old, new))


def read_publication(old: Snapshot | None, message: Publish | PublishDelta) -> Snapshot:
    """Return the snapshot of a message, based on the one that the receiver holds. Raises
    MissingService; the receiver then answers with `Resync`."""
    if isinstance(message, Publish):
        return apply(old, message.update)
    return apply_changes(old, message.delta)


class Hello(ToControl, frozen=True, tag=True):
    """The first message of a connection to the feed socket.

    The supervisor answers with `Hello` and the generation it holds, so that a new control process
    continues above it. It sends the same again to refuse a `Publish` that is not above it.
    """

    role: str
    generation: Generation = Generation()


class Peer(ToControl, frozen=True):
    """The proxy of a node as those of other nodes reach it: the node's name, which its certificate
    proves, and the port; 0: it has none."""

    name: str
    port: int = 0


class Listening(ToControl, frozen=True, tag=True):
    """From the supervisor, after `Hello` and after each change: the open addresses.

    `bound` maps the configured address to the bound one; they differ for port 0. `peer` says how
    the proxies of other nodes reach this one; None: they do not.
    """

    bound: dict[str, str]
    peer: Peer | None = None


class ListenFailed(ToControl, frozen=True, tag=True):
    """From the supervisor: it could not open a listener's address, with the error.

    It tries again at the next snapshot.
    """

    address: str
    error: str


class ListenOn(Frozen, frozen=True, tag=True):
    """From the supervisor to a worker: accept on the listening socket sent with this message.

    It replaces the socket that was accepted on at the same address.
    """

    listener: Listener


class TicketSecrets(Frozen, frozen=True, tag=True):
    """From the supervisor to a worker: the secrets of session tickets, the current one first."""

    secrets: tuple[bytes, ...]


class StopListening(Frozen, frozen=True, tag=True):
    """From the supervisor to a worker: accept no more at this address."""

    address: str


class Accepting(Frozen, frozen=True, tag=True):
    """From a worker to the supervisor: the configured addresses that it accepts on."""

    worker: int
    addresses: tuple[str, ...]


class Drain(Frozen, frozen=True, tag=True, omit_defaults=True):
    """From the supervisor to a worker: stop accepting, finish all requests, exit.

    `tunnels`: whether tunnels may last for the time that their service sets, and not only as long
    as requests. It may be sent again without.
    """

    tunnels: bool = True


class ReopenLog(Frozen, frozen=True, tag=True):
    """From the supervisor to a worker: open the file of the access log again."""


Message = (
    Ack
    | Resync
    | SnapshotRefused
    | Wake
    | Ejected
    | Report
    | Workers
    | Publish
    | PublishDelta
    | Hello
    | Listening
    | ListenFailed
    | ListenOn
    | StopListening
    | TicketSecrets
    | Accepting
    | Drain
    | ReopenLog
)
