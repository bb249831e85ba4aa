"""CPU and memory limits proposed from a week of usage. Pure.

`meshd.control` calls `propose` for `meshd right-size`; the readings come from `meshd.store.usage`.

Only readings of replicas that had work count: an idle night says nothing about the CPU that a
service needs. CPU usage is a histogram with buckets 10 % apart, so a quantile is at most 10 % too
high; of memory only the highest reading is kept. The proposed CPU limit is twice the 95th
percentile, because a lack of CPU only slows a replica down. The proposed memory limit is the
highest reading and a quarter more, because a lack of memory kills it.
"""

import math
from typing import Final

import msgspec

from meshd.model.scaling import ResourceUsage, Sizing
from meshd.spec.model import Resources

MIN_SAMPLES: Final = 120
"""Readings with work before anything is proposed: ten minutes of one replica, at one every 5 s."""
MEMORY_HEADROOM: Final = 1.25
"""Proposed memory limit over the highest reading, which need not be the true peak."""
CPU_HEADROOM: Final = 2
"""Proposed CPU limit over the 95th percentile."""
OOM_GROWTH: Final = 1.5
"""Proposed memory limit over the present one, if it killed replicas: the true need is unknown."""
MIB: Final = 1 << 20
"""Bytes of a MiB."""
MEMORY_STEP: Final = 8 * MIB
"""Bytes that proposed memory is a multiple of, for readable numbers."""
ROUNDING: Final = 1e-9
"""Parts of a step that are rounding errors rather than usage."""


def propose(key: str, use: ResourceUsage, now: Resources) -> Sizing:
    """Return the usage of a service, and the limits and reservations proposed for it. `now` are its
    present ones."""
    p95, most = use.cores_at(0.95), use.cores_at(1.0)
    found = Sizing(
        service=key,
        since=use.since,
        samples=use.samples,
        cpu_p50=use.cores_at(0.5),
        cpu_p95=p95,
        cpu_max=most,
        cpu_per_request=use.cpu_seconds / use.requests if use.requests else None,
        memory_max=use.memory,
        ooms=use.ooms,
        limit_cpus=now.cpus,
        limit_memory=now.memory,
        reserved_cpus=now.reserved_cpus,
        reserved_memory=now.reserved_memory,
    )
    basis = describe_basis(use)
    if use.samples < MIN_SAMPLES:
        reason = f"{basis}; a proposal needs {MIN_SAMPLES} readings with work; try again later"
        return msgspec.structs.replace(found, why=(reason,))
    memory = _round_up(use.memory * MEMORY_HEADROOM, MEMORY_STEP)
    reasons = [
        f"CPU: a replica used at most {p95:.2g} cores for 95 % of the time, {most:.2g} at the peak",
        f"memory: the peak of {use.memory / MIB:.0f} MiB and a quarter more",
    ]
    if use.ooms and now.memory:
        memory = max(memory, _round_up(now.memory * OOM_GROWTH, MEMORY_STEP))
        reasons[1] = f"memory: {use.ooms} replicas ran out of memory; the limit and half of it more"
    return msgspec.structs.replace(
        found,
        proposed_cpus=_round_cores(CPU_HEADROOM * p95),
        proposed_memory=memory,
        proposed_reserved_cpus=_round_cores(p95, 20),
        proposed_reserved_memory=_round_up(use.memory, MEMORY_STEP),
        why=(basis, *reasons),
    )


def describe_basis(use: ResourceUsage) -> str:
    """Return on how much data the figures rest."""
    time = f" ({use.seconds / 60:.3g} minutes of one replica)" if use.seconds else ""
    idle = f"; {use.idle} without work do not count" if use.idle else ""
    return f"{use.samples} readings with work{time}{idle}"


def _round_cores(cores: float, parts: int = 10) -> float:
    """Round up to a multiple of 1/`parts` cores, at least one."""
    return max(1, math.ceil(cores * parts - ROUNDING)) / parts


def _round_up(size: float, step: int) -> int:
    return math.ceil(size / step) * step
