"""Limits on a decision beyond the policy's own: capacity, cooldown and the up window.

`meshd.scaling.controller` calls them every second. `allocate_capacity` is pure; `ChangeRateLimit`
only remembers times that it is given.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from meshd.capacity.allocate import Allocation, Demand, allocate, reservation
from meshd.capacity.job_demand import JobDemand, demand_of
from meshd.capacity.quota import allocate_by_quota, usage_limit
from meshd.model.desired import DesiredService
from meshd.model.runtime import Node
from meshd.scaling.decide import Cap, ScalingDecision
from meshd.spec.model import Quota, Scale


def allocate_capacity(
    nodes: Sequence[Node],
    services: Sequence[DesiredService],
    decisions: Mapping[str, ScalingDecision],
    overrides: Mapping[str, int],
    limits_memory: bool,
    quotas: Mapping[str, Quota],
    jobs: Sequence[JobDemand] = (),
) -> dict[str, Allocation]:
    """Return what the nodes and the `quotas` (by project) allow each service, by key, next to the
    running `jobs`. Numbers set by hand (`overrides`) are always allowed."""
    demands = []
    for service in services:
        key, scale = service.key, service.spec.mesh.scale
        cpus, memory = reservation(service.spec, limits_memory)
        desired = fixed = overrides.get(key, service.desired)
        if key in decisions and key not in overrides and scale is not None:
            desired, fixed = decisions[key].decision.desired, scale.min
        priority = scale.priority if scale else 0
        warm = service.warm
        demands.append(Demand(key, desired + warm, fixed + warm, priority, cpus, memory))
    allocations = allocate(nodes, [*demands, *(demand_of(job, limits_memory) for job in jobs)])
    used = [(job.project, *usage_limit(job.service)) for job in jobs]
    for key, by_quota in allocate_by_quota(quotas, services, demands, used).items():
        if by_quota.count < allocations[key].count:
            allocations[key] = by_quota
    return {
        service.key: replace(
            allocations[service.key], count=allocations[service.key].count - service.warm
        )
        for service in services
    }


class ChangeRateLimit:
    """How fast the number of one service may change: the cooldown, and the up window."""

    def __init__(self) -> None:
        self._changed_at = 0.0
        self._rising_since: float | None = None

    @property
    def changed_at(self) -> float:
        """Time of the last change of the number (Unix time); 0: unknown."""
        return self._changed_at

    def record_change(self, now: float) -> None:
        """Remember that the number changed at `now`."""
        self._changed_at, self._rising_since = now, None

    def is_cooling(self, scale: Scale, now: float) -> bool:
        """Return whether the cooldown after the last change lasts, so that no replica may go."""
        return now - self._changed_at < scale.cooldown

    def caps(self, scale: Scale, current: int, needed: int, now: float) -> list[Cap]:
        """Return a cap at `current` until more was needed for the up window. A service at zero
        does not wait."""
        if needed <= current or not current:
            self._rising_since = None
            return []
        if self._rising_since is None:
            self._rising_since = now
        if now - self._rising_since >= scale.up_window:
            return []
        reason = f"but not yet for the up window of {scale.up_window:g} s"
        return [Cap(current, "up_window", reason)]
