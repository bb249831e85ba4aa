"""The snapshot: everything that a worker routes by, at one generation.

Compiled by `meshd.publish`, sent through the supervisor, installed by `proxy.request.data_plane`.
A snapshot is never changed, only replaced. Every value here is frozen and is compared and sent by
content. Times are in seconds unless a name says otherwise. Field names are sent and stored, so
they are a contract between versions.
"""

from typing import Literal

import msgspec

from proxy.wire.filters import Filters
from proxy.wire.frozen import Frozen

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
EndpointState = Literal["ready", "draining", "failed"]
HttpVersion = Literal["http1", "h2c", "h2", "auto"]
PathPolicy = Literal["", "strict", "as-is"]


class Generation(Frozen, frozen=True, order=True):
    """Position in the sequence of snapshots; compares as (epoch, number).

    `epoch` grows at each start of a control process, `number` with each snapshot it sends. So a
    restarted control process always continues above the last one.
    """

    epoch: int = 0
    number: int = 0


class Endpoint(Frozen, frozen=True):
    """One replica's address as the proxy sees it.

    - `host`, `port`: IP address and port; `host` is empty for a Unix socket
    - `path`: path of a Unix socket
    - `weight`: relative share of the requests
    - `state`: a draining endpoint gets no new request and finishes its requests. A failed one
      hangs: those of its requests that may be repeated are sent elsewhere at once, the others end
      soon
    - `ready_since`: Unix time at which slow start begins; 0 means long ago
    - `alternatives`: more addresses of the same host, tried if `host` does not accept
    - `server_name`: the name that its TLS certificate must have; empty for that of the service
    - `node`: the machine that it runs on, if others may be lost while this one is not; else empty
    """

    id: str
    host: str
    port: int
    path: str = ""
    revision: str = ""
    weight: float = 1.0
    state: EndpointState = "ready"
    ready_since: float = 0.0
    alternatives: tuple[str, ...] = ()
    server_name: str = ""
    node: str = ""


class UpstreamTls(Frozen, frozen=True):
    """TLS on connections to endpoints. Files are in PEM format and have absolute paths.

    - `ca`: file of the certificates to trust; empty for those of the system
    - `server_name`: the name that is asked for, and that the certificate must have
    - `cert`, `key`: files of the proxy's own certificate and its key; empty for none
    - `insecure`: whether any certificate is accepted
    """

    ca: str = ""
    server_name: str = ""
    cert: str = ""
    key: str = ""
    insecure: bool = False


class HashKey(Frozen, frozen=True):
    """The input of consistent hashing or stickiness: a header, a cookie or the client address."""

    source: Literal["header", "cookie", "address"] = "address"
    name: str = ""


class Balance(Frozen, frozen=True):
    """How an endpoint is chosen.

    - `hash_key`: input of the hash algorithms
    - `sticky_cookie`: name of the cookie that keeps a client on one endpoint; empty for none
    - `slow_start`: seconds in which the weight of a new endpoint grows to its full value
    - `panic`: share of healthy endpoints below which ejection is ignored (Envoy's default is 0.5)
    """

    algorithm: Algorithm = "hot-cold"
    hash_key: HashKey = HashKey()
    sticky_cookie: str = ""
    slow_start: float = 0.0
    panic: float = 0.5


