"""What a deployment means on its way: the peak of CPU and memory, which replicas go in which
order, and whether those that are left carry the load. Pure.

Read from a forecast. Within one of its passes what is started counts before what is stopped goes,
and is not ready yet when others are drained: the worst of what may happen.
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

GIB: Final = 1 << 30
NAMED: Final = 12
"""So many replicas are named in an order; of more, how many."""
Weight = tuple[float, int]
"""What one replica may use: cores, and bytes of memory."""


class Sum(msgspec.Struct, frozen=True):
    """So many replicas, and what they may use together."""

    replicas: int
    cpus: float
    memory: int

    def __str__(self) -> str:
        parts = [f"{self.replicas} replicas"]
        parts += [f"{self.cpus:g} CPUs"] if self.cpus else []
        parts += [_size(self.memory)] if self.memory else []
        return ", ".join(parts)


def _size(memory: int) -> str:
    return f"{memory / GIB:.2f} GiB" if memory >= GIB else f"{memory / 2**20:.0f} MiB"


class _Way:
    """Goes through the passes, and remembers the extremes."""

    def __init__(self, replicas: Sequence[Replica], weights: Mapping[Version, Weight]) -> None:
        self.running = {r.name: (r.key, r.revision) for r in replicas if r.phase not in ENDED}
        self.ready = {r.name for r in replicas if r.phase is Phase.READY}
        self.left: dict[str, list[str]] = {}
        self.fewest: dict[str, int] = {}
        self._weights = weights
        self._keys = {r.name: r.key for r in replicas}
        self.before = self.peak = self.now()

    def now(self) -> Sum:
        found = [self._weights.get(version, (0.0, 0)) for version in self.running.values()]
        cpus, memory = sum(each[0] for each in found), sum(each[1] for each in found)
        return Sum(len(found), cpus, memory)

    def go(self, operations: Sequence[Operation]) -> None:
        """One pass."""
        started = {op.name: op for op in operations if isinstance(op, StartReplica)}
        self.running |= {name: (op.key, op.revision) for name, op in started.items()}
        self._keys |= {name: op.key for name, op in started.items()}
        now = self.now()
        self.peak = Sum(
            max(self.peak.replicas, now.replicas),
            max(self.peak.cpus, now.cpus),
            max(self.peak.memory, now.memory),
        )
        for op in operations:
            if isinstance(op, DrainReplica) and op.name in self.ready:
                self.ready.discard(op.name)
                key = self._keys[op.name]
                self.left.setdefault(key, []).append(op.name)
                ready = sum(self._keys[name] == key for name in self.ready)
                self.fewest[key] = min(self.fewest.get(key, ready), ready)
            elif isinstance(op, StopReplica | RemoveReplica):
                self.running.pop(op.name, None)
            elif isinstance(op, ResumeReplica):
                self.ready.add(op.name)
        self.ready |= {name for name, op in started.items() if not op.reserve}


def outlook(
    passes: Sequence[Sequence[Operation]],
    replicas: Sequence[Replica],
    weights: Mapping[Version, Weight],
    traffic: Mapping[str, Traffic],
) -> list[str]:
    """Lines for people; none when nothing is started or stopped. `weights` are what replicas of
    each revision may use, `traffic` is by service key."""
    way = _Way(replicas, weights)
    for operations in passes:
        way.go(operations)
    after = way.now()
    lines = []
    if way.peak != way.before or after != way.before or way.left:
        unbounded = sorted(
            {version[0] for version in way.running.values() if not any(weights.get(version, ()))}
        )
        aside = (
            f"; without limits, and not in the sums: {', '.join(unbounded)}" if unbounded else ""
        )
        lines.append(f"on the way at most {way.peak}; now {way.before}; then {after}{aside}")
    for key, names in way.left.items():
        lines.append(f"{key}: {_order(names)}; at least {way.fewest[key]} stay ready")
        lines += _load(key, way.fewest[key], traffic.get(key))
    return lines


def _order(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"leave in this order: {', '.join(names[:NAMED])}{more}"


def _load(key: str, ready: int, seen: Traffic | None) -> list[str]:
    """Whether that many carry what comes."""
    if seen is None or not seen.busiest:
        return []
    busiest = f"{key}: up to {seen.busiest:.4g} requests/s came in the last day"
    if seen.carries is None:
        return [f"{busiest}; how many a replica carries is not known yet"]
    whole = ready * seen.carries
    if whole >= seen.busiest:
        return [f"{busiest}, and {ready} ready ones carry {whole:.4g}"]
    return [
        f"{busiest}, and {ready} ready ones carry only {whole:.4g}: requests will wait or be "
        "turned away if as many come; replace fewer at a time, or have more of them"
    ]
