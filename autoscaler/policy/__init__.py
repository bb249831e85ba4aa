"""How many replicas: the policy and the published ones it is measured against.

Belongs here: pure functions from (state, signal, now) to (state, decision). Does not belong
here: the simulator that drives them, and anything that acts on a decision.
"""

from autoscaler.policy.policy import Policy
from autoscaler.settings import ScalingSettings

__all__ = ["Policy", "make"]


def make(settings: ScalingSettings) -> Policy:
    """The policy for `settings`."""
    return Policy(settings)
