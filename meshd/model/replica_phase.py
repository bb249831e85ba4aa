"""The phases of a replica's life, as a table.

A phase never goes back within one incarnation (one start of the process): whatever has begun
to leave, leaves. That makes every decision about a replica final and safe to repeat.
"""

from enum import StrEnum
from typing import Final

import msgspec

from meshd.model.runtime import ContainerHealth, ReplicaState


class Phase(StrEnum):
    """Where a replica stands; in order of life. PAUSED answered once and is kept for later.
    FAILED ended without being asked to."""

    PENDING = "pending"
    STARTING = "starting"
    PROBING = "probing"
    PAUSED = "paused"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"
    GONE = "gone"
    FAILED = "failed"


NEXT: Final[dict[Phase, frozenset[Phase]]] = {
    Phase.PENDING: frozenset(set(Phase) - {Phase.PENDING}),
    Phase.STARTING: frozenset(set(Phase) - {Phase.PENDING, Phase.STARTING}),
    Phase.PROBING: frozenset(
        {
            Phase.PAUSED,
            Phase.READY,
            Phase.DRAINING,
            Phase.STOPPING,
            Phase.GONE,
            Phase.FAILED,
        }
    ),
    Phase.PAUSED: frozenset(
        {Phase.READY, Phase.DRAINING, Phase.STOPPING, Phase.GONE, Phase.FAILED}
    ),
    Phase.READY: frozenset({Phase.DRAINING, Phase.STOPPING, Phase.GONE, Phase.FAILED}),
    Phase.DRAINING: frozenset({Phase.STOPPING, Phase.GONE}),
    Phase.STOPPING: frozenset({Phase.GONE}),
    Phase.GONE: frozenset(),
    Phase.FAILED: frozenset(),
}

ALIVE: Final = frozenset({Phase.PENDING, Phase.STARTING, Phase.PROBING, Phase.READY})
ENDED: Final = frozenset({Phase.GONE, Phase.FAILED})


class Facts(msgspec.Struct, frozen=True):
    """What a phase is read from. `answered` is one good probe, ever, of this incarnation (of a
    replica that was paused: since it was woken). `reserve` ones are kept for later."""

    state: ReplicaState | None
    health: ContainerHealth = ContainerHealth.NONE
    addressed: bool = False
    answered: bool = False
    leaving: bool = False
    stop_underway: bool = False
    start_underway: bool = False
    reserve: bool = False


def read(facts: Facts) -> Phase:
    """The phase that the facts alone show, without regard to the past."""
    if facts.state is None:
        return Phase.PENDING if facts.start_underway else Phase.GONE
    if facts.state is ReplicaState.EXITED:
        return Phase.FAILED
    if facts.stop_underway or facts.state is ReplicaState.STOPPING:
        return Phase.STOPPING
    if facts.state is ReplicaState.CREATED:
        return Phase.PENDING if facts.start_underway else Phase.FAILED
    if facts.leaving:
        return Phase.DRAINING
    if not facts.addressed:
        return Phase.STARTING
    if facts.state is ReplicaState.PAUSED:
        return Phase.PAUSED
    if facts.reserve:
        return Phase.PROBING
    healthy = facts.health in (ContainerHealth.NONE, ContainerHealth.HEALTHY)
    return Phase.READY if facts.answered and healthy else Phase.PROBING


def advance(previous: Phase | None, facts: Facts) -> Phase:
    """The next phase: what the facts show, if the table lets `previous` go there.

    An end that was under way is GONE, not FAILED: the table has no way from DRAINING or
    STOPPING to FAILED.
    """
    shown = read(facts)
    if previous is None or shown in NEXT[previous]:
        return shown
    if shown is Phase.FAILED and Phase.GONE in NEXT[previous]:
        return Phase.GONE
    return previous