class Timeouts(Frozen, frozen=True):
    """Deadlines in seconds; 0 disables one.

    - `connect`: to open a connection to an endpoint
    - `first_byte`: from the end of the request to the response head
    - `idle`: an origin that sends no part of its response, or reads no part of an upload
    - `request`: the whole exchange, except tunnels and event streams unless set
    - `body`: a client that sends no part of its request body
    - `keep_alive`: idle client connections
    - `head`: a request's head, from the connection or its first byte. The longest of all services
      applies until the service is known
    - `tunnel`: a tunnel in which nothing is sent
    - `pool`: how long an idle connection to an endpoint is kept
    """

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
    """The retry policy of a service.

    - `attempts`: attempts after the first
    - `budget`, `reserve`: Finagle's retry budget: retries may be this share of the requests, plus
      this number per second
    - `body_limit`: bytes of a request body that are buffered for a retry
    - `status`: response codes that are worth a retry of an idempotent request
    - `hedge_after`: seconds without a first byte after which an idempotent request is sent a second
      time; 0 disables hedging
    - `grpc`: status codes of gRPC that are worth a retry of a call without an answer
    """

    attempts: int = 2
    budget: float = 0.2
    reserve: float = 10.0
    body_limit: int = 65536
    status: tuple[int, ...] = (502, 503)
    hedge_after: float = 0.0
    grpc: tuple[int, ...] = ()


class Limits(Frozen, frozen=True):
    """Limits for all workers together; 0 means no limit.

    - `endpoint_connections`: connections to one endpoint
    - `endpoint_in_flight`, `service_in_flight`: requests in flight
    - `pending`: requests that queue while all endpoints are full; 0 means that none waits
    - `pending_timeout`: seconds in the queue
    - `adaptive`: whether endpoints get an adaptive limit
    - `queue`: whether requests wait in the proxy while all endpoints are saturated
    - `body`: bytes of a request body
    """

    endpoint_connections: int = 0
    endpoint_in_flight: int = 0
    service_in_flight: int = 0
    pending: int = 1024
    pending_timeout: float = 5.0
    adaptive: bool = False
    body: int = 0
    queue: bool = True


class Parking(Frozen, frozen=True):
    """Limits of requests that wait while a service has no ready endpoint.

    - `requests`, `bytes`: number of requests, and bytes of their bodies
    - `timeout`: seconds of waiting
    - `on_refusal`: whether an endpoint that accepts no connection counts as not ready, until it
      accepts one
    """

    requests: int = 10_000
    bytes: int = 16 * 1024 * 1024
    timeout: float = 30.0
    on_refusal: bool = False


class Ejection(Frozen, frozen=True):
    """Passive outlier ejection; defaults are Envoy's unless noted.

    - `consecutive`: failures in a row (connect errors, resets, timeouts and 5xx) that eject; 0
      disables the rule
    - `base`, `longest`: seconds of the first ejection (Envoy: 30) and of the longest
    - `share`: share of the endpoints that may be ejected at once (Envoy: 0.1); the last endpoint
      is never ejected
    - `success_rate`: whether success rates are compared
    - `latency_factor`: multiple of the peers' median latency that ejects; 0 disables the rule
    """

    consecutive: int = 5
    base: float = 5.0
    longest: float = 300.0
    share: float = 0.5
    success_rate: bool = True
    latency_factor: float = 0.0


class HeaderEdit(Frozen, frozen=True, omit_defaults=True):
    """Header fields to set (replace), add and remove, in that order.

    - `always`: of responses, also the proxy's own
    """

    set: tuple[tuple[str, str], ...] = ()
    add: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()
    always: bool = True


class RateLimit(Frozen, frozen=True):
    """A token bucket per key: `rate` requests per second on average, `burst` at once."""

    rate: float
    burst: float
    key: HashKey = HashKey()


class Fault(Frozen, frozen=True):
    """A fault for a share of requests: a delay in seconds, or an abort with a status code."""

    share: float = 0.0
    delay: float = 0.0
    abort: int = 0


class Target(Frozen, frozen=True):
    """A destination of a route: a service, one of its revisions (any if empty), and a weight.

    Requests for a revision without a ready endpoint go to the others.
    """

    service: str
    revision: str = ""
    weight: float = 1.0


class Match(Frozen, frozen=True):
    """A header or cookie condition of a route; an empty `value` matches if it is present."""

    source: Literal["header", "cookie"]
    name: str
    value: str = ""


