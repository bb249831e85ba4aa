"""The events that follow from two observations of the Swarm, one after the other. Pure.

Used by `SwarmRuntime.watch`. The engine reports no events of tasks on other nodes, so that changes
are found by comparing.
"""

from collections.abc import Iterator, Mapping

from meshd.model.runtime import ObservedReplica, ReplicaState
from meshd.runtime.base import EventKind, RuntimeEvent
from meshd.runtime.swarm.service_spec import STOPPED

View = Mapping[str, ObservedReplica]
_ALIVE = (ReplicaState.RUNNING, ReplicaState.STOPPING)


def find_changes(before: View, after: View, now: float) -> Iterator[RuntimeEvent]:
    """Yield what happened to replicas between two views, by name. `now` is the time of an event
    without another one. A replica that was replaced by one of the same name was removed."""
    for name, old in before.items():
        new = after.get(name)
        if new is None or new.created_at != old.created_at:
            if old.state in _ALIVE:
                yield RuntimeEvent(EventKind.DIED, name, now)
            yield RuntimeEvent(EventKind.REMOVED, name, now)
    for name, new in after.items():
        found = before.get(name)
        if found is not None and found.created_at != new.created_at:
            found = None
        if found != new:
            yield from _changes_of(found, new, now)


def _changes_of(
    old: ObservedReplica | None, new: ObservedReplica, now: float
) -> Iterator[RuntimeEvent]:
    was = old.state if old is not None else ReplicaState.CREATED
    began = was is ReplicaState.CREATED and new.started_at > 0
    if began:
        yield RuntimeEvent(EventKind.STARTED, new.name, new.started_at, new)
    if new.state is ReplicaState.STOPPING and was is not ReplicaState.STOPPING:
        yield RuntimeEvent(EventKind.STOPPING, new.name, now, new)
    elif new.state is ReplicaState.EXITED and was is not ReplicaState.EXITED:
        if STOPPED in new.labels and was is not ReplicaState.STOPPING:
            yield RuntimeEvent(EventKind.STOPPING, new.name, new.finished_at or now, new)
        yield RuntimeEvent(EventKind.DIED, new.name, new.finished_at or now, new)
    elif old is None or began or new.state not in (ReplicaState.RUNNING, ReplicaState.EXITED):
        return
    elif old.health is not new.health:
        yield RuntimeEvent(EventKind.HEALTH, new.name, now, new)
    else:
        yield RuntimeEvent(EventKind.CHANGED, new.name, now, new)
