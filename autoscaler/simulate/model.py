"""What is simulated, and what chance is drawn from."""

from dataclasses import dataclass
from typing import Protocol


class Rng(Protocol):
    """The part of `random.Random` that is used."""

    def random(self) -> float: ...
    def uniform(self, a: float, b: float, /) -> float: ...
    def gauss(self, mu: float = 0.0, sigma: float = 1.0, /) -> float: ...


@dataclass(frozen=True, slots=True)
class ServiceModel:
    """What is simulated. Times are seconds.

    `workers` requests are served at once by a replica, `queue` more may wait in it, the rest is
    refused. `warm` replicas are held paused and take `wake` to be ready; ordering one from the
    pool orders its replacement. None leaves the size of the pool to the policy. The first
    `unscored` seconds count for nothing.
    """

    workers: int = 4
    queue: int = 50
    service_mean: float = 0.1
    service_cv: float = 0.5
    startup: tuple[float, float] = (5.0, 15.0)
    objective: float = 0.4
    least: int = 1
    most: int = 200
    warm: int | None = 0
    wake: float = 0.1
    unscored: int = 120
