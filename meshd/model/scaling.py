"""Values about load, resource usage and scaling decisions. Pure.

`meshd.scaling` and `meshd.telemetry` make them, `meshd.store` keeps some of them, and the API
answers with them.
"""

import math
from collections.abc import Iterable
from typing import Final

import msgspec

from meshd.model.base import Value


class Load(Value, frozen=True):
    """CPU and memory that a replica uses now.

    - `cores`: CPU; None: not known yet.
    - `memory`: bytes.
    """

    cores: float | None
    memory: int


class ScaleDecision(Value, frozen=True):
    """One decision of the autoscaler, with everything it was made from.

    - `at`: Unix time in seconds.
    - `desired`: replicas from then on; `previous`: before; `wanted`: before limits.
    - `cause`: a short stable word; `reason`: a line for people.
    - `objectives`: the objectives of the spec; `signals`: the last second of traffic; `model`: what
      the policy has learned; `candidates`: the number that each objective alone asks for.
    - `limits`: what changed the number; `rejected`: other numbers, and why they were rejected.
    - `override`: the number that a user set, which was in force instead; None: none.
    """

    at: float
    desired: int
    previous: int
    wanted: int
    cause: str
    reason: str
    objectives: tuple[str, ...] = ()
    signals: dict[str, float] = msgspec.field(default_factory=dict)
    model: dict[str, float] = msgspec.field(default_factory=dict)
    candidates: dict[str, int] = msgspec.field(default_factory=dict)
    limits: tuple[str, ...] = ()
    rejected: tuple[str, ...] = ()
    override: int | None = None


class TrafficSpan(Value, frozen=True):
    """A service's traffic in some seconds.

    - `at`: start (Unix time, seconds); `seconds`: length.
    - `arrivals`: requests that arrived.
    - `service_time`: seconds that one request takes without queueing; 0: not known.
    - `workers`: requests that a replica serves at the same time.
    - `startup`: seconds that a replica takes to start, as learned by then.
    """

    at: int
    seconds: int
    arrivals: int
    service_time: float
    workers: float
    startup: float


class Sizing(Value, frozen=True):
    """Resource usage of a service's replicas, and the limits that it suggests.

    - `service`: service key; `since`: Unix time in seconds; `samples`: number of readings.
    - `cpu_p50`, `cpu_p95`, `cpu_max`: cores of one replica.
    - `cpu_per_request`: CPU seconds; None: no requests.
    - `memory_max`: most bytes of one replica; `ooms`: replicas killed for lack of memory.
    - `limit_*`, `reserved_*`: configured limits and reservations; 0: none.
    - `proposed_*`: proposed ones; 0: not enough data.
    - `why`: the reasons for the proposals.
    """

    service: str
    since: float
    samples: int
    cpu_p50: float
    cpu_p95: float
    cpu_max: float
    cpu_per_request: float | None
    memory_max: int
    ooms: int
    limit_cpus: float
    limit_memory: int
    reserved_cpus: float
    reserved_memory: int
    proposed_cpus: float = 0.0
    proposed_memory: int = 0
    proposed_reserved_cpus: float = 0.0
    proposed_reserved_memory: int = 0
    why: tuple[str, ...] = ()


class CallerSeen(Value, frozen=True):
    """One caller of a service.

    - `caller`: its service key, or `unknown`.
    - `calls`: calls that were let through; `uncovered`: those that the service's `allow` did not
      cover at the time.
    - `first`, `last`: times of its first and last call (Unix time, seconds).
    """

    caller: str
    calls: int
    uncovered: int
    first: float
    last: float


class Traffic(msgspec.Struct, frozen=True):
    """A service's peak traffic and its replicas' capacity.

    - `busiest`: requests per second at the peak.
    - `carries`: requests per second that one replica can serve; None: not known.
    """

    busiest: float
    carries: float | None = None


LOG_BUCKET_RATIO: Final = math.log(1.1)
"""Logarithm of the ratio of neighbouring buckets: readings are exact to 10 %."""


MIN_CORES: Final = 0.001
"""Cores up to which all readings share the first bucket."""


class ResourceUsage(msgspec.Struct, kw_only=True):
    """Readings of a service's replicas in some time.

    - `since`: first reading (Unix time, seconds); `samples`: number of readings while the service
      had work; `idle`: of the others.
    - `seconds`: time with work, over all replicas; 0 for readings of earlier versions.
    - `buckets`: the readings with work by bucket of cores (see `cores_bucket`).
    - `cpu_seconds`, `requests`: CPU seconds and requests in the same time.
    - `memory`: most bytes of one replica; `ooms`: replicas killed for lack of memory.
    """

    since: float = 0.0
    samples: int = 0
    idle: int = 0
    seconds: float = 0.0
    buckets: dict[int, int] = msgspec.field(default_factory=dict)
    cpu_seconds: float = 0.0
    requests: int = 0
    memory: int = 0
    ooms: int = 0

    def add_reading(self, cores: float | None, memory: int, seconds: float) -> None:
        """Add one reading of one replica, which holds for `seconds`."""
        self.samples += 1
        self.seconds += seconds
        self.memory = max(self.memory, memory)
        if cores is not None:
            bucket = cores_bucket(cores)
            self.buckets[bucket] = self.buckets.get(bucket, 0) + 1
            self.cpu_seconds += cores * seconds

    def add_idle_reading(self, memory: int) -> None:
        """Add a reading of a replica without work: it says nothing about the CPU that work needs,
        and its memory counts."""
        self.idle += 1
        self.memory = max(self.memory, memory)

    def cores_at(self, quantile: float) -> float:
        """Return the cores at a quantile (0..1) of the readings; 0 without readings."""
        rank = quantile * sum(self.buckets.values())
        below = 0
        for bucket in sorted(self.buckets):
            below += self.buckets[bucket]
            if below >= rank:
                return MIN_CORES * math.exp(bucket * LOG_BUCKET_RATIO)
        return 0.0


def cores_bucket(cores: float) -> int:
    """Return the bucket that contains this number of cores."""
    if cores <= MIN_CORES:
        return 0
    # The tolerance keeps a number on a boundary in the lower bucket.
    return math.ceil(math.log(cores / MIN_CORES) / LOG_BUCKET_RATIO - 1e-9)


def merge_usage(parts: Iterable[ResourceUsage]) -> ResourceUsage:
    """Return the readings of all `parts` together."""
    total = ResourceUsage()
    for part in parts:
        total.since = min(total.since or part.since, part.since)
        total.samples += part.samples
        total.idle += part.idle
        total.seconds += part.seconds
        for bucket, count in part.buckets.items():
            total.buckets[bucket] = total.buckets.get(bucket, 0) + count
        total.cpu_seconds += part.cpu_seconds
        total.requests += part.requests
        total.memory = max(total.memory, part.memory)
        total.ooms += part.ooms
    return total


def cpu_percent(load: Load | None, limit: float) -> float | None:
    """Return CPU usage in percent of the limit (cores; 0: of one core); None if unknown."""
    if load is None or load.cores is None:
        return None
    return 100.0 * load.cores / (limit or 1.0)
