"""How many replicas the nodes get ready at the same time, learned from their starts. Pure.

`meshd.scaling.controller` calls `observe` every second with all replicas, and orders no more than
`start_capacity`, including those under way. A start takes CPU and disk. If more replicas start than
the nodes carry, each takes longer in proportion, so that none is ready earlier, and one that
replaces a failed replica is late too.

Method: the time that a start of a service takes at best is its work. The work of all starts of a
busy period, divided by the length of the period, is the number of starts that the nodes carried at
full speed. A bit more than the most that was seen is allowed, so that the number grows while starts
do not slow each other down.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from meshd.model.replica import Replica
from meshd.model.replica_phase import Phase
from meshd.model.service_key import ServiceKey

MEMORY: Final = 600.0
"""Seconds that a start is remembered: the load of the nodes by others changes within minutes."""
GROWTH: Final = 1.5
"""Factor on the starts carried at full speed: enough to notice that the nodes carry more, while no
start takes more than half longer."""
FIRST_PER_SLOT, MOST_PER_SLOT = 2, 16
"""Starts per start slot (usually a CPU) before any start was seen, and at most: programs that only
wait while they start take hardly any CPU."""
FIRST_PATIENCE: Final = 30.0
"""Seconds for which a start counts as under way while no start of its service was seen."""
PATIENCE: Final = 2.0
"""Longest start of a service that was seen × this: seconds for which a start counts as under way.
One that hangs or fails must not hold up the others."""
MIN_WORK: Final = 0.1
"""Least seconds of work of a start: probes are not more precise."""
_STARTING: Final = (Phase.PENDING, Phase.STARTING, Phase.PROBING)


@dataclass(frozen=True, slots=True)
class ReplicaStart:
    """A start that has ended: `key` of the service, and when it `began` and was `ready` (Unix time,
    seconds)."""

    key: ServiceKey
    began: float
    ready: float

    @property
    def seconds(self) -> float:
        """Duration of the start."""
        return max(self.ready - self.began, MIN_WORK)


def observe(
    old: tuple[ReplicaStart, ...],
    replicas: Iterable[Replica],
    first: float,
    since: float,
    now: float,
) -> tuple[ReplicaStart, ...]:
    """Return the remembered starts, with those that began after `first` and ended after `since`
    (Unix times). When an earlier start ended is not known after a restart of meshd."""
    ended = [
        ReplicaStart(each.key, each.created_at, each.ready_since)
        for each in replicas
        if since < each.ready_since <= now
        and each.managed
        and not each.resumed_at
        and first <= each.created_at <= each.ready_since
    ]
    if not ended and (not old or old[0].ready > now - MEMORY):
        return old
    kept = [each for each in old if now - MEMORY < each.ready <= now]
    return tuple(sorted([*kept, *ended], key=lambda each: each.ready))


def start_capacity(starts: Iterable[ReplicaStart], slots: int) -> int:
    """Return how many replicas may be on their way at the same time; `slots` is the number that
    always may. Without any start seen it is `FIRST_PER_SLOT` times that."""
    carried = _most_carried(starts)
    if carried is None:
        return FIRST_PER_SLOT * slots
    return min(max(math.ceil(GROWTH * carried), slots), MOST_PER_SLOT * slots)


def starts_under_way(
    replicas: Iterable[Replica], starts: Iterable[ReplicaStart], now: float
) -> dict[ServiceKey, int]:
    """Return the replicas that are about to be ready, by service key."""
    longest: dict[ServiceKey, float] = {}
    for start in starts:
        longest[start.key] = max(longest.get(start.key, 0.0), start.seconds)
    counts: dict[ServiceKey, int] = {}
    for replica in replicas:
        if replica.phase not in _STARTING or not replica.managed:
            continue
        key = replica.key
        if now - (replica.created_at or replica.since) < patience(longest.get(key)):
            counts[key] = counts.get(key, 0) + 1
    return counts


def patience(longest: float | None) -> float:
    """Return for how many seconds a start counts as under way. `longest`: seconds of the longest
    start of its service that was seen; None: none was."""
    return FIRST_PATIENCE if longest is None else max(PATIENCE * longest, 1.0)


def grant_starts(
    wanted: Mapping[ServiceKey, int],
    priorities: Mapping[ServiceKey, int],
    free: int,
) -> dict[ServiceKey, int]:
    """Return how many of the `wanted` replicas each service may order, if `free` more may be on
    their way. Higher priorities come first; among equals services take turns, by key."""
    granted = dict.fromkeys(wanted, 0)
    for priority in sorted({priorities.get(key, 0) for key in wanted}, reverse=True):
        turn = sorted(key for key in wanted if priorities.get(key, 0) == priority)
        while turn and free > 0:
            turn = [key for key in turn if granted[key] < wanted[key]]
            for key in turn[:free]:
                granted[key] += 1
            free -= min(free, len(turn))
    return granted


def _most_carried(starts: Iterable[ReplicaStart]) -> float | None:
    """Return the most starts that were carried at full speed in a busy period; None without any."""
    ordered = sorted(starts, key=lambda each: each.began)
    if not ordered:
        return None
    work: dict[ServiceKey, float] = {}
    for start in ordered:
        work[start.key] = min(work.get(start.key, start.seconds), start.seconds)
    most = total = 0.0
    begun, end = ordered[0].began, ordered[0].began
    for start in ordered:
        if start.began > end:
            total, begun = 0.0, start.began
        total += work[start.key]
        end = max(end, start.began + start.seconds)
        most = max(most, total / (end - begun))
    return most
