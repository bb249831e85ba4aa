"""Decide how many replicas a service needs, from one second of its traffic. Pure.

`meshd.scaling` calls it once a second for every scaled service. `meshd simulate` and
`bench/autoscaling.py` call it with a replayed trace. The package reads no clock, does no I/O and
draws no random numbers: time and random generators are arguments. It imports nothing of the proxy
or of the control process.

- `settings`, `signals`, `decision`: the values that go in and out.
- `policy/`: the policy itself. `limits`: bounds and step sizes. `window`: short histories.
- `baselines/`: published policies for comparison. `simulate/`: the simulator.

    policy = make(ScalingSettings(min=1, max=20, latency=0.2, share=95.0))
    state = policy.initial(now)
    state, decision = policy.step(state, signal, now)      # once a second
"""

from autoscaler.decision import Decision
from autoscaler.policy import Policy, make
from autoscaler.policy.state import State, dump, load
from autoscaler.settings import ScalingSettings
from autoscaler.signals import Signal

__all__ = ["Decision", "Policy", "ScalingSettings", "Signal", "State", "dump", "load", "make"]
