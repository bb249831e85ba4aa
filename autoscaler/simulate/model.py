"""The parameters of a simulated service, and its source of random numbers. Pure.

`meshd simulate` and `bench.autoscaling` build a `ServiceModel`; the other modules of this package
read it.
"""

from dataclasses import dataclass
from typing import Protocol


class Rng(Protocol):
    """The part of `random.Random` that the simulator uses."""

    def random(self) -> float: ...
    def uniform(self, a: float, b: float, /) -> float: ...
    def gauss(self, mu: float = 0.0, sigma: float = 1.0, /) -> float: ...


@dataclass(frozen=True, slots=True)
class ServiceModel:
    """A service to simulate. Times are seconds.

    - `workers`: requests that a replica serves at once; `queue` more may wait in it, and any
      further one is refused.
    - `service_mean`, `service_cv`: mean and coefficient of variation of the service time.
    - `startup`: shortest and longest start-up time, uniform between the two.
    - `objective`: latency above which a request counts as missed.
    - `min_replicas`, `max_replicas`: bounds on the number.
    - `warm`: replicas kept paused, which take `wake` to become ready; an order from this pool
      orders a replacement. None lets the policy choose the size.
    - `unscored`: seconds at the beginning that do not count.
    """

    workers: int = 4
    queue: int = 50
    service_mean: float = 0.1
    service_cv: float = 0.5
    startup: tuple[float, float] = (5.0, 15.0)
    objective: float = 0.4
    min_replicas: int = 1
    max_replicas: int = 200
    warm: int | None = 0
    wake: float = 0.1
    unscored: int = 120
