"""Values about load, usage and scaling decisions."""

import math
from collections.abc import Iterable
from typing import Final

import msgspec

from meshd.model.base import Value


class Load(Value, frozen=True):
    """What a replica uses: CPU as cores (None: not known yet), memory in bytes."""

    cores: float | None
    memory: int


class ScaleDecision(Value, frozen=True):
    """One decision of the autoscaler, with everything it was made from.

    - `desired` replicas from `at` on, `previous` before; `wanted` is the number before limits.
    - `cause` is a short stable word, `reason` a line for people.
    - `objectives`: what was asked; `signals`: what was seen in the last second; `model`: what
      the policy has learned and reckoned with; `candidates`: what each objective alone wants.
    - `limits`: what changed the number; `rejected`: what else was considered, and why not.
    - `override`: the number set by hand at that time, which counts instead.
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
    """`seconds` of a service from `at` (Unix time) on: the requests that came, the seconds one
    takes when it need not wait (0: not known), how many a replica serves at once, and how long a
    replica takes to start, as learned by then."""

    at: int
    seconds: int
    arrivals: int
    service_time: float
    workers: float
    startup: float


class Sizing(Value, frozen=True):
    """What replicas of a service (`PROJECT/SERVICE`) used since then, of so many readings: cores
    of a replica by quantile, CPU seconds a request (None: none came), the most memory of one, how
    many were killed for memory. Its limits and reservations (0: none), those proposed (0: not
    enough is known), and why."""

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
    """One caller of a service (`PROJECT/SERVICE`, or `unknown`): its calls that got through, those
    that the service's `allow` did not cover at the time, and when it first and last called."""

    caller: str
    calls: int
    uncovered: int
    first: float
    last: float


class Traffic(msgspec.Struct, frozen=True):
    """What came to a service at its busiest (requests a second), and how many of them one replica
    carries (None: not known)."""

    busiest: float
    carries: float | None = None


STEP: Final = math.log(1.1)


LEAST: Final = 0.001
"""Cores below which nothing is told apart."""


class ResourceUsage(msgspec.Struct, kw_only=True):
    """What was read of a service's replicas in some time: so many `samples`, how often which
    bucket of cores, the CPU seconds and the requests of the same time, the most memory that one
    held, and how many were killed for memory. `since` is the first reading (Unix time)."""

    since: float = 0.0
    samples: int = 0
    buckets: dict[int, int] = msgspec.field(default_factory=dict)
    cpu_seconds: float = 0.0
    requests: int = 0
    memory: int = 0
    ooms: int = 0

    def read(self, cores: float | None, memory: int, seconds: float) -> None:
        """One reading of one replica, that stands for so many seconds."""
        self.samples += 1
        self.memory = max(self.memory, memory)
        if cores is not None:
            at = bucket(cores)
            self.buckets[at] = self.buckets.get(at, 0) + 1
            self.cpu_seconds += cores * seconds

    def cores(self, quantile: float) -> float:
        """The cores that a replica used at most in that part of the readings."""
        rank = quantile * sum(self.buckets.values())
        below = 0
        for at in sorted(self.buckets):
            below += self.buckets[at]
            if below >= rank:
                return LEAST * math.exp(at * STEP)
        return 0.0


def bucket(cores: float) -> int:
    """The bucket whose upper end is the next above."""
    return 0 if cores <= LEAST else math.ceil(math.log(cores / LEAST) / STEP - 1e-9)


def merged(parts: Iterable[ResourceUsage]) -> ResourceUsage:
    """All of them together."""
    whole = ResourceUsage()
    for part in parts:
        whole.since = min(whole.since or part.since, part.since)
        whole.samples += part.samples
        for at, count in part.buckets.items():
            whole.buckets[at] = whole.buckets.get(at, 0) + count
        whole.cpu_seconds += part.cpu_seconds
        whole.requests += part.requests
        whole.memory = max(whole.memory, part.memory)
        whole.ooms += part.ooms
    return whole


def cpu_percent(load: Load | None, limit: float) -> float | None:
    """Of the limit in cores; of one core where there is none."""
    if load is None or load.cores is None:
        return None
    return 100.0 * load.cores / (limit or 1.0)
