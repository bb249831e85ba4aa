"""What replicas of a service use, in bounded memory, and the limits that this proposes. Pure.

CPU goes into a histogram of buckets a tenth apart, so a quantile is at most a tenth too high;
memory is kept as its highest. Limits are proposed from a week: the CPU limit twice what a
replica used in all but a twentieth of the time, since CPU that is short only takes longer;
memory a quarter above its highest, since memory that is short kills.
"""

import math
from typing import Final

import msgspec

from meshd.model.scaling import ResourceUsage, Sizing
from meshd.spec.model import Resources

ENOUGH: Final = 120
"""Readings before anything is proposed: ten minutes of one replica."""
HEADROOM: Final = 1.25
MIB: Final = 1 << 20
GRAIN: Final = 8 * MIB


def proposed(key: str, use: ResourceUsage, now: Resources) -> Sizing:
    """What was seen of a service, and the limits and reservations that it proposes."""
    usual, most = use.cores_at(0.95), use.cores_at(1.0)
    found = Sizing(
        service=key,
        since=use.since,
        samples=use.samples,
        cpu_p50=use.cores_at(0.5),
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
