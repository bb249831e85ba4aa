"""Discrete-event simulation of one service under a policy. Pure.

`meshd simulate`, the benchmark and the tests call `run` with a policy, rates and a random
generator.

Model: each replica has a number of workers and a bounded queue. Service times are log-normal,
start-up takes time, arrivals inside a second are Poisson, and a balancer chooses the replica. A
replica costs from its order until it has drained.

No event heap is needed: a replica serves in order, so the end of a request is known when it is
placed. Later events (completions, latencies) are filed under the second in which they happen, and
become the signal of that second.

- `model`: the parameters. `run`: the loop. `service`: one second. `placement`: who serves a
  request. `fleet`, `replica`: the replicas and their cost. `result`: the scores.

The policies, the mesh's balancing rules and the reading of traces are arguments, not parts.

    result = simulate.run(rates, make(settings), simulate.ServiceModel(), random.Random(1))
"""

from autoscaler.simulate.model import Rng, ServiceModel
from autoscaler.simulate.placement import Balancer
from autoscaler.simulate.replica import SimulatedReplica
from autoscaler.simulate.result import SimulationResult
from autoscaler.simulate.run import Stepper, initial_count, poisson, run
from autoscaler.simulate.service import SimulatedService

__all__ = [
    "Balancer",
    "Rng",
    "ServiceModel",
    "SimulatedReplica",
    "SimulatedService",
    "SimulationResult",
    "Stepper",
    "initial_count",
    "poisson",
    "run",
]
