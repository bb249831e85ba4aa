"""The replicas of a run: ordered, started, paused, drained, and what that costs."""

from collections.abc import Callable
from operator import attrgetter

from autoscaler.simulate.model import Rng, ServiceModel
from autoscaler.simulate.replica import Estimator, SimulatedReplica

_ready_at = attrgetter("ready_at")


class Fleet:
    """All replicas of a service, with the pool of paused ones. `estimator` makes what a
    replica's latency is kept in, where the balancer goes by that."""

    def __init__(
        self, model: ServiceModel, dice: Rng, estimator: Callable[[], Estimator] | None = None
    ) -> None:
        self.ready: list[SimulatedReplica] = []
        self.starting: list[SimulatedReplica] = []
        self._model = model
        self._dice = dice
        self._estimator = estimator
        self._warm: list[SimulatedReplica] = []
        self._kept = 0
        self._draining: list[float] = []
        self._ordered = 0
        self._paid = 0.0
        self._warm_paid = 0.0

    def begin(self, count: int) -> None:
        """Starts with `count` ready replicas and the pool."""
        self.ready = [self._new(0.0, 0.0) for _ in range(count)]
        self._kept = self._model.warm or 0
        self._warm = [self._new(0.0, 0.0) for _ in range(self._kept)]

    def scale(self, desired: int, now: float) -> None:
        """Brings the number of ready and starting replicas to `desired`: newest go first."""
        have = len(self.ready) + len(self.starting)
        for _ in range(desired - have):
            self._order(now)
        for _ in range(have - desired):
            if self.starting:
                gone = self.starting.pop()
                self._paid += now - gone.ordered
            else:
                gone = self.ready.pop()
                end = max(gone.ends, default=now)
                self._paid += max(end, now) - gone.ordered
                self._draining.append(end)

    def keep(self, size: int, now: float) -> None:
        """Brings the pool of paused replicas to `size`: those not there yet go first."""
        self._kept = size
        for _ in range(size - len(self._warm)):
            self._warm.append(self._new(now, self._dice.uniform(*self._model.startup)))
        for _ in range(len(self._warm) - size):
            gone = max(self._warm, key=_ready_at)
            self._warm.remove(gone)
            self._warm_paid += now - gone.ordered

    def coming_up(self, until: float) -> list[SimulatedReplica]:
        """Those that get ready before `until`, in that order. They start no more; who takes them
        puts each among the ready ones at its time."""
        up = sorted((one for one in self.starting if one.ready_at < until), key=_ready_at)
        if up:
            self.starting = [one for one in self.starting if one.ready_at >= until]
        return up

    def draining(self, now: float) -> int:
        """How many that were told to go still serve."""
        self._draining = [end for end in self._draining if end > now]
        return len(self._draining)

    def settle(self, now: float) -> tuple[float, float]:
        """Replica-seconds paid for until `now`, and those of paused ones."""
        held = sum(now - one.ordered for one in (*self.ready, *self.starting))
        paused = sum(now - one.ordered for one in self._warm)
        return self._paid + held, self._warm_paid + paused

    def _order(self, now: float) -> None:
        startup = self._dice.uniform(*self._model.startup)
        paused = next((one for one in self._warm if one.ready_at <= now), None)
        if paused is None:
            self.starting.append(self._new(now, startup))
            return
        self._warm.remove(paused)
        self._warm_paid += now - paused.ordered
        awake = self._new(now, self._model.wake)
        awake.woken = True
        self.starting.append(awake)
        if len(self._warm) < self._kept:
            self._warm.append(self._new(now, startup))

    def _new(self, now: float, startup: float) -> SimulatedReplica:
        self._ordered += 1
        seen = self._estimator() if self._estimator is not None else None
        return SimulatedReplica(f"r{self._ordered}", self._model.workers, now, startup, seen)
