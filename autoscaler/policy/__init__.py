"""The scaling policy of meshd: pure functions from (state, signal, now) to (state, decision).

`meshd.scaling` and the simulator call `make(settings).step`. `policy` combines the parts: `demand`
and `season` estimate the load, `capacity` what a replica can serve, `objectives` how many replicas
that takes, `budget` how cautiously to size, `gain_check` whether more replicas help, `change_cost`
whether a change is worth it, `warm_pool` how many replicas to keep paused. `explain` writes the
reason. What is remembered between steps is in `state`.

The simulator that drives a policy, and everything that acts on a decision, are elsewhere.
"""

from autoscaler.policy.policy import Policy
from autoscaler.settings import ScalingSettings

__all__ = ["Policy", "make"]


def make(settings: ScalingSettings) -> Policy:
    """Return the policy for `settings`."""
    return Policy(settings)
