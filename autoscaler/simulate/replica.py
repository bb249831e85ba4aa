"""One simulated replica, as `simulate.fleet` makes it and a balancer sees it. Pure."""

from typing import Protocol


class Estimator(Protocol):
    """Estimates a replica's latency at a load (requests in flight) from the answers so far."""

    def observe(self, seconds: float, now: float, load: int, /) -> None: ...
    def at(self, load: int, /) -> float: ...


class SimulatedReplica:
    """One simulated replica, with the attributes that a balancer reads.

    - `ordered`, `ready_at`: times of its order, and of its readiness `startup` seconds later.
    - `ends`: heap of the times at which its requests end.
    - `free`: heap of the times at which its workers become free.
    - `resumed`: whether it was resumed from the warm pool.
    - `estimator`: its latency estimate; None if the balancer needs none.
    - `shares`: heap of (finishing point, arrival, service time) of the requests that share its
      processor; `virtual`: seconds of work that each request present since the beginning would
      have got until `updated`. Only used with `ServiceModel.sharing`.
    """

    __slots__ = (
        "ends",
        "estimator",
        "fast_failing",
        "free",
        "id",
        "in_flight",
        "node",
        "ordered",
        "ready_at",
        "resumed",
        "shares",
        "startup",
        "updated",
        "virtual",
        "weight",
    )

    def __init__(
        self, name: str, workers: int, ordered: float, startup: float, estimator: Estimator | None
    ) -> None:
        self.id = name
        self.ordered = ordered
        self.startup = startup
        self.ready_at = ordered + startup
        self.ends: list[float] = []
        self.free = [self.ready_at] * workers
        self.in_flight = 0
        self.weight = 1.0
        self.fast_failing = False
        self.node = ""
        self.resumed = False
        self.estimator = estimator
        self.shares: list[tuple[float, float, float]] = []
        self.virtual = 0.0
        self.updated = self.ready_at

    @property
    def latency(self) -> float:
        """Recent latency in seconds; 0 while unknown."""
        return self.estimator.at(self.in_flight) if self.estimator is not None else 0.0
