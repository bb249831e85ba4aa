"""How many replicas a machine starts at once, and which come first. Pure.

A start costs more than a running replica does: the runtime sets up its network and files, and
the program loads. Many at once on few cores hold each other up, so that the one that a service
waits for comes no sooner than all the others. A place is taken from the order to start until
the replica is ready, but not for longer than `SETTLE` once it runs: one that waits for something
else does not keep others from starting.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from meshd.model.operation import Operation, StartReplica
from meshd.model.replica import Replica
from meshd.model.replica_phase import Phase
from meshd.model.runtime import Node

SETTLE: Final = 2.0
LEAST: Final = 2
_COMING: Final = (Phase.STARTING, Phase.PROBING)


def places(nodes: Iterable[Node], each: int = 0) -> int:
    """How many may start at once on all nodes together: `each` on a node, or, where that is 0,
    as many as it has CPUs, and two at least. 0, which is without bounds, while no node is
    known."""
    return sum(each or max(LEAST, math.floor(node.cpus)) for node in nodes)


def taken(replicas: Iterable[Replica], now: float) -> int:
    """How many places are taken now."""
    return sum(
        replica.phase is Phase.PENDING
        or (replica.phase in _COMING and now < replica.created_at + SETTLE)
        for replica in replicas
    )


def admit(
    operations: Sequence[Operation],
    replicas: Sequence[Replica],
    counts: Mapping[str, int],
    limit: int,
    now: float,
) -> tuple[list[Operation], dict[str, int]]:
    """`operations` without the starts that have no place yet, and how many of each service
    those are. The more urgent come first; of equal ones, those of the service that has the
    smallest part of its `counts`. With `limit` 0 there are places for all."""
    starts = [op for op in operations if isinstance(op, StartReplica)]
    free = limit - taken(replicas, now)
    if not limit or len(starts) <= free:
        return list(operations), {}
    chosen = {start.name for start in _ranked(starts, replicas, counts)[: max(0, free)]}
    held: dict[str, int] = {}
    for start in starts:
        if start.name not in chosen:
            held[start.key] = held.get(start.key, 0) + 1
    return [op for op in operations if not isinstance(op, StartReplica) or op.name in chosen], held


def _ranked(
    starts: Sequence[StartReplica], replicas: Iterable[Replica], counts: Mapping[str, int]
) -> list[StartReplica]:
    """The starts, those that come first at the front. Each counts as there for the next one of
    its service, so that services take turns."""
    there: dict[str, int] = {}
    for replica in replicas:
        if replica.phase in (Phase.PENDING, Phase.READY, *_COMING):
            there[replica.key] = there.get(replica.key, 0) + 1
    ranked = []
    for start in sorted(starts, key=lambda start: start.urgency):
        part = there.get(start.key, 0) / max(1, counts.get(start.key, 1))
        there[start.key] = there.get(start.key, 0) + 1
        ranked.append((start.urgency, part, start))
    return [start for _, _, start in sorted(ranked, key=lambda each: each[:2])]
