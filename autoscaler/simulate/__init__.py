"""Discrete-event simulation of one service under a policy.

The model: replicas with a number of workers and a bounded queue each, log-normal service times,
a start-up delay, a balancer, Poisson arrivals inside each second. A replica is paid for from
the moment it is ordered until it has drained.

No event heap is needed: a replica serves in order, so the moment a request ends is known the
moment it is placed. What happens later (completions, latency) is filed under the second it
happens in, and becomes the signal of that second.

Belongs here: the model, what is played by it, and what a run comes to. Does not belong here: any
policy, the mesh's balancing rules, or the reading of traces; all three are handed in.

    result = simulate.run(rates, make(settings), simulate.Model(), random.Random(1))
"""

from autoscaler.simulate.model import Rng, ServiceModel
from autoscaler.simulate.placement import Balancer
from autoscaler.simulate.replica import SimulatedReplica
from autoscaler.simulate.result import SimulationResult
from autoscaler.simulate.run import Stepper, first_count, poisson, run
from autoscaler.simulate.service import SimulatedService

__all__ = [
    "Balancer",
    "Rng",
    "ServiceModel",
    "SimulatedReplica",
    "SimulatedService",
    "SimulationResult",
    "Stepper",
    "first_count",
    "poisson",
    "run",
]