class Split(Frozen, frozen=True):
    """How revisions of a service share its requests, regardless of the route.

    - `weights`: (revision, weight)
    - `matches`, `matched`: requests that meet all conditions (if any) go to this revision instead

    Requests for a revision without a ready endpoint go to the others.
    """

    weights: tuple[tuple[str, float], ...]
    matches: tuple[Match, ...] = ()
    matched: str = ""


class Route(Frozen, frozen=True):
    """A route: host, path and header conditions → weighted services.

    The most specific route wins: exact host, then the longest suffix, then `*`; then the longest
    path; then the most conditions; then the order in the snapshot.

    - `host`: exact, `*.suffix` or `*`
    - `path`: a prefix that ends at a segment boundary
    - `strip`, `replace`: whether the prefix is removed, and its replacement
    - `redirect`, `redirect_status`: target of a redirect, and its status code; empty for none
    - `mirror`, `mirror_share`: service that gets a copy of this share of the requests
    - `paths`: whether paths are refused that go around a guarded route in one of their readings;
      empty leaves it to the listener
    - `background`: whether its requests neither start a service from zero nor count as its load
    - `client_certificate`: whether its requests need a verified client certificate
    - `filters`: further rules; None for none
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
    paths: PathPolicy = ""
    background: bool = False
    client_certificate: bool = False
    filters: Filters | None = None


class Service(Frozen, frozen=True):
    """A service as the data plane sees it.

    - `fingerprint`: identifies this content. Services with equal fingerprints are equal, so that
      only changed ones are sent
    - `allow`: services that may call it through a mesh listener; None allows all
    - `audit`: other services may call it too, and are counted
    - `trace`: start a W3C trace for requests without one and sample this share of them; None
      starts none
    - `split`: traffic split between revisions; None outside of a rollout
    - `protocol`: connections to a `tcp` service are passed on as they are
    - `drain_tunnels`: seconds for which a worker that must go keeps tunnels
    - `tls`: how connections to endpoints are encrypted; None for connections in the clear
    - `http_version`: version of HTTP to endpoints: `h2c` is HTTP/2 in the clear, `h2` HTTP/2 over
      TLS, `auto` what an endpoint with TLS chooses
    - `proxy_protocol`: version of the PROXY header with which connections to endpoints begin; empty
      for none. They then carry requests of one client connection each

    A further port of a service is a service too: it is named `PROJECT/SERVICE:PORT`, and its
    endpoints have the ids of the service's.
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
    protocol: Literal["http", "tcp"] = "http"
    drain_tunnels: float = 3600.0
    tls: UpstreamTls | None = None
    proxy_protocol: Literal["", "v1", "v2"] = ""
    http_version: HttpVersion = "http1"


class CertificateFiles(Frozen, frozen=True, omit_defaults=True):
    """A certificate and its private key, as PEM files.

    - `cert`: path of the certificate, followed by its chain
    - `key`: path of the private key; empty if `cert` holds it too
    - `names`: host names that it is served for, exact or `*.suffix`; empty means those in the
      certificate
    - `version`: changes with the content of the files; receivers read them again then
    - `cert_pem`, `key_pem`: the content, where the sender has read the files; else empty
    """

    cert: str
    key: str = ""
    names: tuple[str, ...] = ()
    version: str = ""
    cert_pem: str = ""
    key_pem: str = ""


class ListenerTls(Frozen, frozen=True, omit_defaults=True):
    """How a listener speaks TLS.

    - `certificates`: the listener's own. The client's server name chooses among these and
      `Snapshot.certificates`: exact names first, then wildcards, else the first certificate
    - `client_ca`: path of the PEM file with the authorities of client certificates; `client` says
      whether clients are asked for a certificate, or must have one
    - `client_ca_pem`: the content of `client_ca`, where the sender has read it; else empty
    - `minimum`: the oldest version of TLS
    - `http2`: whether clients may choose HTTP/2
    - `hsts`: value of the Strict-Transport-Security field of responses; empty for none
    - `handshake_seconds`: deadline of a handshake
    - `handshakes_per_address`: unfinished handshakes of one client address at one worker; 0 means
      no limit
    """

    certificates: tuple[CertificateFiles, ...] = ()
    client_ca: str = ""
    client_ca_pem: str = ""
    client: Literal["none", "optional", "required"] = "none"
    minimum: Literal["1.2", "1.3"] = "1.2"
    http2: bool = True
    hsts: str = ""
    handshake_seconds: float = 10.0
    handshakes_per_address: int = 64


