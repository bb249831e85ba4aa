"""The impact of a deployment while it runs: peak resources, drain order, remaining capacity. Pure.

Called by `meshd.control.deploy.preview` with the passes of a simulation (`simulate`). Within one
pass, replicas that start count before replicas that stop are gone, and they are not ready yet when
others are drained: the worst case.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from meshd.model.operation import (
    DrainReplica,
    Operation,
    RemoveReplica,
    ResumeReplica,
    StartReplica,
    StopReplica,
)
from meshd.model.replica import Replica, Version
from meshd.model.replica_phase import ENDED, Phase
from meshd.model.scaling import Traffic
from meshd.model.service_key import ServiceKey

# Bytes.
GIB: Final = 1 << 30
MIB: Final = 1 << 20
NAMED: Final = 12
"""Replicas that a drain order names at most; longer lists are hard to read."""
ReplicaLimits = tuple[float, int]
"""Limits of one replica: cores, and bytes of memory; 0: no limit."""


class ResourceSum(msgspec.Struct, frozen=True):
    """A number of replicas, and the sum of their limits: cores, and bytes of memory."""

    replicas: int
    cpus: float
    memory: int

    def __str__(self) -> str:
        parts = [f"{self.replicas} replicas"]
        parts += [f"{self.cpus:g} CPUs"] if self.cpus else []
        parts += [_format_size(self.memory)] if self.memory else []
        return ", ".join(parts)


def _format_size(memory: int) -> str:
    return f"{memory / GIB:.2f} GiB" if memory >= GIB else f"{memory / MIB:.0f} MiB"


class _Walk:
    """Applies pass after pass, and remembers the extremes.

    - `running`: version of each running replica; `ready`: names of ready ones.
    - `drained`: drained replicas by service key, in order.
    - `fewest`: least number of ready replicas by service key.
    - `before`, `peak`: resources at the start, and the most of each.
    """

    def __init__(
        self, replicas: Sequence[Replica], limits: Mapping[Version, ReplicaLimits]
    ) -> None:
        self.running = {r.name: (r.key, r.revision) for r in replicas if r.phase not in ENDED}
        self.ready = {r.name for r in replicas if r.phase is Phase.READY}
        self.drained: dict[ServiceKey, list[str]] = {}
        self.fewest: dict[ServiceKey, int] = {}
        self._limits = limits
        self._keys = {r.name: r.key for r in replicas}
        self.before = self.peak = self.current()

    def current(self) -> ResourceSum:
        """Return the resources of the running replicas."""
        found = [self._limits.get(version, (0.0, 0)) for version in self.running.values()]
        cpus, memory = sum(each[0] for each in found), sum(each[1] for each in found)
        return ResourceSum(len(found), cpus, memory)

    def apply(self, operations: Sequence[Operation]) -> None:
        """Apply one pass."""
        started = {op.name: op for op in operations if isinstance(op, StartReplica)}
        self.running |= {name: (op.key, op.revision) for name, op in started.items()}
        self._keys |= {name: op.key for name, op in started.items()}
        current = self.current()
        self.peak = ResourceSum(
            max(self.peak.replicas, current.replicas),
            max(self.peak.cpus, current.cpus),
            max(self.peak.memory, current.memory),
        )
        for op in operations:
            if isinstance(op, DrainReplica) and op.name in self.ready:
                self.ready.discard(op.name)
                key = self._keys[op.name]
                self.drained.setdefault(key, []).append(op.name)
                ready = sum(self._keys[name] == key for name in self.ready)
                self.fewest[key] = min(self.fewest.get(key, ready), ready)
            elif isinstance(op, StopReplica | RemoveReplica):
                self.running.pop(op.name, None)
            elif isinstance(op, ResumeReplica):
                self.ready.add(op.name)
        self.ready |= {name for name, op in started.items() if not op.warm}


def describe_impact(
    passes: Sequence[Sequence[Operation]],
    replicas: Sequence[Replica],
    limits: Mapping[Version, ReplicaLimits],
    traffic: Mapping[ServiceKey, Traffic],
) -> list[str]:
    """Describe the impact for people; no lines if no replica starts or stops."""
    walk = _Walk(replicas, limits)
    for operations in passes:
        walk.apply(operations)
    after = walk.current()
    lines = []
    if walk.peak != walk.before or after != walk.before or walk.drained:
        unlimited = sorted(
            {version[0] for version in walk.running.values() if not any(limits.get(version, ()))}
        )
        note = f"; not counted, as they have no limits: {', '.join(unlimited)}" if unlimited else ""
        lines.append(f"at most {walk.peak} at once; now {walk.before}; then {after}{note}")
    for key, names in walk.drained.items():
        lines.append(f"{key}: {_describe_order(names)}; at least {walk.fewest[key]} stay ready")
        lines += _describe_load(key, walk.fewest[key], traffic.get(key))
    return lines


def _describe_order(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"drained in this order: {', '.join(names[:NAMED])}{more}"


def _describe_load(key: ServiceKey, ready: int, traffic: Traffic | None) -> list[str]:
    """Describe whether `ready` replicas can serve the peak traffic."""
    if traffic is None or not traffic.busiest:
        return []
    peak = f"{key}: peak in the last day was {traffic.busiest:.4g} requests/s"
    if traffic.carries is None:
        return [f"{peak}; how many one replica can serve is not known yet"]
    capacity = ready * traffic.carries
    if capacity >= traffic.busiest:
        return [f"{peak}, and {ready} ready replicas can serve {capacity:.4g}"]
    return [
        f"{peak}, and {ready} ready replicas can serve only {capacity:.4g}: at that rate, requests "
        "will wait or be rejected; replace fewer replicas at a time, or run more of them"
    ]
