"""Builds the status of projects, services and replicas from the state of a pass. Pure.

`status_reader` calls it for the API (`meshd ps`, `meshd top`) and for `/metrics`.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from meshd.api.dto import ProjectStatus, ReplicaStatus, ServiceStatus
from meshd.model.desired import DesiredService
from meshd.model.replica import Replica
from meshd.model.replica_phase import ALIVE, ENDED, Phase
from meshd.model.rollout import Override, StoredProject
from meshd.model.scaling import Load, cpu_percent
from meshd.reconcile.observe.observe import Observed, describe_exit
from meshd.reconcile.progress import CRASH_LOOP_FAILURES, phase_word, service_state
from meshd.reconcile.restart_policy import has_completed, stays_ended
from meshd.reconcile.rollout.status import rollout_status
from meshd.spec.advice import describe_kind
from meshd.spec.model import Service
from meshd.telemetry.ingest import Ingest
from meshd.telemetry.merge import MergedService

WINDOW: Final = 5
"""Seconds of traffic that rates and latencies are computed from."""
_RUNS = (Phase.STARTING, Phase.PROBING, Phase.READY, Phase.DRAINING, Phase.STOPPING)


def by_service(replicas: Sequence[Replica]) -> dict[str, list[Replica]]:
    """Return the replicas by service key."""
    groups: dict[str, list[Replica]] = {}
    for replica in replicas:
        groups.setdefault(replica.key, []).append(replica)
    return groups


def project_statuses(
    stored: Mapping[str, StoredProject],
    services: Sequence[ServiceStatus],
    elsewhere: frozenset[str],
    refused: Mapping[str, str],
) -> tuple[ProjectStatus, ...]:
    """Return the status of every project by name.

    - `stored`: the projects that are deployed here.
    - `elsewhere`: stored projects that another mesh holds.
    - `refused`: why a project is left alone, by name.
    """
    groups: dict[str, list[ServiceStatus]] = {name: [] for name in (*stored, *refused)}
    for service in services:
        groups.setdefault(service.project, []).append(service)
    found = []
    for name, group in sorted(groups.items()):
        known = stored.get(name)
        if name in elsewhere or name in refused:
            state = "elsewhere"
        elif known is None:
            state = "adopted"
        else:
            state = "going down" if known.leaving else "up"
        found.append(
            ProjectStatus(
                name=name,
                state=state,
                services=len(group) or (len(known.project.services) if known else 0),
                ready=sum(service.ready for service in group),
                desired=sum(service.desired for service in group),
                who=known.who if known else "",
                at=known.at if known else 0.0,
                detail=refused.get(name, ""),
                trace_url=known.project.trace_url if known else "",
            )
        )
    return tuple(found)


def service_status(
    service: DesiredService,
    replicas: Sequence[Replica],
    observed: Observed,
    waiting: str,
    ingest: Ingest,
    override: Override | None,
    last: str,
    loads: Mapping[str, Load],
    published: Service,
    addresses: Sequence[str],
    now: float,
) -> ServiceStatus:
    """Return the status of one service with its replicas.

    - `waiting`: what it waits for; empty if it waits for nothing.
    - `last`: text of its last event.
    - `loads`: CPU and memory use by replica.
    - `published`: its spec with the ports of the host that were chosen for it.
    - `addresses`: its virtual addresses on the networks that it declares.
    """
    kind = describe_kind(published)
    scale = service.spec.mesh.scale
    window = ingest.window(service.key, WINDOW, now)
    total: MergedService = ingest.total(service.key)
    slots = observed.slots.get((service.key, service.revision), ())
    endpoints = window.endpoints
    analyses = observed.analyses or {}
    rollout = rollout_status(service, replicas, analyses.get(service.key))
    return ServiceStatus(
        project=service.project,
        name=service.spec.name,
        desired=service.desired,
        running=sum(r.phase in _RUNS for r in replicas),
        ready=sum(r.serves for r in replicas),
        paused=sum(r.phase is Phase.PAUSED for r in replicas),
        completed=sum(has_completed(service, r) for r in replicas),
        minimum=scale.min if scale else service.spec.replicas,
        maximum=scale.max if scale else service.spec.replicas,
        revision=service.revision,
        state=service_state(service, replicas, waiting, {s.attempt: s.not_before for s in slots}),
        routes=tuple(str(route) for route in service.spec.mesh.routes),
        kind=kind.kind,
        why=kind.why,
        reached=(*kind.reached, *addresses),
        ports=tuple(map(str, published.ports)),
        rps=window.rps,
        in_flight=float(window.in_flight),
        p50=window.p50,
        p95=window.p95,
        p99=window.p99,
        requests_total=total.completions,
        errors_total=total.errors,
        errors_per_second=window.errors_per_second,
        retries_total=total.retries,
        parked=window.merged.parked,
        streams=window.merged.streams,
        override=override.replicas if override else None,
        override_until=override.until if override else 0.0,
        last=waiting or last,
        waiting=waiting,
        new_revision=rollout.new_revision,
        stage=rollout.stage,
        analysis=rollout.analysis,
        replicas=tuple(
            _replica_status(
                r,
                r.name in endpoints and endpoints[r.name].ejected_by > 0,
                loads.get(r.name),
                service.spec.resources.cpus,
            )
            for r in sorted(replicas, key=lambda r: (r.created_at, r.name))
            if r.phase is not Phase.GONE or stays_ended(service, r)
        ),
    )


def _replica_status(
    replica: Replica, ejected: bool, load: Load | None, limit: float
) -> ReplicaStatus:
    phase = phase_word(replica)
    if (
        replica.attempt >= CRASH_LOOP_FAILURES
        and replica.phase in ALIVE | ENDED
        and not replica.ready_since
    ):
        phase = "crash-loop"
    reason = replica.cause or replica.drift
    if replica.in_hooks:
        reason = "its pre_start or post_start commands run"
    elif replica.plain and replica.phase is Phase.PROBING:
        reason = "its container's health check has not passed yet"
    if not reason and replica.phase in (Phase.COMPLETED, Phase.FAILED):
        reason = describe_exit(replica.exit_code, replica.oom_killed, replica.error)
    if not reason and (replica.bad or replica.unready or replica.phase is Phase.PROBING):
        reason = replica.probe
    return ReplicaStatus(
        name=replica.name,
        service=replica.key,
        revision=replica.revision,
        phase=phase,
        node=replica.node,
        address=f"{replica.host}:{replica.port}" if replica.host else "",
        managed=replica.managed,
        reason=reason,
        since=replica.since,
        restarts=replica.attempt,
        in_flight=replica.in_flight,
        ejected=ejected,
        cpu=cpu_percent(load, limit),
        memory=load.memory if load else None,
        cores=load.cores if load else None,
        placed=replica.placed,
    )
