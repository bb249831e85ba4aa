"""The scaling path: signals → window → policy → limits → decision, all of it pure.

Belongs here: what a second of traffic looked like (`Signal`), what a user asked for
(`Settings`), how many replicas that takes and why (`make(settings).step`), and the simulator
that replays a day of traffic against it. Does not belong here: a clock, I/O, dice (all three
are arguments), or anything of the proxy or the control process.

    policy = make(Settings(min=1, max=20, latency=0.2, share=95.0))
    state = policy.initial(now)
    state, decision = policy.step(state, signal, now)      # once a second
"""

from autoscaler.decision import Decision
from autoscaler.policy import Policy, make
from autoscaler.policy.state import State, dump, load
from autoscaler.settings import ScalingSettings
from autoscaler.signals import Signal

__all__ = ["Decision", "Policy", "ScalingSettings", "Signal", "State", "dump", "load", "make"]
