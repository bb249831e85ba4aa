"""Decide how many replicas a service needs, from one second of its traffic. Pure.

`meshd.scaling` calls it once a second for every scaled service. `meshd simulate` and
`bench/autoscaling.py` call it with a replayed trace.

Belongs here: the values that go in and out (`settings`, `signals`, `decision`), the policy
(`policy/`, `limits`, `window`), published policies for comparison (`baselines/`), and the
simulator (`simulate/`). Does not belong here: a clock, I/O, random numbers (all three are
arguments), and anything of the proxy or the control process.

    policy = make(ScalingSettings(min=1, max=20, latency=0.2, share=95.0))
    state = policy.initial(now)
    state, decision = policy.step(state, signal, now)      # once a second
"""

from autoscaler.decision import Decision
from autoscaler.policy import Policy, make
from autoscaler.policy.state import State, dump, forget_future, load
from autoscaler.settings import ScalingSettings
from autoscaler.signals import Signal

__all__ = [
    "Decision",
    "Policy",
    "ScalingSettings",
    "Signal",
    "State",
    "dump",
    "forget_future",
    "load",
    "make",
]
