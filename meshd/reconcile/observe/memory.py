"""The reconciler's memory between passes: replicas, failures, and backoff slots. Pure.

`meshd.reconcile.loop` owns one `ReconcileMemory` and replaces it in every pass. All values are
frozen; each function returns a new memory. The memory is lost with the process. What must survive
is on the runtime, in the held snapshot, or in the store.
"""

from collections.abc import Collection, Mapping
from types import MappingProxyType
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
"""Failures that are kept for each version: more than any decision counts."""

SLOT_LIFETIME: Final = 120.0
"""Seconds after its start time in which a backoff slot is used or dropped. It is unused if fewer
replicas are desired by then."""

_LEFT: Final = (ReplicaState.STOPPING, ReplicaState.EXITED)
"""States of a replica to replace that the previous control process was stopping."""


class ReplicaRecord(msgspec.Struct, frozen=True):
    """What is remembered about one replica. Times are Unix times in seconds; 0: never.

    - `incarnation`: its id on the runtime and when it started; another one is a new life.
    - `since`: when it entered `phase`.
    - `drain_since`, `cause`: when and why it was taken out of rotation.
    - `attempt`: quick failures in a row before its start.
    - `counted_as_failure`: whether its drain counted as a failure of its version.
    - `ended_by_others`: whether something other than meshd stopped it.
    - `warm`: whether it belongs to the warm pool; `resumed_at`: when it left the pool.
    - `plain`: whether its service was plain when it was first seen.
    - `replaced_for`: why it is replaced although it matches its revision; empty: it is not.
    """

    incarnation: tuple[str, float]
    phase: Phase
    since: float
    ready_since: float = 0.0
    drain_since: float = 0.0
    cause: str = ""
    attempt: int = 0
    counted_as_failure: bool = False
    ended_by_others: bool = False
    warm: bool = False
    resumed_at: float = 0.0
    plain: bool = False
    replaced_for: str = ""


class BackoffSlot(msgspec.Struct, frozen=True):
    """The place of a failed replica. Its successor starts at `not_before` (Unix time) at the
    earliest, as attempt number `attempt`."""

    attempt: int
    not_before: float
    opened: float


class FailureReport(msgspec.Struct, frozen=True):
    """A failure to count: a start or preparation that failed, or a replica that ended or is
    unhealthy.

    - `attempt`: quick failures in a row before it.
    - `final`, `external`: see `ReplicaFailure`.
    - `restarts`: whether a successor starts.
    """

    version: Version
    replica: str
    text: str
    attempt: int
    final: bool = False
    external: bool = False
    restarts: bool = True


class CachedReplica(NamedTuple):
    """A replica of the last pass with its inputs. The inputs are compared by identity: a pass
    with the same inputs reuses the replica."""

    seen: ObservedReplica
    record: ReplicaRecord
    probe: ProbeResult | None
    flags: tuple[bool, int, bool, bool]
    replica: Replica


class ReconcileMemory(msgspec.Struct, frozen=True):
    """Everything that outlives a pass.

    - `records`, `cache`: by replica name; the cache only saves work.
    - `slots`: open backoff slots by version.
    - `failures`: the last failures by version, the newest last.
    """

    records: Mapping[str, ReplicaRecord] = {}
    slots: Mapping[Version, tuple[BackoffSlot, ...]] = {}
    failures: Mapping[Version, tuple[ReplicaFailure, ...]] = {}
    cache: Mapping[str, CachedReplica] = {}


def record_failure(
    memory: ReconcileMemory,
    report: FailureReport,
    policy: RestartPolicy,
    now: float,
    random: RandomSource,
) -> ReconcileMemory:
    """Count a failure and open a backoff slot for the successor, if one starts."""
    if report.restarts:
        memory = open_slot(memory, report.version, report.attempt, policy, now, random)
    failure = ReplicaFailure(
        at=now,
        replica=report.replica,
        text=report.text,
        final=report.final,
        external=report.external,
    )
    version = report.version
    kept = (*memory.failures.get(version, ()), failure)[-FAILURES_KEPT:]
    return msgspec.structs.replace(memory, failures={**memory.failures, version: kept})


def open_slot(
    memory: ReconcileMemory,
    version: Version,
    attempt: int,
    policy: RestartPolicy,
    now: float,
    random: RandomSource,
) -> ReconcileMemory:
    """Open a backoff slot for the successor of a replica that ended as attempt number `attempt`.

    The first restart is immediate. Each further quick end in a row doubles the delay, up to
    `max_delay`, with ± 20 % jitter.
    """
    attempt += 1
    wait = 0.0
    if attempt > 1:
        wait = min(policy.max_delay, policy.delay * 2.0 ** min(attempt - 2, 30))
        wait *= 0.8 + 0.4 * random.random()
    slot = BackoffSlot(attempt=attempt, not_before=now + wait, opened=now)
    opened = (*memory.slots.get(version, ()), slot)
    return msgspec.structs.replace(memory, slots={**memory.slots, version: opened})


