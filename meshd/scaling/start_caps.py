"""Caps on growing numbers, so that no more replicas are on their way than the nodes can start.
Pure.

`meshd.scaling.controller` calls `start_caps` every second for all scaled services together. What
the nodes can start is learned in `meshd.capacity.start_rate`; `meshd.reconcile.plan.start_limit`
chooses which of the ordered replicas start first.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from meshd.capacity.start_rate import ReplicaStart, grant_starts, patience
from meshd.model.replica import Replica
from meshd.model.replica_phase import ALIVE, Phase
from meshd.model.service_key import ServiceKey
from meshd.scaling.decide import Cap


@dataclass(frozen=True, slots=True)
class Growth:
    """A service whose number is to grow.

    - `needed`: replicas that the policy asks for.
    - `base`: replicas that it gets in any case: the present number, its minimum, those of the warm
      pool that are resumed at once, and the first one of a service at zero.
    - `priority`: higher ones are served first.
    """

    needed: int
    base: int
    priority: int = 0


def growth_of(
    current: int, needed: int, minimum: int, priority: int, replicas: Iterable[Replica]
) -> Growth:
    """Return the growth from `current` to `needed`; `replicas` are those of the service."""
    paused = sum(each.warm and each.phase is Phase.PAUSED for each in replicas)
    return Growth(needed, max(current + paused, minimum, 1), priority)


def not_yet_started(
    current: int, replicas: Iterable[Replica], age: float, starts: Sequence[ReplicaStart]
) -> int:
    """Return how many of the `current` replicas wait for their start. `age`: seconds since the
    number changed. Later, missing ones are replicas that failed."""
    replicas = list(replicas)
    keys = {each.key for each in replicas}
    longest = max((each.seconds for each in starts if each.key in keys), default=None)
    if age > patience(longest):
        return 0
    return max(0, current - sum(each.phase in ALIVE and not each.warm for each in replicas))


def start_caps(
    growths: Mapping[ServiceKey, Growth], under_way: int, capacity: int
) -> dict[ServiceKey, Cap]:
    """Return the cap of each service that may not grow as far as needed. `under_way` replicas of
    all services will be ready soon; the nodes can start `capacity` at the same time."""
    wanted = {key: each.needed - each.base for key, each in growths.items()}
    wanted = {key: number for key, number in wanted.items() if number > 0}
    priorities = {key: growths[key].priority for key in wanted}
    granted = grant_starts(wanted, priorities, max(0, capacity - under_way))
    caps = {}
    for key, extra in granted.items():
        if extra < wanted[key]:
            number = growths[key].base + extra
            used = under_way + sum(granted.values()) - extra
            starts = "1 start is" if used == 1 else f"{used} starts are"
            reason = (
                f"but {number} for now: {starts} under way, and the nodes carry about {capacity} "
                "at the same time"
            )
            caps[key] = Cap(number, "starts", reason)
    return caps
