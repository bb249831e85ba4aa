"""The plan: the steps from the observed to the desired state that are safe now. Pure.

`meshd.reconcile.loop` makes one in every pass and applies it. Every plan starts from the observed
state, so a step that was lost in a crash is planned again. Replicas leave in three steps: they are
drained (out of rotation), stopped once no worker uses them or their deadline has passed, and
removed. `service` plans one service; this module adds dependencies, removed services and the limit
of simultaneous starts.
"""

from collections.abc import Mapping, Sequence

import msgspec

from meshd.capacity.silent_nodes import find_silent_nodes
from meshd.model.desired import Desired
from meshd.model.operation import DrainReplica, ForgetProject, Operation, Plan, StartReplica
from meshd.model.replica import RandomSource, Replica
from meshd.model.service_key import ServiceKey
from meshd.reconcile.observe.observe import Observed
from meshd.reconcile.plan import start_limit
from meshd.reconcile.plan.dependencies import DependencyChecker
from meshd.reconcile.plan.removal import remove_all
from meshd.reconcile.plan.service import is_settled, plan_service


def plan(desired: Desired, observed: Observed, now: float, random: RandomSource) -> Plan:
    """Return the steps that are safe now; only drains while the runtime does not respond."""
    groups: dict[ServiceKey, list[Replica]] = {}
    for replica in observed.replicas:
        groups.setdefault(replica.key, []).append(replica)
    counts = {service.key: service.desired for service in desired.services}
    operations: list[Operation] = []
    waiting: list[tuple[ServiceKey, str]] = []
    blocked: list[tuple[ServiceKey, str]] = []
    dependencies = DependencyChecker(desired.services, groups)
    for service in desired.services:
        group = groups.get(service.key, ())
        if is_settled(service, group):
            continue
        state = dependencies.check(service)
        part = plan_service(service, group, observed, state, now, random)
        operations += part.operations
        if part.waiting_for:
            waiting.append((service.key, part.waiting_for))
            if state.has_failed and part.waiting_for == state.blocker:
                blocked.append((service.key, part.waiting_for))
    operations += _remove_others(desired, groups, now)
    for project in sorted(desired.leaving - observed.projects_with_jobs):
        if not any(r.project == project and r.managed for r in observed.replicas):
            operations.append(ForgetProject(project=project, cause="no replica is left"))
    operations, held = start_limit.limit_starts(
        operations, observed.replicas, counts, observed.start_slots, now
    )
    if operations:
        operations = _avoid_silent_nodes(operations, observed.replicas)
    waiting_keys = {key for key, _ in waiting}
    waiting += [
        (key, f"{count} more to start; {observed.start_slots} may start at once on the nodes")
        for key, count in held.items()
        if key not in waiting_keys
    ]
    if not observed.available:
        operations = [op for op in operations if isinstance(op, DrainReplica)]
        waiting = [(service.key, "the runtime does not respond") for service in desired.services]
    return Plan(tuple(operations), tuple(waiting), tuple(blocked))


def _avoid_silent_nodes(
    operations: Sequence[Operation], replicas: Sequence[Replica]
) -> list[Operation]:
    """Return the operations; starts are kept from nodes on which no replica answers."""
    if not any(isinstance(each, StartReplica) for each in operations):
        return list(operations)
    avoid = find_silent_nodes(replicas)
    return [
        msgspec.structs.replace(each, avoid=avoid) if isinstance(each, StartReplica) else each
        for each in operations
    ]


def _remove_others(
    desired: Desired, groups: Mapping[ServiceKey, Sequence[Replica]], now: float
) -> list[Operation]:
    """The removal of replicas whose service is not desired any more."""
    operations: list[Operation] = []
    keys = {service.key for service in desired.services}
    for key, group in groups.items():
        project = group[0].project
        if key not in keys and (project in desired.projects or project in desired.leaving):
            down = project in desired.leaving
            cause = "the project goes down" if down else "the spec has no such service any more"
            operations += remove_all(group, cause, now)
    return operations