class AcmeChallenge(Frozen, frozen=True, omit_defaults=True):
    """A challenge of a certificate authority that the proxy answers (RFC 8555, RFC 8737).

    - `type`: `http-01` is answered on public listeners without TLS, at
      `/.well-known/acme-challenge/TOKEN` with `key_authorization`. `tls-alpn-01` is answered with
      `certificate` in a handshake that offers the protocol `acme-tls/1`
    - `domain`: the host name to prove
    """

    type: Literal["http-01", "tls-alpn-01"]
    domain: str
    token: str = ""
    key_authorization: str = ""
    certificate: CertificateFiles | None = None


class Listener(Frozen, frozen=True, omit_defaults=True):
    """An address that workers accept on, and how the caller is known.

    `address` is `HOST:PORT`, `[V6]:PORT` or `unix:PATH`. Kinds:

    - `public`: clients from outside; the route table applies.
    - `mesh`: the gateway of a network; Host names the called service. The caller is known by its
      source address (`Snapshot.callers`), else by the network: `caller` is the service that has
      the network for itself. `PROJECT/` means a network shared by services of a project, where an
      unknown source is an unknown caller. So is a source outside of `sources` (networks in CIDR
      notation; empty allows any): a host accepts packets for its gateway addresses from anywhere.
    - `token`: local processes; the path starts with `/.mesh/TOKEN/SERVICE`, which the proxy checks
      against the credentials and strips. TOKEN identifies the caller.
    - `virtual`: connections to virtual addresses, which the host redirects here. The original
      address and port name the called service (`Snapshot.virtual`), whatever Host says. The caller
      is known as at a `mesh` listener.
    - `published`: a port of the host that a service publishes. All connections are for `service`;
      its `allow` list holds for callers whose source address is known. With `server_names`, pairs
      of a server name (exact or `*.suffix`) and a service, connections are TLS that is passed on as
      it is, and lead to the service of the name in their ClientHello; others to `service`, or
      nowhere if that is empty.
    - `peer`: proxies of other nodes, which reach the endpoints of this node here (`proxy.peer`).

    `paths` is the path policy of routes that have none; empty: strict on the routes next to a
    guarded one. `mode` holds the permission bits of a Unix socket's file; None: by the umask.

    `tls` makes it speak TLS; None: clear text. `https_port`: all requests are redirected to the
    same URL with the scheme https at this port, except answers to ACME challenges; 0: none is.

    `proxy_protocol` are the networks in CIDR notation (`unix:` means Unix sockets) from which each
    connection begins with a PROXY header, which names its client. `client` is the address and port
    in it: a worker sets it for one connection, and it is never sent.
    """

    address: str
    kind: Literal["public", "mesh", "token", "virtual", "published", "peer"] = "public"
    caller: str = ""
    sources: tuple[str, ...] = ()
    service: str = ""
    paths: PathPolicy = ""
    mode: int | None = None
    tls: ListenerTls | None = None
    https_port: int = 0
    proxy_protocol: tuple[str, ...] = ()
    client: tuple[str, int] = ("", 0)
    server_names: tuple[tuple[str, str], ...] = ()


