"""The limits of a decision that need a memory: windows, cooldown, and room on the nodes. Pure
but for that memory."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from meshd.capacity.allocate import Allocation, Demand, share, takes
from meshd.capacity.job_demand import JobDemand, want
from meshd.capacity.quota import held, uses
from meshd.model.desired import DesiredService
from meshd.model.runtime import Node
from meshd.scaling.decide import Cap, ScalingDecision
from meshd.spec.model import Quota, Scale


def room(
    nodes: Sequence[Node],
    services: Sequence[DesiredService],
    wishes: Mapping[str, ScalingDecision],
    by_hand: Mapping[str, int],
    limits_memory: bool,
    quotas: Mapping[str, Quota],
    jobs: Sequence[JobDemand] = (),
) -> dict[str, Allocation]:
    """What the nodes have room for and the projects' `quotas` leave beside the `jobs` that run, by
    service key. `by_hand` numbers are not to be withheld."""
    wants = []
    for service in services:
        key, scale = service.key, service.spec.mesh.scale
        cpus, memory = takes(service.spec, limits_memory)
        wanted = fixed = by_hand.get(key, service.desired)
        if key in wishes and key not in by_hand and scale is not None:
            wanted, fixed = wishes[key].decision.desired, scale.min
        priority = scale.priority if scale else 0
        warm = service.warm
        wants.append(Demand(key, wanted + warm, fixed + warm, priority, cpus, memory))
    grants = share(nodes, [*wants, *(want(job, limits_memory) for job in jobs)])
    taken = [(job.project, *uses(job.service)) for job in jobs]
    for key, grant in held(quotas, services, wants, taken).items():
        if grant.count < grants[key].count:
            grants[key] = grant
    return {
        service.key: replace(grants[service.key], count=grants[service.key].count - service.warm)
        for service in services
    }


class ChangeRateLimit:
    """How fast the number of one service may change."""

    def __init__(self) -> None:
        self._changed = 0.0
        self._rising: float | None = None

    def changed(self, now: float) -> None:
        """The number is another one from now on."""
        self._changed, self._rising = now, None

    def cooling(self, scale: Scale, now: float) -> bool:
        """Whether a change is so short ago that nothing may go."""
        return now - self._changed < scale.cooldown

    def ceilings(self, scale: Scale, current: int, wanted: int, now: float) -> list[Cap]:
        """While more has not been wanted for long enough. From zero nothing waits."""
        if wanted <= current or not current:
            self._rising = None
            return []
        if self._rising is None:
            self._rising = now
        if now - self._rising >= scale.up_window:
            return []
        why = f"and more must have been wanted for {scale.up_window:g} s"
        return [Cap(current, "up_window", why)]
