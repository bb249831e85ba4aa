"""The policy that knows the future: the limit that any real one is measured against."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt

from autoscaler.decision import Decision
from autoscaler.signals import Signal


@dataclass(frozen=True, slots=True)
class OracleState:
    """Needs of the last seconds, for going down."""

    needs: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Oracle:
    """Sizes for the largest rate of the next `ahead` seconds, knowing `service_time` and
    `workers`; `beta` is the square-root staffing factor."""

    rates: Sequence[float]
    service_time: float
    workers: int
    ahead: int = 17
    beta: float = 1.5
    least: int = 1
    most: int = 200

    def initial(self, _now: float) -> OracleState:
        """Nothing to remember yet."""
        return OracleState()

    def step(
        self, state: OracleState, _signal: Signal | None, now: float
    ) -> tuple[OracleState, Decision]:
        """Reads the rates from `now` on as if they had happened."""
        second = int(now)
        coming = self.rates[second : second + self.ahead] or self.rates[-1:]
        load = max(coming) * self.service_time
        need = ceil((load + self.beta * sqrt(load)) / self.workers)
        desired = min(max(need, self.least), self.most)
        return state, Decision(desired, "forecast", f"{load:.1f} busy workers are coming")
