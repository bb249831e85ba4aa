"""One simulated replica."""

from typing import Protocol


class Estimator(Protocol):
    """What a replica's latency is taken to be, from the answers seen so far: `load` was, or is,
    in flight to it."""

    def observe(self, seconds: float, now: float, load: int, /) -> None: ...
    def at(self, load: int, /) -> float: ...


class SimulatedReplica:
    """One simulated replica, with the attributes a balancer goes by. `ends` is a heap of the
    times its requests end, `free` of the times its workers are free."""

    __slots__ = (
        "ends",
        "fast_failing",
        "free",
        "id",
        "in_flight",
        "ordered",
        "ready_at",
        "seen",
        "startup",
        "weight",
        "woken",
    )

    def __init__(
        self, name: str, workers: int, ordered: float, startup: float, seen: Estimator | None
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
        self.woken = False
        self.seen = seen

    @property
    def latency(self) -> float:
        """Recent latency in seconds; 0 while unknown."""
        return self.seen.at(self.in_flight) if self.seen is not None else 0.0
