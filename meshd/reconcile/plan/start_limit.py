"""Limit how many replicas start at the same time, and choose which start first. Pure.

`plan` applies the limit to all services' starts together. A start costs more than a running
replica: the runtime sets up networks and files, and the program loads. Many simultaneous starts on
few cores delay each other, so that even the most urgent replica is ready as late as the last one. A
replica uses a start slot from its start order until it is ready, but no longer than `START_TIME`
once it runs: one that waits for something else does not block others.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from meshd.model.operation import Operation, StartReplica, Urgency
from meshd.model.replica import Replica
from meshd.model.replica_phase import Phase
from meshd.model.runtime import Node
from meshd.model.service_key import ServiceKey

START_TIME: Final = 2.0
"""Seconds after which a started replica does not use a start slot any more."""
MIN_SLOTS: Final = 2
"""Least number of start slots of a node, so that one slow start does not block all others."""
_STARTING: Final = (Phase.STARTING, Phase.PROBING)


def start_slots(nodes: Iterable[Node], per_node: int = 0) -> int:
    """Return how many replicas may start at the same time on all nodes; 0 (no limit) without nodes.

    `per_node` sets the number for each node; 0: its number of CPUs, at least `MIN_SLOTS`.
    """
    return sum(per_node or max(MIN_SLOTS, math.floor(node.cpus)) for node in nodes)


def used_slots(replicas: Iterable[Replica], now: float) -> int:
    """Return how many start slots are in use."""
    return sum(
        replica.phase is Phase.PENDING
        or (replica.phase in _STARTING and now < replica.created_at + START_TIME)
        for replica in replicas
    )


def limit_starts(
    operations: Sequence[Operation],
    replicas: Sequence[Replica],
    counts: Mapping[ServiceKey, int],
    limit: int,
    now: float,
) -> tuple[list[Operation], dict[ServiceKey, int]]:
    """Return `operations` without the starts that have no slot, and their number by service key.

    More urgent starts go first; among equals, the service with the smallest part of its desired
    number (`counts`). Starts that replace failed replicas wait for each other only, so that no
    growth under way delays them; the others wait for all. A `limit` of 0 allows all starts.
    """
    starts = [op for op in operations if isinstance(op, StartReplica)]
    free = limit - used_slots(replicas, now)
    if not limit or len(starts) <= free:
        return list(operations), {}
    ranked = _rank(starts, replicas, counts)
    healing = [start.name for start in ranked if start.urgency is Urgency.HEAL]
    others = [start.name for start in ranked if start.urgency is not Urgency.HEAL]
    free_to_heal = limit - used_slots((r for r in replicas if r.attempt), now)
    healed = healing[: max(0, free_to_heal)]
    chosen = {*healed, *others[: max(0, free - len(healed))]}
    held: dict[ServiceKey, int] = {}
    for start in starts:
        if start.name not in chosen:
            held[start.key] = held.get(start.key, 0) + 1
    return [op for op in operations if not isinstance(op, StartReplica) or op.name in chosen], held


def _rank(
    starts: Sequence[StartReplica],
    replicas: Iterable[Replica],
    counts: Mapping[ServiceKey, int],
) -> list[StartReplica]:
    """The starts, the first ones first. Each counts as a replica for the next start of its
    service, so that services take turns."""
    running: dict[ServiceKey, int] = {}
    for replica in replicas:
        if replica.phase in (Phase.PENDING, Phase.READY, *_STARTING):
            running[replica.key] = running.get(replica.key, 0) + 1
    ranked = []
    for start in sorted(starts, key=lambda start: start.urgency):
        part = running.get(start.key, 0) / max(1, counts.get(start.key, 1))
        running[start.key] = running.get(start.key, 0) + 1
        ranked.append((start.urgency, part, start))
    return [start for _, _, start in sorted(ranked, key=lambda each: each[:2])]
