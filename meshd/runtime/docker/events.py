"""Engine events as replica events, each with the replica's state after it.

Used by `DockerRuntime.watch`. The engine reports a stopping container as running; `Sightings`
remembers which container was asked to stop, and which ran out of memory.
"""

import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from meshd.model.runtime import ObservedReplica, ReplicaState
from meshd.runtime.base import EventKind, RuntimeEvent, RuntimeFailure
from meshd.runtime.docker.create import inspect
from meshd.runtime.docker.drift import applied_limits, default_limits
from meshd.runtime.docker.engine import Engine, Info
from meshd.runtime.docker.observe import event_kind, is_replica, observe, replica_name, stop_signal

MIN_STOPPING_SECONDS = 60.0
"""Seconds for which a container that was sent its stop signal counts as stopping. One that runs
longer ignored the signal."""
INSPECT_PATIENCE = 5.0
"""Seconds for an inspection during event handling."""
KILLED = 137
"""Exit code after SIGKILL (128 + 9)."""
OUT_OF_MEMORY = "oom"
"""The engine's name for the event that memory ran out."""
OUT_OF_MEMORY_PATIENCE = 0.3
"""Seconds after a kill within which the engine reports that memory ran out."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """A container as it was last inspected. `limited`: whether its memory has a limit."""

    replica: ObservedReplica
    stop_signal: int
    stop_timeout: float
    limited: bool


class Sightings:
    """The last inspection of every container.

    The engine calls a container running until it has ended, also after its stop signal. This class
    remembers the signal. It also remembers whether memory ran out: the engine forgets that if it
    learns of the end first.
    """

    def __init__(self) -> None:
        self._seen: dict[str, Sighting] = {}
        self._ids: dict[str, str] = {}
        self._stopping: dict[str, float] = {}
        self._first_limits: dict[str, Mapping[str, object]] = {}
        self._out_of_memory: set[str] = set()

    def created(self, info: Info) -> None:
        """Record the inspection of a container that meshd has just created: all its limits are
        as requested, in the engine's own form."""
        self._first_limits[info["Id"]] = applied_limits(info)

    def see(self, info: Info, node: str, now: float) -> ObservedReplica:
        """Record an inspection and return the replica. `now` is monotonic seconds."""
        if info["Id"] not in self._first_limits:
            self._first_limits[info["Id"]] = default_limits(info)
        replica = observe(info, node, self._first_limits[info["Id"]])
        if replica.exit_code == KILLED and info["Id"] in self._out_of_memory:
            replica = replace(replica, oom_killed=True)
        patience = float(info["Config"].get("StopTimeout") or 0)
        limited = bool(info["HostConfig"].get("Memory"))
        self._ids[replica.name] = info["Id"]
        self._seen[info["Id"]] = Sighting(replica, stop_signal(info), patience, limited)
        return self._with_stop_request(replica, now)

    def get(self, container: str) -> Sighting | None:
        """Return the last sighting of a container, by its id."""
        return self._seen.get(container)

    def container_of(self, name: str) -> str:
        """Return the id of the container of a replica; its name if it was not seen, which the
        engine takes as well."""
        return self._ids.get(name, name)

    def stop_requested(self, container: str, now: float) -> None:
        """Record that a signal which ends the container was sent."""
        known = self._seen.get(container)
        patience = max(known.stop_timeout if known else 0.0, MIN_STOPPING_SECONDS)
        self._stopping[container] = now + patience

    def is_stopping(self, container: str) -> bool:
        """Return whether a signal that ends the container was sent."""
        return container in self._stopping

    def restarted(self, container: str) -> None:
        """Record a new start: earlier stop signals no longer count."""
        self._stopping.pop(container, None)
        self._out_of_memory.discard(container)

    def memory_ran_out(self, container: str) -> None:
        """Record that the kernel killed a process of the container, whose memory ran out."""
        self._out_of_memory.add(container)

    def lacked_memory(self, container: str) -> bool:
        """Return whether memory ran out since the container was started."""
        return container in self._out_of_memory

    def ended(self, container: str, replica: ObservedReplica) -> None:
        """Record that the container has ended; return the replica in its last state."""
        self._stopping.pop(container, None)
        if container in self._seen:
            self._seen[container] = replace(self._seen[container], replica=replica)

    def known(self) -> frozenset[str]:
        """Return the ids of all containers that are remembered."""
        return frozenset(self._seen.keys() | self._first_limits.keys() | self._stopping.keys())

    def keep(self, listed: Collection[str], known_before: Collection[str]) -> None:
        """Forget all containers except those listed and those first seen since the listing began,
        when `known_before` were known: they were created too late to be listed."""
        containers = {*listed, *(self.known() - set(known_before))}
        for known in (self._seen, self._stopping, self._first_limits):
            for container in known.keys() - containers:
                del known[container]
        self._ids = {name: each for name, each in self._ids.items() if each in containers}
        self._out_of_memory &= containers

    def _with_stop_request(self, replica: ObservedReplica, now: float) -> ObservedReplica:
        alive = replica.state in (ReplicaState.RUNNING, ReplicaState.PAUSED)
        if alive and self._stopping.get(replica.runtime_id, 0.0) > now:
            return replace(replica, state=ReplicaState.STOPPING)
        return replica


