"""The limits of a decision that need a memory: windows, cooldown, and room on the nodes. Pure
but for that memory."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from meshd.jobs.room import Burden, want
from meshd.reconcile.desired import DesiredService
from meshd.runtime.base import Node
from meshd.scaling.quota import held, uses
from meshd.scaling.room import Grant, Want, share, takes
from meshd.scaling.verdict import Ceiling, Verdict
from meshd.spec.model import Quota, Scale


def room(
    nodes: Sequence[Node],
    services: Sequence[DesiredService],
    wishes: Mapping[str, Verdict],
    by_hand: Mapping[str, int],
    limits_memory: bool,
    quotas: Mapping[str, Quota],
    jobs: Sequence[Burden] = (),
) -> dict[str, Grant]:
    """What the nodes have room for and the projects' `quotas` leave beside the `jobs` that run, by
    service key. `by_hand` numbers are not to be withheld."""
    wants = []
    for service in services:
        key, scale = service.key, service.spec.mesh.scale
        cpus, memory = takes(service.spec, limits_memory)
        wanted = fixed = by_hand.get(key, service.count)
        if key in wishes and key not in by_hand and scale is not None:
            wanted, fixed = wishes[key].decision.desired, scale.min
        priority = scale.priority if scale else 0
        warm = service.warm
        wants.append(Want(key, wanted + warm, fixed + warm, priority, cpus, memory))
    grants = share(nodes, [*wants, *(want(job, limits_memory) for job in jobs)])
    taken = [(job.project, *uses(job.service)) for job in jobs]
    for key, grant in held(quotas, services, wants, taken).items():
        if grant.count < grants[key].count:
            grants[key] = grant
    return {
        service.key: replace(grants[service.key], count=grants[service.key].count - service.warm)
        for service in services
    }


class Pace:
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

    def ceilings(self, scale: Scale, current: int, wanted: int, now: float) -> list[Ceiling]:
        """While more has not been wanted for long enough. From zero nothing waits."""
        if wanted <= current or not current:
            self._rising = None
            return []
        if self._rising is None:
            self._rising = now
        if now - self._rising >= scale.up_window:
            return []
        why = f"and more must have been wanted for {scale.up_window:g} s"
        return [Ceiling(current, "up_window", why)]
