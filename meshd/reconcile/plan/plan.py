"""The plan: from what is wanted and what is seen to the steps that are safe now. Pure.

Every pass plans anew from what is there, so a step that was lost with a crash is simply
planned again. A replica always leaves by the same road: drained (out of rotation), stopped
once nobody uses it or its deadline passed, removed.
"""

from collections.abc import Mapping, Sequence

from meshd.model.desired import Desired, DesiredService
from meshd.model.operation import DrainReplica, Forget, Operation, Plan
from meshd.model.replica import RandomSource, Replica
from meshd.model.replica_phase import Phase
from meshd.reconcile.observe.observe import Observed
from meshd.reconcile.plan import start_limit
from meshd.reconcile.plan.removal import leave
from meshd.reconcile.plan.service import at_rest, plan_service


def plan(desired: Desired, observed: Observed, now: float, dice: RandomSource) -> Plan:
    """The steps that are safe now. While the runtime does not answer: only drains."""
    groups: dict[str, list[Replica]] = {}
    for replica in observed.replicas:
        groups.setdefault(replica.key, []).append(replica)
    wanted = {service.key: service.count for service in desired.services}
    operations: list[Operation] = []
    waiting: list[tuple[str, str]] = []
    for service in desired.services:
        group = groups.get(service.key, ())
        if at_rest(service, group):
            continue
        blocker = _blocker(service, wanted, groups)
        part = plan_service(service, group, observed, blocker, now, dice)
        operations += part.operations
        if part.waits:
            waiting.append((service.key, part.waits))
    for key, group in groups.items():
        project = group[0].project
        if key not in wanted and (project in desired.projects or project in desired.leaving):
            down = project in desired.leaving
            cause = "the project goes down" if down else "the spec has no such service any more"
            operations += leave(group, cause, now)
    for project in sorted(desired.leaving - observed.working):
        if not any(r.project == project and r.managed for r in observed.replicas):
            operations.append(Forget(project=project, cause="no replica is left"))
    operations, held = start_limit.admit(
        operations, observed.replicas, wanted, observed.places, now
    )
    told = {key for key, _ in waiting}
    waiting += [
        (key, f"{count} more to start; {observed.places} may do so at once on the nodes")
        for key, count in held.items()
        if key not in told
    ]
    if not observed.available:
        operations = [op for op in operations if isinstance(op, DrainReplica)]
        waiting = [(service.key, "the runtime does not answer") for service in desired.services]
    return Plan(operations=tuple(operations), waiting=tuple(waiting))


def _blocker(
    service: DesiredService,
    wanted: Mapping[str, int],
    groups: Mapping[str, Sequence[Replica]],
) -> str:
    """What the service has to wait for before its first start; empty when nothing."""
    for name in service.spec.depends_on:
        key = f"{service.project}/{name}"
        phases = {replica.phase for replica in groups.get(key, ())}
        if wanted.get(key, 0) == 0 or Phase.READY in phases:
            continue
        if name in service.spec.wait_healthy:
            return f"waits for {name}, which has no ready replica yet"
        if not phases & {Phase.STARTING, Phase.PROBING}:
            return f"waits for {name}, which has not been started yet"
    return ""
