"""A policy that knows the future load: a lower bound for the cost of any real policy. Pure.

`meshd simulate` compares the policy with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt

from autoscaler.decision import Decision
from autoscaler.signals import Signal


@dataclass(frozen=True, slots=True)
class OracleState:
    """Empty: the oracle reads the trace instead of remembering."""


@dataclass(frozen=True, slots=True)
class Oracle:
    """Sizes for the highest rate of the next seconds.

    - `rates`: requests per second, for each second of the trace.
    - `service_time` (seconds), `workers`: the real ones of a replica.
    - `factors`: factor on the service time, for each second; empty: always 1.
    - `dependency`: seconds that a request holds its worker for another service, for each second.
    - `ahead`: seconds of the future that are known; 17 is the slowest start-up of the benchmark's
      model (15 s) and two steps.
    - `beta`: square-root staffing factor.
    """

    rates: Sequence[float]
    service_time: float
    workers: int
    ahead: int = 17
    beta: float = 1.5
    min_replicas: int = 1
    max_replicas: int = 200
    factors: Sequence[float] = ()
    dependency: Sequence[float] = ()

    def initial(self, _now: float) -> OracleState:
        """Return the state before the first signal."""
        return OracleState()

    def step(
        self, state: OracleState, _signal: Signal | None, now: float
    ) -> tuple[OracleState, Decision]:
        """Read the rates from `now` on as if they had happened."""
        second = int(now)
        coming = self.rates[second : second + self.ahead] or self.rates[-1:]
        load = max(coming) * self._slowest(second)
        need = ceil((load + self.beta * sqrt(load)) / self.workers)
        desired = min(max(need, self.min_replicas), self.max_replicas)
        return state, Decision(desired, "forecast", f"{load:.1f} busy workers expected")

    def _slowest(self, second: int) -> float:
        """Return the longest time that a mean request holds a worker in the known future."""
        factors = self.factors[second : second + self.ahead] or self.factors[-1:]
        waits = self.dependency[second : second + self.ahead] or self.dependency[-1:]
        return self.service_time * max(factors, default=1.0) + max(waits, default=0.0)
