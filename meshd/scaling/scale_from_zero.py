"""Waking a service that has no replica: the first request waits, so nothing else may.

Workers tell of the first parked request at once, and again each time their number doubled. So
the number needed is known within the burst that makes it, not a second later.
"""

from dataclasses import dataclass, field, replace
from typing import Final

import autoscaler
from autoscaler import ScalingSettings, Signal, State

SEEN: Final = 3.0
"""Seconds until what woke the service is in the signal too."""


@dataclass(slots=True)
class ScaleFromZero:
    """A service on its way up from zero. `floor` holds until `until`; `parked` is by worker."""

    began: float
    floor: int = 0
    until: float = 0.0
    answered: bool = False
    parked: dict[int, int] = field(default_factory=dict)

    def more(self, worker: int, parked: int) -> int:
        """So many wait at one worker by now; how many wait in all."""
        self.parked[worker] = max(parked, self.parked.get(worker, 0))
        return sum(self.parked.values())


def demanded(settings: ScalingSettings, state: State, parked: int, now: float) -> tuple[int, float]:
    """Replicas that so many parked requests want at once, and the seconds one takes to start.
    The policy is asked what it would do with that second; nothing is learned from it. Steps
    are for services that run: from zero there is no number to be careful with."""
    free = replace(settings, step_up_least=settings.max)
    second = Signal(arrivals=parked, parked=parked)
    _, decision = autoscaler.make(free).step(state, second, now)
    return max(1, decision.desired), decision.numbers.get("startup", 0.0)
