"""What replicas of a service use, in bounded memory, and the limits that this proposes. Pure.

CPU goes into a histogram of buckets a tenth apart, so a quantile is at most a tenth too high;
memory is kept as its highest. Limits are proposed from a week: the CPU limit twice what a
replica used in all but a twentieth of the time, since CPU that is short only takes longer;
memory a quarter above its highest, since memory that is short kills.
"""

import math
from collections.abc import Iterable
from typing import Final

import msgspec

from meshd.api.model import Sizing
from meshd.spec.model import Resources

STEP: Final = math.log(1.1)
LEAST: Final = 0.001
"""Cores below which nothing is told apart."""
ENOUGH: Final = 120
"""Readings before anything is proposed: ten minutes of one replica."""
HEADROOM: Final = 1.25
MIB: Final = 1 << 20
GRAIN: Final = 8 * MIB


class Use(msgspec.Struct, kw_only=True):
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


def merged(parts: Iterable[Use]) -> Use:
    """All of them together."""
    whole = Use()
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


def proposed(key: str, use: Use, now: Resources) -> Sizing:
    """What was seen of a service, and the limits and reservations that it proposes."""
    usual, most = use.cores(0.95), use.cores(1.0)
    found = Sizing(
        service=key,
        since=use.since,
        samples=use.samples,
        cpu_p50=use.cores(0.5),
        cpu_p95=usual,
        cpu_max=most,
        cpu_per_request=use.cpu_seconds / use.requests if use.requests else None,
        memory_max=use.memory,
        ooms=use.ooms,
        limit_cpus=now.cpus,
        limit_memory=now.memory,
        reserved_cpus=now.reserved_cpus,
        reserved_memory=now.reserved_memory,
    )
    if use.samples < ENOUGH:
        short = f"{use.samples} of {ENOUGH} readings; ask again later"
        return msgspec.structs.replace(found, why=(short,))
    memory = _up(use.memory * HEADROOM, GRAIN)
    why = [
        f"CPU: a replica used {usual:.2g} cores or less 95 % of the time, {most:.2g} at most",
        f"memory: {use.memory / MIB:.0f} MiB at most, and a quarter more",
    ]
    if use.ooms and now.memory:
        memory = max(memory, _up(now.memory * 1.5, GRAIN))
        why[1] = f"memory: {use.ooms} killed for memory; half more than its limit"
    return msgspec.structs.replace(
        found,
        proposed_cpus=_tenths(2 * usual),
        proposed_memory=memory,
        proposed_reserved_cpus=_tenths(usual, 20),
        proposed_reserved_memory=_up(use.memory, GRAIN),
        why=tuple(why),
    )


def _tenths(cores: float, parts: int = 10) -> float:
    return max(1, math.ceil(cores * parts - 1e-9)) / parts


def _up(size: float, grain: int) -> int:
    return math.ceil(size / grain) * grain
