"""How requests reach the replicas: balancing, timeouts, retries, limits, parking and ejection.

Part of `meshd.spec.model.mesh`. `meshd.publish.compile` turns these into the proxy's own structs in
`proxy.wire.snapshot`; what each policy does is described there.
"""

from typing import Annotated

from pydantic import Field, field_validator, model_validator

from meshd.spec.model.base import Count, Duration, Model, Share, Size, WholeNumber
from meshd.spec.reader import shorthand
from proxy.wire.snapshot import Algorithm


class Balance(Model):
    """The balancing policy; see `proxy.wire.snapshot.Balance`.

    - `algorithm`: how to pick an endpoint
    - `hash_by`: what `ring-hash` and `maglev` hash: `header:NAME`, `cookie:NAME` or `address`.
      Default: the client's address
    - `sticky_cookie`: the name of a cookie that keeps a client on its replica. Default: none
    - `slow_start`: seconds in which a new replica's share of the traffic grows
    - `panic`: the share of healthy replicas below which ejection is ignored, 0 to 1
    """

    algorithm: Algorithm = "hot-cold"
    hash_by: str = ""
    sticky_cookie: str = ""
    slow_start: Duration = 0.0
    panic: Share = 0.5

    _short = model_validator(mode="before")(shorthand.expand_balance)
    _hash_by = field_validator("hash_by")(shorthand.check_hash_by)
    _cookie = field_validator("sticky_cookie")(shorthand.check_cookie)


class Timeouts(Model):
    """Timeouts in seconds; see `proxy.wire.snapshot.Timeouts`. 0 disables one.

    - `connect`: connecting to a replica
    - `first_byte`: from the end of the request to the head of the response
    - `idle`: between two reads of a body
    - `request`: the whole exchange
    - `body`: a client that sends nothing in the middle of an upload
    - `keep_alive`: a client connection between two requests
    - `head`: the head of a request; the longest of all services applies
    - `tunnel`: a tunnel (WebSocket) without any data
    - `pool`: an idle connection to a replica
    """

    connect: Duration = 2.0
    first_byte: Duration = 60.0
    idle: Duration = 300.0
    request: Duration = 0.0
    body: Annotated[Duration, Field(gt=0)] = 20.0
    keep_alive: Annotated[Duration, Field(gt=0)] = 75.0
    head: Annotated[Duration, Field(gt=0)] = 10.0
    tunnel: Duration = 3600.0
    pool: Annotated[Duration, Field(gt=0)] = 60.0


class Retries(Model):
    """The retry policy; see `proxy.wire.snapshot.Retries`.

    - `attempts`: attempts after the first
    - `budget`: retries as a share of the requests
    - `reserve`: retries per second in addition to the budget
    - `body_limit`: request bodies above this size in bytes are not kept for a retry
    - `status`: status codes that cause a retry of an idempotent request
    - `hedge_after`: seconds without a response after which an idempotent request is sent a second
      time; 0 means never
    - `grpc`: status codes of gRPC, such as UNAVAILABLE, that cause a retry of a call that got
      nothing else. Default: none
    """

    attempts: Annotated[Count, Field(le=10)] = 2
    budget: Share = 0.2
    reserve: Annotated[float, Field(ge=0)] = 10.0
    body_limit: Size = 65536
    status: tuple[Annotated[WholeNumber, Field(ge=500, le=599)], ...] = (502, 503)
    hedge_after: Duration = 0.0
    grpc: tuple[str, ...] = ()

    _many_codes = field_validator("grpc", mode="before")(shorthand.wrap_in_list)
    _codes = field_validator("grpc")(shorthand.check_grpc_codes)


class LimitsSpec(Model):
    """Limits on connections and concurrency; see `proxy.wire.snapshot.Limits`. 0 means no limit.

    - `endpoint_connections`: connections to a replica
    - `endpoint_in_flight`: requests in flight at a replica
    - `service_in_flight`: requests in flight at the service
    - `pending`: requests that wait while every replica is at its limit
    - `pending_timeout`: seconds that they wait
    - `adaptive`: derive the limit of each replica from its latency
    - `body`: bytes of a request body
    - `queue`: keep requests in the proxy while every replica is saturated
    """

    endpoint_connections: Count = 0
    endpoint_in_flight: Count = 0
    service_in_flight: Count = 0
    pending: Count = 1024
    pending_timeout: Duration = 5.0
    adaptive: bool = False
    body: Size = 0
    queue: bool = True


class ParkingSpec(Model):
    """Requests that wait while no replica is ready; see `proxy.wire.snapshot.Parking`.

    - `requests`: the number of requests that may wait
    - `bytes`: the total size of their bodies
    - `timeout`: seconds that they wait; the default is enough for a restart of the engine
    """

    requests: Count = 10_000
    bytes: Size = 16 * 1024 * 1024
    timeout: Duration = 30.0


class EjectSpec(Model):
    """Passive health checks: replicas that fail requests get none for some time; see
    `proxy.wire.snapshot.Ejection`.

    - `consecutive`: consecutive failures that eject a replica; 0 means never
    - `base`: seconds of the first ejection
    - `longest`: seconds of the longest ejection
    - `share`: the share of the replicas that may be ejected at once; never the last one
    - `success_rate`: also eject replicas that fail far more often than the others
    - `latency_factor`: also eject replicas that are this many times slower than the others; 0
      means never
    """

    consecutive: Count = 5
    base: Annotated[Duration, Field(gt=0)] = 5.0
    longest: Annotated[Duration, Field(gt=0)] = 300.0
    share: Share = 0.5
    success_rate: bool = True
    latency_factor: Annotated[float, Field(ge=0)] = 0.0
