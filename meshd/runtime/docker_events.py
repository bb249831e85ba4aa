"""Engine events as replica events, each with what the replica is after it."""

import time
from dataclasses import dataclass, replace

from meshd.runtime.base import (
    EventKind,
    ObservedReplica,
    ReplicaNotFound,
    ReplicaState,
    RuntimeEvent,
    RuntimeFailure,
)
from meshd.runtime.docker_engine import Engine, Info
from meshd.runtime.docker_observe import event_kind, is_replica, observe, stop_signal

ENDING_AT_LEAST = 60.0
"""How long a container that was sent its stop signal is taken at its word, seconds. One that
still runs then ignored it."""
INSPECT_PATIENCE = 5.0


@dataclass(frozen=True, slots=True)
class Sighting:
    """A container as it was last inspected."""

    replica: ObservedReplica
    stop_signal: int
    stop_timeout: float


class Sightings:
    """What was last seen of every container. The engine calls one that was told to stop
    running until it is gone; this remembers that it was told."""

    def __init__(self) -> None:
        self._seen: dict[str, Sighting] = {}
        self._ending: dict[str, float] = {}

    def see(self, info: Info, node: str, now: float) -> ObservedReplica:
        """Take note of an inspection; gives the replica. `now` is monotonic seconds."""
        replica = observe(info, node)
        patience = float(info["Config"].get("StopTimeout") or 0)
        self._seen[info["Id"]] = Sighting(replica, stop_signal(info), patience)
        return self._as_told(replica, now)

    def get(self, container: str) -> Sighting | None:
        """The last sighting of a container, by its id."""
        return self._seen.get(container)

    def told_to_end(self, container: str, now: float) -> None:
        """A signal that ends it was sent."""
        known = self._seen.get(container)
        patience = max(known.stop_timeout if known else 0.0, ENDING_AT_LEAST)
        self._ending[container] = now + patience

    def over(self, container: str) -> None:
        """It ended, or started anew."""
        self._ending.pop(container, None)

    def keep(self, containers: set[str]) -> None:
        """Forget all but these."""
        for known in (self._seen, self._ending):
            for container in known.keys() - containers:
                del known[container]

    def _as_told(self, replica: ObservedReplica, now: float) -> ObservedReplica:
        alive = replica.state in (ReplicaState.RUNNING, ReplicaState.PAUSED)
        if alive and self._ending.get(replica.runtime_id, 0.0) > now:
            return replace(replica, state=ReplicaState.STOPPING)
        return replica


async def replica_event(
    engine: Engine, sightings: Sightings, node: str, event: Info
) -> RuntimeEvent | None:
    """What an engine's event means; None when it concerns no replica or means nothing."""
    actor = event.get("Actor") or {}
    container, attributes = actor.get("ID", ""), actor.get("Attributes") or {}
    if not is_replica(attributes):
        return None
    kind = await _kind(engine, sightings, node, event["Action"], container, attributes)
    if kind is None:
        return None
    now = time.monotonic()
    if kind is EventKind.STOPPING:
        sightings.told_to_end(container, now)
    elif kind in (EventKind.STARTED, EventKind.DIED, EventKind.REMOVED):
        sightings.over(container)
    replica = await _after(engine, sightings, node, kind, container, attributes)
    name = replica.name if replica else attributes.get("name", "")
    return RuntimeEvent(kind, name, event["timeNano"] / 1e9, replica)


async def _kind(
    engine: Engine,
    sightings: Sightings,
    node: str,
    action: str,
    container: str,
    attributes: dict[str, str],
) -> EventKind | None:
    if action == "kill" and sightings.get(container) is None:
        await _inspect(engine, sightings, node, container)
    known = sightings.get(container)
    return event_kind(action, attributes, known.stop_signal if known else 15)


async def _after(
    engine: Engine,
    sightings: Sightings,
    node: str,
    kind: EventKind,
    container: str,
    attributes: dict[str, str],
) -> ObservedReplica | None:
    """The replica after an event. The first sign of an end must not wait for an inspection,
    and a removed container has none."""
    known = sightings.get(container)
    last = known.replica if known else None
    if kind is EventKind.STOPPING and last is not None:
        return replace(last, state=ReplicaState.STOPPING)
    if kind is EventKind.REMOVED:
        return last and replace(last, state=ReplicaState.EXITED, host=None, port=0)
    seen = await _inspect(engine, sightings, node, container)
    if seen is None and kind is EventKind.DIED and last is not None:
        code = attributes.get("exitCode", "")
        last = replace(last, exit_code=int(code) if code.isdigit() else None)
        return replace(last, state=ReplicaState.EXITED, host=None, port=0)
    return seen or last


async def _inspect(
    engine: Engine, sightings: Sightings, node: str, container: str
) -> ObservedReplica | None:
    """None when it is gone, or the engine too: then the next listing tells."""
    gone = ReplicaNotFound(container)
    try:
        async with engine.asked(INSPECT_PATIENCE, {404: gone}) as docker:
            info = await docker.containers.container(container).show()
    except RuntimeFailure:
        return None
    return sightings.see(info, node, time.monotonic())
