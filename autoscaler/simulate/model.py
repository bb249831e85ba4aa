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

    The service may also change, and behave worse than this. The defaults switch all of it off:

    - `service_factors`: factor on the service time, one value for each second; the last one
      continues.
    - `dependency`: seconds that a request waits for another service while it holds its worker, one
      value for each second; the last one continues. `dependency_known`: whether the proxy sees
      this time.
    - `warm_up`: (seconds, factor): a replica that was ready for less than these seconds takes
      longer for a request by this factor.
    - `sharing`: replicas work on all their requests at once, each more slowly if there are more
      than `workers` (processor sharing), instead of on `workers` of them.
    - `startup_sigma`: the start-up is log-normal with this sigma; its median is the middle of
      `startup`.
    - `start_slots`: replicas that can start at the same time; further ones wait. None: any number.
    - `gaps`: share of the seconds without data.
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
    service_factors: tuple[float, ...] = ()
    dependency: tuple[float, ...] = ()
    dependency_known: bool = False
    warm_up: tuple[float, float] = (0.0, 1.0)
    sharing: bool = False
    startup_sigma: float = 0.0
    start_slots: int | None = None
    gaps: float = 0.0

    @property
    def is_steady(self) -> bool:
        """Whether every request takes the same time whenever it arrives, apart from chance."""
        return not (
            self.service_factors or self.dependency or self.sharing or self.warm_up[0] > 0.0
        )
