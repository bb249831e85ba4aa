"""Observation: what the runtime, the probes and the workers show, as one frozen picture.

`observe` folds a `World` (what is, now) into a `Memory` (what has to be known about the past:
phases never go back, failures count) and gives the `Observed` that plans are made from.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from meshd.model.canary import AnalysisResult
from meshd.model.job import HookState
from meshd.model.operation import StartReplica
from meshd.model.replica import ProbeResult, RandomSource, Replica, ReplicaFailure, Version
from meshd.model.replica_phase import ENDED, Facts, Phase, advance
from meshd.model.runtime import ObservedReplica, ReplicaState
from meshd.reconcile.observe.memory import (
    ReconcileMemory,
    Record,
    Sight,
    Slot,
    Trouble,
    note_failure,
    prune,
)
from meshd.spec.labels import CLONE_OF
from meshd.spec.model import RestartPolicy

KILLED: Final = (137, -9)
UNMARKED: Final = (False, 0, False, False)
"""The flags of a replica that nothing is known of beside what the runtime lists."""

START_GRACE: Final = 5.0
"""Seconds that may lie between a replica's creation and its start, by whomever."""


_RUNS: Final = (ReplicaState.RUNNING, ReplicaState.PAUSED)


class Inputs(msgspec.Struct, frozen=True):
    """What is, at one moment. `drained` names the endpoints that no live worker uses any
    more. `starting`, `stopping` and `turning` (being
    paused or woken) are operations under way. `policies` are the restart
    policies by service key. `places` is how many replicas may start at once (0: any number);
    `working` are the projects with jobs under way."""

    listed: Mapping[str, ObservedReplica]
    probes: Mapping[str, ProbeResult] = {}
    drained: frozenset[str] = frozenset()
    in_flight: Mapping[str, int] = {}
    starting: Mapping[str, StartReplica] = {}
    stopping: frozenset[str] = frozenset()
    turning: frozenset[str] = frozenset()
    troubles: tuple[Trouble, ...] = ()
    policies: Mapping[str, RestartPolicy] = {}
    available: bool = True
    may_start: bool = True
    places: int = 0
    working: frozenset[str] = frozenset()
    prepared: frozenset[Version] = frozenset()
    preparing: frozenset[Version] = frozenset()


class Observed(msgspec.Struct, frozen=True):
    """The picture that a plan is made from. While `available` is False the runtime does not
    answer, and `replicas` is what it last showed. `verdicts` are what the traffic of services
    says of their new revision; None where nobody watches it. `hooks` are
    how commands of rollouts stand, by id; None where nobody runs them."""

    replicas: tuple[Replica, ...]
    available: bool = True
    may_start: bool = True
    places: int = 0
    working: frozenset[str] = frozenset()
    prepared: frozenset[Version] = frozenset()
    preparing: frozenset[Version] = frozenset()
    slots: Mapping[Version, tuple[Slot, ...]] = {}
    failures: Mapping[Version, tuple[ReplicaFailure, ...]] = {}
    verdicts: Mapping[str, AnalysisResult] | None = None
    hooks: Mapping[str, HookState] | None = None


def observe(
    memory: ReconcileMemory, world: Inputs, now: float, dice: RandomSource
) -> tuple[ReconcileMemory, Observed]:
    """One pass of observation. Pure: the new memory is returned, the old one unchanged."""
    records: dict[str, Record] = {}
    replicas: list[Replica] = []
    failed: list[tuple[Replica, float]] = []
    sights: dict[str, Sight] = {}
    known, seen_before, probes = memory.records, memory.sights, world.probes
    marked = world.drained | world.stopping | world.turning | {*world.in_flight, *world.starting}
    for name, seen in world.listed.items():
        before = known.get(name)
        probe = probes.get(name)
        flags = _flags(name, world) if name in marked else UNMARKED
        sight = seen_before.get(name)
        if (
            sight is not None
            and sight.seen is seen
            and sight.record is before
            and sight.probe is probe
            and sight.flags == flags
            and seen.state is not ReplicaState.CREATED
        ):
            records[name] = sight.record
            sights[name] = sight
            replicas.append(sight.replica)
            continue
        record = _remember(before, seen, world, now)
        records[name] = record
        replica = _listed(seen, record, world)
        sights[name] = Sight(seen, record, probe, flags, replica)
        replicas.append(replica)
        new = before is None or before.phase is not Phase.FAILED
        if record.phase is Phase.FAILED and new and replica.managed:
            started = seen.started_at or seen.created_at
            failed.append((replica, (seen.finished_at or now) - started))
    for name, start in world.starting.items():
        if name not in world.listed:
            before = memory.records.get(name)
            records[name] = before or Record(
                incarnation=("", 0.0),
                phase=Phase.PENDING,
                since=now,
                attempt=start.attempt,
                reserve=start.reserve,
            )
            replicas.append(_pending(start, records[name]))
    memory = ReconcileMemory(
        records=records, slots=memory.slots, failures=memory.failures, sights=sights
    )
    for replica, uptime in failed:
        memory = _note_end(memory, replica, uptime, world, now, dice)
    for trouble in world.troubles:
        policy = world.policies.get(trouble.version[0], RestartPolicy())
        memory = note_failure(memory, trouble, policy, now, dice)
    memory = prune(memory, now)
    observed = Observed(
        replicas=tuple(replicas),
        available=world.available,
        may_start=world.may_start,
        places=world.places,
        working=world.working,
        prepared=world.prepared,
        preparing=world.preparing,
        slots=memory.slots,
        failures=memory.failures,
    )
    return memory, observed


