"""How requests get to the replicas: balancing, time limits, retries, bounds and ejection."""

from typing import Annotated

from pydantic import Field, field_validator, model_validator

from meshd.spec.model.base import Count, Duration, Model, Share, Size, WholeNumber
from meshd.spec.reader import shorthand
from proxy.wire.snapshot import Algorithm


class Balance(Model):
    """Balancing policy; see `proxy.wire.snapshot.Balance`. `hash_by` is what the hashing
    algorithms hash: `header:NAME`, `cookie:NAME` or `address`."""

    algorithm: Algorithm = "hot-cold"
    hash_by: str = ""
    sticky_cookie: str = ""
    slow_start: Duration = 0.0
    panic: Share = 0.5

    _short = model_validator(mode="before")(shorthand.expand_balance)
    _hash_by = field_validator("hash_by")(shorthand.check_hash_by)
    _cookie = field_validator("sticky_cookie")(shorthand.check_cookie)


class Timeouts(Model):
    """Request deadlines; see `proxy.wire.snapshot.Timeouts`. 0 switches one off."""

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
    """Retry policy; see `proxy.wire.snapshot.Retries`."""

    attempts: Annotated[Count, Field(le=10)] = 2
    budget: Share = 0.2
    reserve: Annotated[float, Field(ge=0)] = 10.0
    body_limit: Size = 65536
    status: tuple[Annotated[WholeNumber, Field(ge=500, le=599)], ...] = (502, 503)
    hedge_after: Duration = 0.0


class LimitsSpec(Model):
    """Connection and concurrency bounds; see `proxy.wire.snapshot.Limits`."""

    endpoint_connections: Count = 0
    endpoint_in_flight: Count = 0
    service_in_flight: Count = 0
    pending: Count = 1024
    pending_timeout: Duration = 5.0
    adaptive: bool = False
    body: Size = 0


class ParkingSpec(Model):
    """Waiting for the first ready replica; see `proxy.wire.snapshot.Parking`."""

    requests: Count = 1024
    bytes: Size = 16 * 1024 * 1024
    timeout: Duration = 10.0


class EjectSpec(Model):
    """Passive ejection; see `proxy.wire.snapshot.Ejection`."""

    consecutive: Count = 5
    base: Annotated[Duration, Field(gt=0)] = 5.0
    longest: Annotated[Duration, Field(gt=0)] = 300.0
    share: Share = 0.5
    success_rate: bool = True
    latency_factor: Annotated[float, Field(ge=0)] = 0.0