async def replica_event(
    engine: Engine, sightings: Sightings, node: str, event: Info
) -> RuntimeEvent | None:
    """Return the replica event for an engine event; None if it concerns no replica."""
    actor = event.get("Actor") or {}
    if event.get("Type") == "network":
        return await _network_event(engine, sightings, node, event)
    container, attributes = actor.get("ID", ""), actor.get("Attributes") or {}
    if not is_replica(attributes):
        return None
    if event["Action"] == OUT_OF_MEMORY:
        sightings.memory_ran_out(container)
        return None
    kind = await _kind(engine, sightings, node, event["Action"], container, attributes)
    if kind is None:
        return None
    if kind is EventKind.STARTED:
        sightings.restarted(container)
    elif kind is EventKind.STOPPING:
        sightings.stop_requested(container, time.monotonic())
    replica = await _after(engine, sightings, node, kind, event)
    if replica is not None and kind in (EventKind.DIED, EventKind.REMOVED):
        sightings.ended(container, replica)
    name = replica.name if replica else replica_name(attributes.get("name", ""), attributes)
    return RuntimeEvent(kind, name, event["timeNano"] / 1e9, replica)


async def _network_event(
    engine: Engine, sightings: Sightings, node: str, event: Info
) -> RuntimeEvent | None:
    """Return the event for a running container that left or joined a network. A container that
    starts or ends does so too; other events report that."""
    container = ((event.get("Actor") or {}).get("Attributes") or {}).get("container", "")
    known = sightings.get(container)
    alive = known is not None and known.replica.state in (ReplicaState.RUNNING, ReplicaState.PAUSED)
    if (
        not alive
        or sightings.is_stopping(container)
        or event["Action"] not in ("connect", "disconnect")
    ):
        return None
    replica = await _inspect(engine, sightings, node, container)
    if replica is None:
        return None
    return RuntimeEvent(EventKind.CHANGED, replica.name, event["timeNano"] / 1e9, replica)


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
    engine: Engine, sightings: Sightings, node: str, kind: EventKind, event: Info
) -> ObservedReplica | None:
    """Return the replica after an event.

    The first sign of an end must not wait for an inspection, which the engine may delay until
    cleanup is done. A removed container has no inspection.
    """
    container = event["Actor"]["ID"]
    known = sightings.get(container)
    last = known.replica if known else None
    if last is None:
        return await _inspect(engine, sightings, node, container)
    if kind is EventKind.STOPPING:
        return replace(last, state=ReplicaState.STOPPING)
    if kind is EventKind.REMOVED:
        return last if last.state is ReplicaState.EXITED else _ended(last, event)
    if kind is EventKind.DIED and not _maybe_out_of_memory(sightings, event):
        return _ended(last, event)
    seen = await _inspect(engine, sightings, node, container)
    if kind is EventKind.DIED:
        seen = seen or _ended(last, event)
        lacked = seen.exit_code == KILLED and await _lacked_memory(engine, sightings, event)
        return replace(seen, oom_killed=True) if lacked else seen
    return seen or last


def _maybe_out_of_memory(sightings: Sightings, event: Info) -> bool:
    """Return whether the container was killed without a known request: only the engine tells
    whether memory ran out."""
    killed = event["Actor"]["Attributes"].get("exitCode") == str(KILLED)
    return killed and not sightings.is_stopping(event["Actor"]["ID"])


async def _lacked_memory(engine: Engine, sightings: Sightings, event: Info) -> bool:
    """Return whether memory ran out before the container was killed.

    The engine learns of the end and of the memory in any order. It may report the latter a moment
    later, and does not correct its inspection then. Containers without a limit are not worth that
    moment.
    """
    container, at = event["Actor"]["ID"], event["timeNano"] / 1e9
    known = sightings.get(container)
    if known is None or known.replica.oom_killed:
        return known is not None
    if known.limited and not sightings.lacked_memory(container):
        with suppress(RuntimeFailure):
            if await reports_out_of_memory(engine, container, at):
                sightings.memory_ran_out(container)
    return sightings.lacked_memory(container)


async def reports_out_of_memory(engine: Engine, container: str, ended: float) -> bool:
    """Return whether the engine has an event that memory ran out when a container was killed.
    `ended`: Unix seconds by the engine's clock. Raises RuntimeUnavailable."""
    since, until = ended - OUT_OF_MEMORY_PATIENCE, ended + OUT_OF_MEMORY_PATIENCE
    return bool(await engine.events_of(container, OUT_OF_MEMORY, since, until))


def _ended(last: ObservedReplica, event: Info) -> ObservedReplica:
    code = event["Actor"]["Attributes"].get("exitCode", "")
    return replace(
        last,
        state=ReplicaState.EXITED,
        host=None,
        port=0,
        addresses=(),
        gateways=(),
        exit_code=int(code) if code.isdigit() else last.exit_code,
        finished_at=event["timeNano"] / 1e9,
    )


async def _inspect(
    engine: Engine, sightings: Sightings, node: str, container: str
) -> ObservedReplica | None:
    """Inspect a container; None if it is gone or the engine does not answer (the next listing
    reports it then)."""
    try:
        info = await inspect(engine, container, INSPECT_PATIENCE)
    except RuntimeFailure:
        return None
    return sightings.see(info, node, time.monotonic())