def _flags(name: str, world: Inputs) -> tuple[bool, int, bool, bool]:
    return (
        name in world.drained,
        world.in_flight.get(name, 0),
        name in world.stopping,
        name in world.starting or name in world.turning,
    )


def _remember(before: Record | None, seen: ObservedReplica, world: Inputs, now: float) -> Record:
    """The record of a listed replica after this pass; the same object when nothing changed."""
    incarnation = (seen.runtime_id, seen.started_at)
    if before and before.incarnation != incarnation:
        restarted = before.incarnation[1] > 0.0 and seen.started_at > before.incarnation[1]
        before = None if restarted else msgspec.structs.replace(before, incarnation=incarnation)
    if before and before.phase in ENDED and seen.state in _RUNS:
        before = None  # it was given up, and is up all the same
    probe = world.probes.get(seen.name)
    start = world.starting.get(seen.name)
    phase = advance(
        before.phase if before else None,
        Facts(
            state=seen.state,
            health=seen.health,
            addressed=bool(seen.host),
            answered=bool(probe and probe.first_good) or bool(before and before.ready_since),
            reserve=before.reserve if before else start is not None and start.reserve,
            leaving=bool(before and before.drain_since),
            stop_underway=seen.name in world.stopping,
            start_underway=start is not None or now < seen.created_at + START_GRACE,
        ),
    )
    if before and before.phase is phase:
        return before
    # One that is paused already when it is first seen was kept by the process before this one.
    kept = (phase is Phase.PAUSED and seen.managed) or bool(start and start.reserve)
    foreign = phase is Phase.STOPPING and not (before and before.drain_since)
    return Record(
        incarnation=incarnation,
        phase=phase,
        since=now,
        ready_since=now if phase is Phase.READY else before.ready_since if before else 0.0,
        drain_since=before.drain_since if before else 0.0,
        cause=before.cause if before else "",
        attempt=before.attempt if before else start.attempt if start else 0,
        blamed=before.blamed if before else False,
        reserve=before.reserve if before else kept,
        woken=before.woken if before else 0.0,
        ended_by_others=(before.ended_by_others if before else False)
        or (foreign and seen.name not in world.stopping),
    )


def _listed(seen: ObservedReplica, record: Record, world: Inputs) -> Replica:
    probe = world.probes.get(seen.name) or ProbeResult()
    return Replica(
        name=seen.name,
        project=seen.project,
        service=seen.service,
        revision=seen.revision,
        phase=record.phase,
        managed=seen.managed,
        copied=CLONE_OF in seen.labels,
        since=record.since,
        created_at=seen.created_at,
        ready_since=record.ready_since,
        drain_since=record.drain_since,
        drained=seen.name in world.drained,
        in_flight=world.in_flight.get(seen.name, 0),
        bad=probe.bad,
        health=seen.health,
        probe=probe.text,
        cause=record.cause,
        blamed=record.blamed,
        attempt=record.attempt,
        exit_code=seen.exit_code if seen.state is ReplicaState.EXITED else None,
        oom_killed=seen.oom_killed,
        busy=seen.name in world.stopping | world.turning or seen.name in world.starting,
        frozen=seen.state is ReplicaState.PAUSED and record.phase is not Phase.PAUSED,
        drift=seen.drift,
        unready=probe.unready,
        reserve=record.reserve,
        answered=bool(probe.first_good),
        woken=record.woken,
        host=seen.host,
        port=seen.port,
        node=seen.node,
        addresses=seen.addresses,
        gateways=seen.gateways,
    )


def _pending(start: StartReplica, record: Record) -> Replica:
    return Replica(
        name=start.name,
        project=start.project,
        service=start.service,
        revision=start.revision,
        phase=Phase.PENDING,
        since=record.since,
        attempt=start.attempt,
        cause=start.cause,
        listed=False,
        busy=True,
        reserve=record.reserve,
    )


def ending(code: int | None, oom_killed: bool = False) -> str:
    """How a replica ended, for people."""
    if oom_killed:
        return "was killed: out of memory"
    if code is None:
        return "was created but never started"
    if code in KILLED:
        return "was killed (SIGKILL)"
    return f"exited with code {code}"


def _note_end(
    memory: ReconcileMemory,
    replica: Replica,
    uptime: float,
    world: Inputs,
    now: float,
    dice: RandomSource,
) -> ReconcileMemory:
    """A replica of ours ended by itself: open a slot for its successor."""
    policy = world.policies.get(replica.key, RestartPolicy())
    end = ending(replica.exit_code, replica.oom_killed)
    # Who was to start what was only created has ended before: that says nothing of the revision.
    outside = replica.exit_code is None or replica.exit_code in KILLED
    trouble = Trouble(
        version=(replica.key, replica.revision),
        replica=replica.name,
        text=f"{replica.name} {end} after {max(0.0, uptime):.1f} s",
        attempt=replica.attempt if uptime < policy.window else 0,
        external=outside and not replica.oom_killed,
    )
    return note_failure(memory, trouble, policy, now, dice)