def drop_expired_slots(memory: ReconcileMemory, now: float) -> ReconcileMemory:
    """Drop the backoff slots that were not used within `SLOT_LIFETIME`."""
    if not any(slot.not_before + SLOT_LIFETIME < now for s in memory.slots.values() for slot in s):
        return memory
    slots = {
        version: tuple(slot for slot in opened if slot.not_before + SLOT_LIFETIME >= now)
        for version, opened in memory.slots.items()
    }
    return msgspec.structs.replace(memory, slots={v: s for v, s in slots.items() if s})


def reset_backoff(memory: ReconcileMemory, versions: Collection[Version]) -> ReconcileMemory:
    """Forget the failures and backoff slots of these versions."""
    return msgspec.structs.replace(
        memory,
        slots={v: s for v, s in memory.slots.items() if v not in versions},
        failures={v: f for v, f in memory.failures.items() if v not in versions},
    )


def take_slot(memory: ReconcileMemory, start: StartReplica) -> ReconcileMemory:
    """Remove the backoff slot that a started successor used."""
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
    """Remember that a replica drains from now on."""
    name = drain.name
    record = memory.records.get(name)
    if record is None or record.drain_since or record.phase in ENDED:
        return memory
    marked = msgspec.structs.replace(
        record,
        drain_since=now,
        cause=drain.cause,
        counted_as_failure=drain.count_as_failure,
    )
    return msgspec.structs.replace(memory, records={**memory.records, name: marked})


def mark_for_replacement(
    memory: ReconcileMemory, names: Collection[str], cause: str
) -> ReconcileMemory:
    """Remember that these replicas are to be replaced, if they are neither draining nor ended."""
    marked = {
        name: msgspec.structs.replace(record, replaced_for=cause)
        for name in names
        if (record := memory.records.get(name)) is not None
        and not record.drain_since
        and record.phase not in ENDED
    }
    return msgspec.structs.replace(memory, records={**memory.records, **marked})


def mark_resumed(memory: ReconcileMemory, name: str, now: float) -> ReconcileMemory:
    """Remember that a warm replica left the warm pool to serve."""
    record = memory.records.get(name)
    if record is None or not record.warm:
        return memory
    marked = msgspec.structs.replace(record, warm=False, resumed_at=now)
    return msgspec.structs.replace(memory, records={**memory.records, name: marked})


def mark_restored(memory: ReconcileMemory, name: str) -> ReconcileMemory:
    """Forget an adopted replica that answers again; its next good probe makes it ready."""
    records = {key: record for key, record in memory.records.items() if key != name}
    return msgspec.structs.replace(memory, records=records)


def restore_memory(
    ready: Mapping[str, float],
    leaving: Collection[str],
    listed: Mapping[str, ObservedReplica],
    now: float,
    replaced_for: Mapping[str, str] = MappingProxyType({}),
) -> ReconcileMemory:
    """Return the memory of a control process that takes over.

    `ready` maps the ready endpoints of the held snapshot to when they became ready; `leaving` are
    its draining ones. They keep their state until probes or the runtime show another one.
    `replaced_for` says why replicas are to be replaced, by name.
    """
    records: dict[str, ReplicaRecord] = {}
    for name, seen in listed.items():
        incarnation = (seen.runtime_id, seen.started_at)
        if name in replaced_for and seen.state in _LEFT:
            records[name] = ReplicaRecord(
                incarnation=incarnation,
                phase=Phase.STOPPING,
                since=now,
                drain_since=now,
                cause=replaced_for[name],
            )
        if seen.state is not ReplicaState.RUNNING:
            continue
        if name in leaving:
            records[name] = ReplicaRecord(
                incarnation=incarnation,
                phase=Phase.DRAINING,
                since=now,
                ready_since=seen.started_at,
                drain_since=now,
                cause="was draining before",
            )
        elif name in ready:
            records[name] = ReplicaRecord(
                incarnation=incarnation,
                phase=Phase.READY,
                since=ready[name] or seen.started_at,
                ready_since=ready[name] or seen.started_at,
                replaced_for=replaced_for.get(name, ""),
            )
        elif name in replaced_for:
            records[name] = ReplicaRecord(
                incarnation=incarnation,
                phase=Phase.PROBING if seen.host else Phase.STARTING,
                since=now,
                replaced_for=replaced_for[name],
            )
    return ReconcileMemory(records=records)
