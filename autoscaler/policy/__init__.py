"""How many replicas: the policy and the published ones it is measured against.

Belongs here: pure functions from (state, signal, now) to (state, decision). Does not belong
here: the simulator that drives them, and anything that acts on a decision.
"""

from autoscaler.policy.ours import Policy
from autoscaler.settings import Settings

__all__ = ["Policy", "make"]


def make(settings: Settings) -> Policy:
    """The policy for `settings`."""
    return Policy(settings)
