"""The replicas of a run: ordered, started, paused and drained, and their cost. Pure.

`simulate.run` scales the fleet; `simulate.service` takes the replicas that become ready.
"""

from collections.abc import Callable
from heapq import heapreplace
from math import exp, log
from operator import attrgetter

from autoscaler.simulate.model import Rng, ServiceModel
from autoscaler.simulate.replica import Estimator, SimulatedReplica

_ready_at = attrgetter("ready_at")


class Fleet:
    """All replicas of a service, and the pool of paused ones.

    `drain_end` returns when a replica that is removed at a time has finished its requests.
    `make_estimator` makes the latency estimate of a replica, if the balancer needs one.
    """

    def __init__(
        self,
        model: ServiceModel,
        rng: Rng,
        drain_end: Callable[[SimulatedReplica, float], float],
        make_estimator: Callable[[], Estimator] | None = None,
    ) -> None:
        self.ready: list[SimulatedReplica] = []
        self.starting: list[SimulatedReplica] = []
        self._model = model
        self._rng = rng
        self._drain_end = drain_end
        self._slots = [0.0] * (model.start_slots or 0)
        self._make_estimator = make_estimator
        self._warm: list[SimulatedReplica] = []
        self._pool_size = 0
        self._draining: list[float] = []
        self._ordered = 0
        self._paid = 0.0
        self._warm_paid = 0.0

    def begin(self, count: int) -> None:
        """Start with `count` ready replicas and a full pool."""
        self.ready = [self._make_replica(0.0, 0.0) for _ in range(count)]
        self._pool_size = self._model.warm or 0
        self._warm = [self._make_replica(0.0, 0.0) for _ in range(self._pool_size)]

    def scale(self, desired: int, now: float) -> None:
        """Bring the number of ready and starting replicas to `desired`. The newest go first."""
        have = len(self.ready) + len(self.starting)
        for _ in range(desired - have):
            self._order(now)
        for _ in range(have - desired):
            if self.starting:
                removed = self.starting.pop()
                self._paid += now - removed.ordered
            else:
                removed = self.ready.pop()
                end = self._drain_end(removed, now)
                self._paid += max(end, now) - removed.ordered
                self._draining.append(end)

    def resize_pool(self, size: int, now: float) -> None:
        """Bring the pool of paused replicas to `size`. Those that still start go first."""
        self._pool_size = size
        for _ in range(size - len(self._warm)):
            startup = self._draw_startup(now)
            self._warm.append(self._make_replica(now, startup))
        for _ in range(len(self._warm) - size):
            removed = max(self._warm, key=_ready_at)
            self._warm.remove(removed)
            self._warm_paid += now - removed.ordered

    def take_started(self, until: float) -> list[SimulatedReplica]:
        """Remove and return the starting replicas that become ready before `until`, in that order.
        The caller adds each to `ready` at its time."""
        started = sorted((each for each in self.starting if each.ready_at < until), key=_ready_at)
        if started:
            self.starting = [each for each in self.starting if each.ready_at >= until]
        return started

    def draining(self, now: float) -> int:
        """Return the number of removed replicas that still serve requests."""
        self._draining = [end for end in self._draining if end > now]
        return len(self._draining)

    def cost(self, now: float) -> tuple[float, float]:
        """Return the replica-seconds until `now`, and those of paused replicas."""
        open_cost = sum(now - each.ordered for each in (*self.ready, *self.starting))
        open_warm_cost = sum(now - each.ordered for each in self._warm)
        return self._paid + open_cost, self._warm_paid + open_warm_cost

    def _order(self, now: float) -> None:
        startup = self._draw_startup(now)
        paused = next((each for each in self._warm if each.ready_at <= now), None)
        if paused is None:
            self.starting.append(self._make_replica(now, startup))
            return
        self._warm.remove(paused)
        self._warm_paid += now - paused.ordered
        resumed = self._make_replica(now, self._model.wake)
        resumed.resumed = True
        self.starting.append(resumed)
        if len(self._warm) < self._pool_size:
            self._warm.append(self._make_replica(now, startup))

    def _draw_startup(self, now: float) -> float:
        """Return the seconds from an order at `now` until the replica is ready."""
        low, high = self._model.startup
        if self._model.startup_sigma:
            startup = exp(self._rng.gauss(log((low + high) / 2.0), self._model.startup_sigma))
        else:
            startup = self._rng.uniform(low, high)
        if not self._slots:
            return startup
        ready_at = max(now, self._slots[0]) + startup
        heapreplace(self._slots, ready_at)
        return ready_at - now

    def _make_replica(self, now: float, startup: float) -> SimulatedReplica:
        self._ordered += 1
        estimator = self._make_estimator() if self._make_estimator is not None else None
        return SimulatedReplica(f"r{self._ordered}", self._model.workers, now, startup, estimator)