class Snapshot(Frozen, frozen=True, omit_defaults=True):
    """Everything a worker routes by, at one generation.

    - `credentials`: token → name of the service that holds it
    - `callers`: a replica's source address on the runtime's networks → name of its service
    - `trusted_proxies`: networks in CIDR notation whose forwarding fields are trusted
    - `via`: whether requests to endpoints have a Via field
    - `virtual`: virtual address as `HOST:PORT` → name of the service that it leads to
    - `certificates`: certificates for all listeners with TLS, besides their own
    - `challenges`: open challenges of a certificate authority
    - `peers`: the port of each node's proxy for those of other nodes, by the node's name in lower
      case; 0: it has none. Endpoints on other nodes are reached through the proxy there
    - `peers_valid_from`: the earliest start of validity of the certificate of a node's proxy (Unix
      time), by node; none: any. One from before is that of a node of the same name that was removed
    - `requires_peers`: whether endpoints on other nodes without a proxy get no connections; if not,
      they get them in clear text
    - `starting`: replicas that take no requests yet, on nodes with a proxy, which lets probes
      through to them
    """

    generation: Generation
    services: tuple[Service, ...] = ()
    routes: tuple[Route, ...] = ()
    listeners: tuple[Listener, ...] = ()
    credentials: dict[str, str] = msgspec.field(default_factory=dict)
    callers: dict[str, str] = msgspec.field(default_factory=dict)
    trusted_proxies: tuple[str, ...] = ()
    via: bool = False
    virtual: dict[str, str] = msgspec.field(default_factory=dict)
    certificates: tuple[CertificateFiles, ...] = ()
    challenges: tuple[AcmeChallenge, ...] = ()
    peers: dict[str, int] = msgspec.field(default_factory=dict)
    peers_valid_from: dict[str, int] = msgspec.field(default_factory=dict)
    requires_peers: bool = False
    starting: tuple[Endpoint, ...] = ()


class SnapshotUpdate(Frozen, frozen=True, omit_defaults=True):
    """A snapshot without the services that the receiver already has.

    `services` holds the changed ones; `unchanged` names the others as (name, fingerprint). A
    receiver that lacks one of them answers with `Resync` and keeps its snapshot.
    """

    generation: Generation
    services: tuple[Service, ...] = ()
    unchanged: tuple[tuple[str, str], ...] = ()
    routes: tuple[Route, ...] = ()
    listeners: tuple[Listener, ...] = ()
    credentials: dict[str, str] = msgspec.field(default_factory=dict)
    callers: dict[str, str] = msgspec.field(default_factory=dict)
    trusted_proxies: tuple[str, ...] = ()
    via: bool = False
    virtual: dict[str, str] = msgspec.field(default_factory=dict)
    certificates: tuple[CertificateFiles, ...] = ()
    challenges: tuple[AcmeChallenge, ...] = ()
    peers: dict[str, int] = msgspec.field(default_factory=dict)
    peers_valid_from: dict[str, int] = msgspec.field(default_factory=dict)
    requires_peers: bool = False
    starting: tuple[Endpoint, ...] = ()


class MissingService(Exception):
    """An update leaves out a service that the receiver lacks; it needs the full snapshot."""


def difference(old: Snapshot | None, new: Snapshot) -> SnapshotUpdate:
    """Return the update that turns `old` into `new`; a full one if `old` is None."""
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
        via=new.via,
        virtual=new.virtual,
        certificates=new.certificates,
        challenges=new.challenges,
        peers=new.peers,
        peers_valid_from=new.peers_valid_from,
        requires_peers=new.requires_peers,
        starting=new.starting,
    )


def apply(old: Snapshot | None, update: SnapshotUpdate) -> Snapshot:
    """Return the snapshot that `update` describes, based on the one that the receiver holds.

    Unchanged services are reused as the same objects. Raises MissingService if `old` lacks one.
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
        via=update.via,
        virtual=update.virtual,
        certificates=update.certificates,
        challenges=update.challenges,
        peers=update.peers,
        peers_valid_from=update.peers_valid_from,
        requires_peers=update.requires_peers,
        starting=update.starting,
    )
