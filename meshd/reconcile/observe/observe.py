"""Observation: the state of all replicas as one frozen value. Pure.

`meshd.reconcile.loop` calls `observe` in every pass. It combines the `Inputs` of this moment (from
the runtime, the probes and the workers) with the `ReconcileMemory` (phases never go back, failures
count), and returns the `Observed` that plans are made from.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from meshd.model.canary import AnalysisResult
from meshd.model.job import HookState
from meshd.model.operation import StartReplica
from meshd.model.replica import ProbeResult, RandomSource, Replica, ReplicaFailure, Version
from meshd.model.replica_phase import ENDED, Facts, Phase, advance
from meshd.model.runtime import ContainerHealth, ObservedReplica, ReplicaState
from meshd.model.service_key import ServiceKey, service_key
from meshd.reconcile.observe.memory import (
    BackoffSlot,
    CachedReplica,
    FailureReport,
    ReconcileMemory,
    ReplicaRecord,
    drop_expired_slots,
    open_slot,
    record_failure,
)
from meshd.reconcile.restart_policy import will_restart
from meshd.spec.labels import ATTEMPT, CLONE_OF, HEALTH, PLACED
from meshd.spec.model import Service

KILLED: Final = (137, -9)
"""Exit codes after SIGKILL: a container's, and a local process's."""
NO_FLAGS: Final = (False, 0, False, False)
"""The flags of a replica that only the runtime reports about."""
START_GRACE: Final = 5.0
"""Seconds that may pass between the creation of a container and its start, also by others."""


_UNKNOWN: Final = Service(name="unknown")
"""The spec of a service that is not desired any more."""
_RUNS: Final = (ReplicaState.RUNNING, ReplicaState.PAUSED)


class Inputs(msgspec.Struct, frozen=True):
    """Everything that is known at one moment.

    - `listed`: the runtime's replicas by name; `probes`: their probe results.
    - `drained`: endpoints that no live worker uses any more; `in_flight`: requests by endpoint.
    - `starting`, `stopping`, `pausing_or_resuming`: operations that run now.
    - `failure_reports`: failures since the last pass.
    - `specs`: the desired specs by service key.
    - `available`: whether the runtime responds; `may_start`: whether the proxy listens, so that
      replicas can be started.
    - `start_slots`: replicas that may start at the same time; 0: no limit.
    - `projects_with_jobs`: projects with running jobs.
    - `prepared`, `preparing`: versions whose image and networks are ready, or are being prepared.
    - `moving_ports`: services with a port of the host that is about to move between the engine and
      the mesh; replicas wait for it.
    - `outputs_kept`: failed replicas whose last lines of output are kept.
    """

    listed: Mapping[str, ObservedReplica]
    probes: Mapping[str, ProbeResult] = {}
    drained: frozenset[str] = frozenset()
    in_flight: Mapping[str, int] = {}
    starting: Mapping[str, StartReplica] = {}
    stopping: frozenset[str] = frozenset()
    pausing_or_resuming: frozenset[str] = frozenset()
    failure_reports: tuple[FailureReport, ...] = ()
    specs: Mapping[ServiceKey, Service] = {}
    outputs_kept: frozenset[str] = frozenset()
    available: bool = True
    may_start: bool = True
    start_slots: int = 0
    projects_with_jobs: frozenset[str] = frozenset()
    prepared: frozenset[Version] = frozenset()
    preparing: frozenset[Version] = frozenset()
    moving_ports: frozenset[ServiceKey] = frozenset()


class Observed(msgspec.Struct, frozen=True):
    """What a plan is made from. See `Inputs` for the fields of the same names.

    - `replicas`: all replicas; while the runtime is not `available`, as it last listed them.
    - `slots`, `failures`: open backoff slots and last failures by version.
    - `analyses`: results of canary analyses by service key; None: rollouts run without analysis.
    - `hooks`: states of rollout hooks by id; None: hooks are not run.
    """

    replicas: tuple[Replica, ...]
    available: bool = True
    may_start: bool = True
    start_slots: int = 0
    projects_with_jobs: frozenset[str] = frozenset()
    prepared: frozenset[Version] = frozenset()
    preparing: frozenset[Version] = frozenset()
    outputs_kept: frozenset[str] = frozenset()
    moving_ports: frozenset[ServiceKey] = frozenset()
    slots: Mapping[Version, tuple[BackoffSlot, ...]] = {}
    failures: Mapping[Version, tuple[ReplicaFailure, ...]] = {}
    analyses: Mapping[ServiceKey, AnalysisResult] | None = None
    hooks: Mapping[str, HookState] | None = None


def observe(
    memory: ReconcileMemory, inputs: Inputs, now: float, random: RandomSource
) -> tuple[ReconcileMemory, Observed]:
    """Run one pass of observation; return the new memory and what was observed."""
    records: dict[str, ReplicaRecord] = {}
    replicas: list[Replica] = []
    failed: list[Replica] = []
    cache: dict[str, CachedReplica] = {}
    known, cached_before, probes = memory.records, memory.cache, inputs.probes
    flagged = inputs.drained | inputs.stopping | inputs.pausing_or_resuming
    flagged |= {*inputs.in_flight, *inputs.starting}
    for name, seen in inputs.listed.items():
        before = known.get(name)
        probe = probes.get(name)
        flags = _flags(name, inputs) if name in flagged else NO_FLAGS
        cached = cached_before.get(name)
        if (
            cached is not None
            and cached.seen is seen
            and cached.record is before
            and cached.probe is probe
            and cached.flags == flags
            and seen.state is not ReplicaState.CREATED
        ):
            records[name] = cached.record
            cache[name] = cached
            replicas.append(cached.replica)
            continue
        record = _update_record(before, seen, inputs, now)
        records[name] = record
        replica = _replica_of(seen, record, inputs)
        cache[name] = CachedReplica(seen, record, probe, flags, replica)
        replicas.append(replica)
        new = before is None or before.phase is not Phase.FAILED
        has_failed = record.phase is Phase.FAILED and new
        if replica.managed and (has_failed or _was_stopped_by_others(before, record)):
            failed.append(replica)
    for name, start in inputs.starting.items():
        if name not in inputs.listed:
            before = memory.records.get(name)
            records[name] = before or ReplicaRecord(
                incarnation=("", 0.0),
                phase=Phase.PENDING,
                since=now,
                attempt=start.attempt,
                warm=start.warm,
                plain=inputs.specs.get(start.key, _UNKNOWN).plain,
            )
            replicas.append(_pending_replica(start, records[name], inputs))
    memory = ReconcileMemory(
        records=records, slots=memory.slots, failures=memory.failures, cache=cache
    )
    for replica in failed:
        memory = _record_exit(memory, replica, inputs, now, random)
    for report in inputs.failure_reports:
        policy = inputs.specs.get(report.version[0], _UNKNOWN).restart
        memory = record_failure(memory, report, policy, now, random)
    memory = drop_expired_slots(memory, now)
    observed = Observed(
        replicas=tuple(replicas),
        available=inputs.available,
        may_start=inputs.may_start,
        start_slots=inputs.start_slots,
        projects_with_jobs=inputs.projects_with_jobs,
        prepared=inputs.prepared,
        preparing=inputs.preparing,
        outputs_kept=inputs.outputs_kept,
        moving_ports=inputs.moving_ports,
        slots=memory.slots,
        failures=memory.failures,
    )
    return memory, observed


def _flags(name: str, inputs: Inputs) -> tuple[bool, int, bool, bool]:
    return (
        name in inputs.drained,
        inputs.in_flight.get(name, 0),
        name in inputs.stopping,
        name in inputs.starting or name in inputs.pausing_or_resuming,
    )


def _update_record(
    before: ReplicaRecord | None, seen: ObservedReplica, inputs: Inputs, now: float
) -> ReplicaRecord:
    """The record of a listed replica after this pass; the same object if nothing changed."""
    incarnation = (seen.runtime_id, seen.started_at)
    if before and before.incarnation != incarnation:
        restarted = before.incarnation[1] > 0.0 and seen.started_at > before.incarnation[1]
        before = None if restarted else msgspec.structs.replace(before, incarnation=incarnation)
    if before and before.phase in ENDED and seen.state in _RUNS:
        before = None  # it had ended, but it runs again
    probe = inputs.probes.get(seen.name)
    start = inputs.starting.get(seen.name)
    spec = inputs.specs.get(service_key(seen.project, seen.service), _UNKNOWN)
    # The mesh does not call a plain replica: it needs no address, and only its own check counts.
    plain = spec.plain and seen.managed
    phase = advance(
        before.phase if before else None,
        Facts(
            state=seen.state,
            health=_awaited_health(seen),
            addressed=plain or bool(seen.host),
            answered=plain
            or bool(probe and probe.first_good)
            or bool(before and before.ready_since),
            warm=before.warm if before else start is not None and start.warm,
            leaving=bool(before and before.drain_since),
            stop_underway=seen.name in inputs.stopping,
            start_underway=start is not None or now < seen.created_at + START_GRACE,
            in_hooks=start is not None and bool(spec.post_start),
            completes=seen.managed and seen.exit_code == 0 and not will_restart(spec, 0, 0),
        ),
    )
    if before and before.phase is phase:
        return before
    # A replica that is already paused when first seen belongs to the previous process's warm pool.
    warm = (phase is Phase.PAUSED and seen.managed) or bool(start and start.warm)
    foreign = phase is Phase.STOPPING and not (before and before.drain_since)
    return ReplicaRecord(
        incarnation=incarnation,
        phase=phase,
        since=now,
        ready_since=now if phase is Phase.READY else before.ready_since if before else 0.0,
        drain_since=before.drain_since if before else 0.0,
        cause=before.cause if before else "",
        attempt=before.attempt if before else start.attempt if start else _attempt_of(seen),
        counted_as_failure=before.counted_as_failure if before else False,
        warm=before.warm if before else warm,
        plain=before.plain if before else plain,
        resumed_at=before.resumed_at if before else 0.0,
        replaced_for=before.replaced_for if before else "",
        ended_by_others=(before.ended_by_others if before else False)
        or (foreign and seen.name not in inputs.stopping),
    )


def _awaited_health(seen: ObservedReplica) -> ContainerHealth:
    """The health check that a replica waits for. An adopted container with a probe (`mesh.health`)
    does not wait for the engine's first check, which comes after a whole interval of it; a check
    that failed counts."""
    if seen.managed or seen.health is not ContainerHealth.STARTING:
        return seen.health
    probe = [key for key in seen.labels if key == HEALTH or key.startswith(f"{HEALTH}.")]
    probed = bool(probe) and seen.labels.get(HEALTH) != "none"
    return ContainerHealth.NONE if probed else seen.health


def _was_stopped_by_others(before: ReplicaRecord | None, record: ReplicaRecord) -> bool:
    """Whether the replica has just ended, stopped by something other than meshd."""
    has_ended = record.phase is Phase.GONE and before is not None and before.phase not in ENDED
    return has_ended and record.ended_by_others and not record.drain_since


def _replica_of(seen: ObservedReplica, record: ReplicaRecord, inputs: Inputs) -> Replica:
    probe = inputs.probes.get(seen.name) or ProbeResult()
    known = (seen.host, *seen.alternatives) if seen.host and seen.alternatives else ()
    host = probe.host if probe.host in known else seen.host
    ended, started = seen.state is ReplicaState.EXITED, seen.started_at or seen.created_at
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
        started_at=seen.started_at,
        ready_since=record.ready_since,
        drain_since=record.drain_since,
        drained=seen.name in inputs.drained,
        in_flight=inputs.in_flight.get(seen.name, 0),
        bad=probe.bad,
        health=seen.health,
        probe=probe.text,
        cause=record.cause,
        counted_as_failure=record.counted_as_failure,
        attempt=record.attempt,
        exit_code=seen.exit_code if ended else None,
        ended_at=seen.finished_at if ended else 0.0,
        uptime=max(0.0, seen.finished_at - started) if ended else 0.0,
        oom_killed=seen.oom_killed,
        busy=_is_busy(seen.name, inputs),
        plain=record.plain,
        in_hooks=seen.name in inputs.starting and record.phase is Phase.STARTING,
        paused_by_others=seen.state is ReplicaState.PAUSED and record.phase is not Phase.PAUSED,
        drift=seen.drift,
        replaced_for=record.replaced_for,
        unready=probe.unready,
        warm=record.warm,
        answered=bool(probe.first_good),
        resumed_at=record.resumed_at,
        host=host,
        port=seen.port,
        node=seen.node,
        addresses=seen.addresses,
        gateways=seen.gateways,
        alternatives=tuple(each for each in known if each != host),
        error=seen.error,
        placed=seen.labels.get(PLACED, ""),
    )


def _is_busy(name: str, inputs: Inputs) -> bool:
    return name in inputs.stopping or name in inputs.pausing_or_resuming or name in inputs.starting


def _pending_replica(start: StartReplica, record: ReplicaRecord, inputs: Inputs) -> Replica:
    spec = inputs.specs.get(start.key, _UNKNOWN)
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
        plain=spec.plain,
        in_hooks=any(step.per_replica for step in spec.pre_start),
        drain_since=record.drain_since,
        warm=record.warm,
    )


def describe_exit(code: int | None, oom_killed: bool = False, error: str = "") -> str:
    """Describe for people how a replica ended. `error`: see `ObservedReplica`."""
    if oom_killed:
        return "was killed: out of memory"
    if code is None:
        return error or "was created but never started"
    if code in KILLED:
        return "was killed (SIGKILL)"
    return f"exited with code {code}"


def _record_exit(
    memory: ReconcileMemory,
    replica: Replica,
    inputs: Inputs,
    now: float,
    random: RandomSource,
) -> ReconcileMemory:
    """Count a managed replica that ended by itself, and open a slot for its successor. One that
    others stopped is not a failure, but its successor backs off too: others may stop each one."""
    spec = inputs.specs.get(replica.key, _UNKNOWN)
    attempt = replica.attempt if replica.uptime < spec.restart.window else 0
    version = (replica.key, replica.revision)
    restarts = will_restart(spec, replica.exit_code, attempt)
    if replica.phase is Phase.GONE:
        if not restarts:
            return memory
        return open_slot(memory, version, attempt, spec.restart, now, random)
    end = describe_exit(replica.exit_code, replica.oom_killed, replica.error)
    # A container that was created but never started says nothing about its revision: the process
    # that was to start it ended before.
    outside = replica.exit_code is None or replica.exit_code in KILLED
    report = FailureReport(
        version=version,
        replica=replica.name,
        text=f"{replica.name} {end} after {replica.uptime:.1f} s",
        attempt=attempt,
        final=not restarts,
        external=restarts and outside and not replica.oom_killed,
        restarts=restarts,
    )
    return record_failure(memory, report, spec.restart, now, random)


def _attempt_of(seen: ObservedReplica) -> int:
    """Return the number of quick failures before a start that a previous process ordered."""
    text = seen.labels.get(ATTEMPT, "")
    return int(text) if text.isdecimal() else 0
