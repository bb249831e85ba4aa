"""Starts a service that has no replica. Requests wait for it, so nothing may delay the start.

`meshd.scaling.controller` uses it when a worker reports parked requests. Workers report the first
parked request at once, and again each time their number has doubled. So the number of replicas is
known within the burst that needs them, not a second later.
"""

from dataclasses import dataclass, field, replace
from typing import Final

import autoscaler
from autoscaler import ScalingSettings, Signal, State

SIGNAL_DELAY: Final = 3.0
"""Seconds until the requests that started the service are in the signal too: reports arrive once a
second, and a second counts as complete up to 1.5 s late."""


@dataclass(slots=True)
class ColdStart:
    """A service on its way up from zero.

    - `began`: time of the first parked request (Unix time).
    - `floor`: number of replicas ordered; holds until `until` (Unix time), when the policy knows
      the requests too.
    - `ready`: whether the first replica is ready.
    - `parked`: requests waiting, by worker.
    """

    began: float
    floor: int = 0
    until: float = 0.0
    ready: bool = False
    parked: dict[int, int] = field(default_factory=dict)

    def add_parked(self, worker: int, parked: int) -> int:
        """Update the requests waiting at one worker; return how many wait at all workers."""
        self.parked[worker] = max(parked, self.parked.get(worker, 0))
        return sum(self.parked.values())


def replicas_for(
    settings: ScalingSettings, state: State, parked: int, now: float
) -> tuple[int, float]:
    """Return the replicas that this many parked requests need at once, and the seconds that one
    takes to start.

    The policy runs on a made-up second and its new state is dropped. The step size does not apply:
    it limits changes of a running number, and at zero there is none.
    """
    unlimited = replace(settings, step_up_least=settings.max)
    signal = Signal(arrivals=parked, parked=parked)
    _, decision = autoscaler.make(unlimited).step(state, signal, now)
    return max(1, decision.desired), decision.numbers.get("startup", 0.0)
