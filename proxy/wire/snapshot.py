"""The routing picture at one generation: all that the data plane knows.

A snapshot is never edited, only replaced. Every value here is frozen and is compared and
sent by content; times are seconds unless a name says otherwise.
"""

from typing import Literal

import msgspec

Algorithm = Literal[
    "hot-cold",
    "round-robin",
    "weighted",
    "least-request",
    "peak-ewma",
    "random",
    "ring-hash",
    "maglev",
]
EndpointState = Literal["ready", "draining"]


class Frozen(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of everything on the wire: immutable, and strict about unknown fields."""


class Generation(Frozen, frozen=True, order=True):
    """Position in the history of snapshots; compares as (epoch, number).

    `epoch` grows each time a control process starts, `number` with each snapshot it sends,
    so that a restarted control process always goes on above the last one.
    """

    epoch: int = 0
    number: int = 0


class Endpoint(Frozen, frozen=True):
    """One replica's address as the proxy sees it.

    `host` is an IP address, or empty with `path` set for a Unix socket. `ready_since` (Unix
    time) starts the slow-start ramp; 0 means long ago. A `draining` endpoint gets no new
    request and finishes what it has.
    """

    id: str
    host: str
    port: int
    path: str = ""
    revision: str = ""
    weight: float = 1.0
    state: EndpointState = "ready"
    ready_since: float = 0.0


class HashKey(Frozen, frozen=True):
    """What consistent hashing or stickiness hashes: a header, a cookie or the client address."""

    source: Literal["header", "cookie", "address"] = "address"
    name: str = ""


class Balance(Frozen, frozen=True):
    """How an endpoint is chosen. `slow_start` is the ramp of a new endpoint; `panic` is the
    share of healthy endpoints below which ejection is ignored (Envoy's default is 0.5)."""

    algorithm: Algorithm = "hot-cold"
    hash_key: HashKey = HashKey()
    sticky_cookie: str = ""
    slow_start: float = 0.0
    panic: float = 0.5


class Timeouts(Frozen, frozen=True):
    """Deadlines in seconds; 0 switches one off. `first_byte` runs from the end of the request
    to the response head, `idle` between two reads of a body, `request` over the whole
    exchange (not over tunnels and event streams unless set). `head` is for a request's head,
    from the connection or its first byte: before it is known whose it is, the longest of all
    services holds. `tunnel` bounds the silence of a tunnel, `pool` how long an idle connection
    to an endpoint is kept."""

    connect: float = 2.0
    first_byte: float = 60.0
    idle: float = 300.0
    request: float = 0.0
    body: float = 20.0
    keep_alive: float = 75.0
    head: float = 10.0
    tunnel: float = 3600.0
    pool: float = 60.0


class Retries(Frozen, frozen=True):
    """Retry policy. `attempts` counts tries after the first. The budget follows Finagle's:
    retries may be `budget` of the requests, plus `reserve` a second. `status` lists response
    codes that count as a failure worth a retry of an idempotent request. `hedge_after` > 0
    sends an idempotent request a second time after that long without a first byte."""

    attempts: int = 2
    budget: float = 0.2
    reserve: float = 10.0
    body_limit: int = 65536
    status: tuple[int, ...] = (502, 503)
    hedge_after: float = 0.0


class Limits(Frozen, frozen=True):
    """Bounds; 0 means no bound (of `pending`: that nothing waits). They hold for all workers
    together. `pending` is the queue in front of a service whose endpoints are all at their
    limit. `body` bounds a request's body in bytes."""

    endpoint_connections: int = 0
    endpoint_in_flight: int = 0
    service_in_flight: int = 0
    pending: int = 1024
    pending_timeout: float = 5.0
    adaptive: bool = False
    body: int = 0


class Parking(Frozen, frozen=True):
    """Requests that wait while a service has no ready endpoint; bounded three ways."""

    requests: int = 1024
    bytes: int = 16 * 1024 * 1024
    timeout: float = 10.0


class Ejection(Frozen, frozen=True):
    """Passive outlier ejection; the defaults are Envoy's unless noted. `consecutive` counts
    failures in a row (connect errors, resets, timeouts and 5xx). `share` bounds the part of
    the endpoints that may be out at once; the last endpoint is never ejected."""

    consecutive: int = 5
    base: float = 5.0
    longest: float = 300.0
    share: float = 0.5
    success_rate: bool = True
    latency_factor: float = 0.0


class HeaderEdit(Frozen, frozen=True):
    """Header fields to set (replacing), add and remove, in that order."""

    set: tuple[tuple[str, str], ...] = ()
    add: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()


class RateLimit(Frozen, frozen=True):
    """Token bucket: `rate` requests a second, `burst` at once, one bucket a key."""

    rate: float
    burst: float
    key: HashKey = HashKey()


class Fault(Frozen, frozen=True):
    """Injected fault for a share of requests: a delay in seconds, or an abort with a status."""

    share: float = 0.0
    delay: float = 0.0
    abort: int = 0


class Target(Frozen, frozen=True):
    """A route's destination: a service, one revision of it (or any, when empty), a weight. A
    revision that has no endpoint to offer leaves its requests to the others."""

    service: str
    revision: str = ""
    weight: float = 1.0


class Match(Frozen, frozen=True):
    """One header or cookie condition of a route; an empty `value` means present."""

    source: Literal["header", "cookie"]
    name: str
    value: str = ""


class Split(Frozen, frozen=True):
    """How revisions of a service share its requests, wherever those come from: revision →
    weight. Requests that meet all of `matches` (if any) go to the revision `matched` instead.
    A revision that has no endpoint to offer leaves its requests to the others."""

    weights: tuple[tuple[str, float], ...]
    matches: tuple[Match, ...] = ()
    matched: str = ""


class Route(Frozen, frozen=True):
    """Host, path and header match → weighted services.

    `host` is exact, `*.suffix`, or `*`. `path` is a prefix that ends at a segment boundary.
    The most specific wins: exact host, then the longest suffix, then `*`; then the longest
    path; then the most matches; then the order in the snapshot.
    """

    id: str
    targets: tuple[Target, ...]
    host: str = "*"
    path: str = "/"
    matches: tuple[Match, ...] = ()
    strip: bool = False
    replace: str = ""
    redirect: str = ""
    redirect_status: int = 308
    request_headers: HeaderEdit = HeaderEdit()
    response_headers: HeaderEdit = HeaderEdit()
    rate_limit: RateLimit | None = None
    fault: Fault | None = None
    mirror: str = ""
    mirror_share: float = 1.0


class Service(Frozen, frozen=True):
    """A named workload as the data plane sees it. `fingerprint` names this content: two
    services with the same fingerprint are the same, so only changed ones are sent.

    `allow` names the services that may call it through a mesh listener; None lets all. With
    `audit` others may too, and are only counted. `trace`
    starts a W3C trace for requests that come without one, and marks this share of them as
    sampled; None starts none. `split` is None but while revisions are to get a share each.
    """

    name: str
    fingerprint: str
    endpoints: tuple[Endpoint, ...] = ()
    allow: tuple[str, ...] | None = None
    balance: Balance = Balance()
    timeouts: Timeouts = Timeouts()
    retries: Retries = Retries()
    limits: Limits = Limits()
    parking: Parking = Parking()
    ejection: Ejection = Ejection()
    trace: float | None = None
    audit: bool = False
    split: Split | None = None


class Listener(Frozen, frozen=True):
    """An address the workers accept on, and who is calling when a connection comes in there.

    - `public`: clients from outside; requests go by the route table.
    - `mesh`: a network's gateway; the Host names the service called. Who calls is known by the
      source address (`Snapshot.callers`), else by the network: `caller` has it for itself.
      `PROJECT/` stands for a network that several services of a project share, where an
      unknown source is nobody, and so is one that is not of `sources` (networks in CIDR
      notation, none for any): a host takes what comes for its gateways from everywhere.
    - `token`: local processes; the path starts with `/.mesh/TOKEN/SERVICE`, which the proxy
      checks against the credentials and strips. TOKEN tells who calls.

    `address` is `HOST:PORT`, `[V6]:PORT` or `unix:PATH`.
    """

    address: str
    kind: Literal["public", "mesh", "token"] = "public"
    caller: str = ""
    sources: tuple[str, ...] = ()


class Snapshot(Frozen, frozen=True):
    """Everything a worker routes by, at one generation.

    `credentials` maps a token to the name of the service that holds it. `callers` maps a
    replica's source address on the runtime's networks to its service.
    """

    generation: Generation
    services: tuple[Service, ...] = ()
    routes: tuple[Route, ...] = ()
    listeners: tuple[Listener, ...] = ()
    credentials: dict[str, str] = msgspec.field(default_factory=dict)
    callers: dict[str, str] = msgspec.field(default_factory=dict)
    trusted_proxies: tuple[str, ...] = ()


class SnapshotUpdate(Frozen, frozen=True):
    """A snapshot with the services that the receiver already has left out.

    `services` holds the changed ones; `unchanged` names the others as (name, fingerprint). A
    receiver that lacks one of them answers with `Resync` and keeps what it has.
    """

    generation: Generation
    services: tuple[Service, ...] = ()
    unchanged: tuple[tuple[str, str], ...] = ()
    routes: tuple[Route, ...] = ()
    listeners: tuple[Listener, ...] = ()
    credentials: dict[str, str] = msgspec.field(default_factory=dict)
    callers: dict[str, str] = msgspec.field(default_factory=dict)
    trusted_proxies: tuple[str, ...] = ()


class MissingService(Exception):
    """An update leaves out a service that the receiver does not have; it needs all of it."""


def difference(old: Snapshot | None, new: Snapshot) -> SnapshotUpdate:
    """The update that turns `old` into `new`; everything, when `old` is None."""
    known = {(s.name, s.fingerprint) for s in old.services} if old else set()
    return SnapshotUpdate(
        generation=new.generation,
        services=tuple(s for s in new.services if (s.name, s.fingerprint) not in known),
        unchanged=tuple(
            (s.name, s.fingerprint) for s in new.services if (s.name, s.fingerprint) in known
        ),
        routes=new.routes,
        listeners=new.listeners,
        credentials=new.credentials,
        callers=new.callers,
        trusted_proxies=new.trusted_proxies,
    )


def apply(old: Snapshot | None, update: SnapshotUpdate) -> Snapshot:
    """The snapshot that `update` describes, given the one the receiver holds.

    Unchanged services are taken over by identity. Raises MissingService when `old` lacks one.
    """
    have = {(s.name, s.fingerprint): s for s in old.services} if old else {}
    missing = [name for name, fingerprint in update.unchanged if (name, fingerprint) not in have]
    if missing:
        raise MissingService(", ".join(missing))
    kept = tuple(have[key] for key in update.unchanged)
    services = sorted(update.services + kept, key=lambda s: s.name)
    return Snapshot(
        generation=update.generation,
        services=tuple(services),
        routes=update.routes,
        listeners=update.listeners,
        credentials=update.credentials,
        callers=update.callers,
        trusted_proxies=update.trusted_proxies,
    )
