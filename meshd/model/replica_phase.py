"""The phases of a replica, with a transition table. Pure.

`meshd.reconcile.observe` moves replicas from phase to phase. A phase never goes back within one
incarnation (one start of the process): a replica that has begun to leave cannot return. So every
decision about a replica is final and safe to repeat.
"""

from enum import StrEnum
from typing import Final

import msgspec

from meshd.model.runtime import ContainerHealth, ReplicaState


class Phase(StrEnum):
    """Phase of a replica, in the usual order. The strings are sent."""

    PENDING = "pending"
    """Its start was ordered."""
    STARTING = "starting"
    """It runs but has no address yet."""
    PROBING = "probing"
    """It has an address but is not healthy yet."""
    PAUSED = "paused"
    """It answered once, and is paused in the warm pool."""
    READY = "ready"
    DRAINING = "draining"
    """It is out of rotation and finishes its requests."""
    STOPPING = "stopping"
    GONE = "gone"
    """It was stopped."""
    FAILED = "failed"
    """It ended by itself."""
    COMPLETED = "completed"
    """It ended by itself with code 0, and is not restarted."""


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
            Phase.COMPLETED,
        }
    ),
    Phase.PAUSED: frozenset(
        {
            Phase.READY,
            Phase.DRAINING,
            Phase.STOPPING,
            Phase.GONE,
            Phase.FAILED,
            Phase.COMPLETED,
        }
    ),
    Phase.READY: frozenset(
        {Phase.DRAINING, Phase.STOPPING, Phase.GONE, Phase.FAILED, Phase.COMPLETED}
    ),
    Phase.DRAINING: frozenset({Phase.STOPPING, Phase.GONE}),
    Phase.STOPPING: frozenset({Phase.GONE}),
    Phase.GONE: frozenset(),
    Phase.FAILED: frozenset(),
    Phase.COMPLETED: frozenset(),
}
"""The phases that can follow each phase. Phases may be skipped: a pass can miss some."""

ALIVE: Final = frozenset({Phase.PENDING, Phase.STARTING, Phase.PROBING, Phase.READY})
ENDED: Final = frozenset({Phase.GONE, Phase.FAILED, Phase.COMPLETED})


class Facts(msgspec.Struct, frozen=True):
    """What a phase is determined by.

    - `state`: the runtime's state; None: not listed.
    - `answered`: a probe of this incarnation succeeded (of a warm replica: since it was resumed).
    - `leaving`: it was taken out of rotation.
    - `warm`: it belongs to the warm pool.
    - `in_hooks`: its `post_start` commands run.
    - `completes`: its restart policy does not restart it with the exit code that it has.
    """

    state: ReplicaState | None
    health: ContainerHealth = ContainerHealth.NONE
    addressed: bool = False
    answered: bool = False
    leaving: bool = False
    stop_underway: bool = False
    start_underway: bool = False
    warm: bool = False
    in_hooks: bool = False
    completes: bool = False


def phase_of(facts: Facts) -> Phase:
    """Return the phase that the facts show, regardless of earlier phases."""
    if facts.state is None:
        return Phase.PENDING if facts.start_underway else Phase.GONE
    if facts.state is ReplicaState.EXITED:
        return Phase.COMPLETED if facts.completes else Phase.FAILED
    if facts.stop_underway or facts.state is ReplicaState.STOPPING:
        return Phase.STOPPING
    if facts.state is ReplicaState.CREATED:
        return Phase.PENDING if facts.start_underway else Phase.FAILED
    if facts.leaving:
        return Phase.DRAINING
    if not facts.addressed or facts.in_hooks:
        return Phase.STARTING
    if facts.state is ReplicaState.PAUSED:
        return Phase.PAUSED
    if facts.warm:
        return Phase.PROBING
    healthy = facts.health in (ContainerHealth.NONE, ContainerHealth.HEALTHY)
    return Phase.READY if facts.answered and healthy else Phase.PROBING


def advance(previous: Phase | None, facts: Facts) -> Phase:
    """Return the next phase: that of the facts if the table allows it, else `previous`.

    A replica that ends while it leaves becomes GONE, neither FAILED nor COMPLETED.
    """
    shown = phase_of(facts)
    if previous is None or shown in NEXT[previous]:
        return shown
    if shown in (Phase.FAILED, Phase.COMPLETED) and Phase.GONE in NEXT[previous]:
        return Phase.GONE
    return previous
