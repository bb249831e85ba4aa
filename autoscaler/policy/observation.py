"""Everything that one step of the policy decides from. Pure.

`policy.policy` makes it; `policy.explain` writes it into the reason of the decision.
"""

from dataclasses import dataclass

from autoscaler.policy.objectives import Need, ReplicaSizing
from autoscaler.policy.state import CapacityEstimate, DemandEstimate, GainCap
from autoscaler.settings import ScalingSettings
from autoscaler.signals import Signal


@dataclass(frozen=True, slots=True)
class Observation:
    """The input of one step.

    - `current`: number of replicas decided last.
    - `needs`: need of each objective, by name.
    - `cap`: the cap by replicas that did not help, while it applies; None: no such cap.
    - `now`: seconds.
    """

    settings: ScalingSettings
    signal: Signal
    current: int
    demand: DemandEstimate
    capacity: CapacityEstimate
    sizing: ReplicaSizing
    needs: dict[str, Need]
    cap: GainCap | None
    now: float

    @property
    def top_objective(self) -> str | None:
        """The objective that needs the most replicas; None without any."""
        needs = self.needs
        return max(needs, key=lambda name: needs[name].up) if needs else None
