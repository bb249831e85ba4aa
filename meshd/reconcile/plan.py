"""The plan: from what is wanted and what is seen to the steps that are safe now. Pure.

Every pass plans anew from what is there, so a step that was lost with a crash is simply
planned again. A replica always leaves by the same road: drained (out of rotation), stopped
once nobody uses it or its deadline passed, removed.
"""

from collections.abc import Mapping, Sequence

from meshd.reconcile import starts
from meshd.reconcile.desired import Desired, DesiredService
from meshd.reconcile.leaving import leave
from meshd.reconcile.memory import Dice, Replica
from meshd.reconcile.observed import Observed
from meshd.reconcile.operation import Drain, Forget, Operation, Plan
from meshd.reconcile.phase import Phase
from meshd.reconcile.service_plan import at_rest, plan_service


def plan(desired: Desired, observed: Observed, now: float, dice: Dice) -> Plan:
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
    operations, held = starts.admit(operations, observed.replicas, wanted, observed.places, now)
    told = {key for key, _ in waiting}
    waiting += [
        (key, f"{count} more to start; {observed.places} may do so at once on the nodes")
        for key, count in held.items()
        if key not in told
    ]
    if not observed.available:
        operations = [op for op in operations if isinstance(op, Drain)]
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
