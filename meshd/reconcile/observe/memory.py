"""What is remembered between passes: records of replicas, failures, and slots for successors.

Frozen values and pure functions from one memory to the next.
"""

from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

import msgspec

from meshd.model.operation import DrainReplica, StartReplica
from meshd.model.replica import (
    ProbeResult,
    RandomSource,
    Replica,
    ReplicaFailure,
    Version,
)
from meshd.model.replica_phase import ENDED, Phase
from meshd.model.runtime import ObservedReplica, ReplicaState
from meshd.spec.model import RestartPolicy

FAILURES_KEPT: Final = 10

SLOT_LIFE: Final = 120.0


class Record(msgspec.Struct, frozen=True):
    """What is remembered about one replica over passes. `reserve`: it is kept for later, paused
    once it answered; `woken` is when it was taken from there."""

    incarnation: tuple[str, float]
    phase: Phase
    since: float
    ready_since: float = 0.0
    drain_since: float = 0.0
    cause: str = ""
    attempt: int = 0
    blamed: bool = False
    ended_by_others: bool = False
    reserve: bool = False
    woken: float = 0.0


class Slot(msgspec.Struct, frozen=True):
    """A place left by a failed replica: its successor starts no sooner than `not_before`."""

    attempt: int
    not_before: float
    opened: float


class Trouble(msgspec.Struct, frozen=True):
    """A failure to count: a start or preparation that did not come off, or a replica that
    ended or was judged sick. `attempt` counts the quick failures before it."""

    version: Version
    replica: str
    text: str
    attempt: int
    final: bool = False
    external: bool = False


class Sight(NamedTuple):
    """What one replica was read from, compared by identity, and what was read."""

    seen: ObservedReplica
    record: Record
    probe: ProbeResult | None
    flags: tuple[bool, int, bool, bool]
    replica: Replica


class ReconcileMemory(msgspec.Struct, frozen=True):
    """Everything that outlives a pass. Lost with the process: what must not be lost is on the
    runtime, in the held snapshot, or in the store. `sights` only save work: what a replica was
    read from, and as what."""

    records: Mapping[str, Record] = {}
    slots: Mapping[Version, tuple[Slot, ...]] = {}
    failures: Mapping[Version, tuple[ReplicaFailure, ...]] = {}
    sights: Mapping[str, Sight] = {}


def note_failure(
    memory: ReconcileMemory, trouble: Trouble, policy: RestartPolicy, now: float, dice: RandomSource
) -> ReconcileMemory:
    """Count a failure, and open a slot for the successor. The first restart is at once; each
    further quick failure in a row doubles the wait, ± 20 %."""
    attempt = trouble.attempt + 1
    wait = 0.0
    if attempt > 1:
        wait = min(policy.max_delay, policy.delay * 2.0 ** min(attempt - 2, 30))
        wait *= 0.8 + 0.4 * dice.random()
    slot = Slot(attempt=attempt, not_before=now + wait, opened=now)
    failure = ReplicaFailure(
        at=now,
        replica=trouble.replica,
        text=trouble.text,
        final=trouble.final,
        external=trouble.external,
    )
    version = trouble.version
    kept = (*memory.failures.get(version, ()), failure)[-FAILURES_KEPT:]
    return msgspec.structs.replace(
        memory,
        slots={**memory.slots, version: (*memory.slots.get(version, ()), slot)},
        failures={**memory.failures, version: kept},
    )


def prune(memory: ReconcileMemory, now: float) -> ReconcileMemory:
    """Drop slots that nobody took for long: fewer replicas are wanted by now."""
    if not any(slot.not_before + SLOT_LIFE < now for s in memory.slots.values() for slot in s):
        return memory
    slots = {
        version: tuple(slot for slot in opened if slot.not_before + SLOT_LIFE >= now)
        for version, opened in memory.slots.items()
    }
    return msgspec.structs.replace(memory, slots={v: s for v, s in slots.items() if s})


def pardon(memory: ReconcileMemory, versions: Collection[Version]) -> ReconcileMemory:
    """Past failures of these versions count for nothing and delay nothing."""
    return msgspec.structs.replace(
        memory,
        slots={v: s for v, s in memory.slots.items() if v not in versions},
        failures={v: f for v, f in memory.failures.items() if v not in versions},
    )


def take_slot(memory: ReconcileMemory, start: StartReplica) -> ReconcileMemory:
    """A successor was started: its slot is taken."""
    version = (start.key, start.revision)
    slots = list(memory.slots.get(version, ()))
    for slot in slots:
        if slot.attempt == start.attempt:
            slots.remove(slot)
            break
    rest = {v: s for v, s in memory.slots.items() if v != version}
    if slots:
        rest[version] = tuple(slots)
    return msgspec.structs.replace(memory, slots=rest)


def mark_drained(memory: ReconcileMemory, drain: DrainReplica, now: float) -> ReconcileMemory:
    """From now on the replica is leaving."""
    name = drain.name
    record = memory.records.get(name)
    if record is None or record.drain_since or record.phase in ENDED:
        return memory
    marked = msgspec.structs.replace(record, drain_since=now, cause=drain.cause, blamed=drain.blame)
    return msgspec.structs.replace(memory, records={**memory.records, name: marked})


def mark_woken(memory: ReconcileMemory, name: str, now: float) -> ReconcileMemory:
    """A replica that was kept for later is to serve from now on."""
    record = memory.records.get(name)
    if record is None or not record.reserve:
        return memory
    marked = msgspec.structs.replace(record, reserve=False, woken=now)
    return msgspec.structs.replace(memory, records={**memory.records, name: marked})


def mark_restored(memory: ReconcileMemory, name: str) -> ReconcileMemory:
    """Start an adopted replica's life anew; its next good probe makes it ready."""
    records = {key: record for key, record in memory.records.items() if key != name}
    return msgspec.structs.replace(memory, records=records)


def recall(
    ready: Mapping[str, float],
    leaving: Collection[str],
    listed: Mapping[str, ObservedReplica],
    now: float,
) -> ReconcileMemory:
    """The memory of a control process that takes over: endpoints (id → ready since) of the
    snapshot that workers hold go on as they were, until probes or the runtime say otherwise."""
    records: dict[str, Record] = {}
    for name, seen in listed.items():
        incarnation = (seen.runtime_id, seen.started_at)
        if seen.state is not ReplicaState.RUNNING:
            continue
        if name in leaving:
            records[name] = Record(
                incarnation=incarnation,
                phase=Phase.DRAINING,
                since=now,
                ready_since=seen.started_at,
                drain_since=now,
                cause="was draining before",
            )
        elif name in ready:
            records[name] = Record(
                incarnation=incarnation,
                phase=Phase.READY,
                since=ready[name] or seen.started_at,
                ready_since=ready[name] or seen.started_at,
            )
    return ReconcileMemory(records=records)
