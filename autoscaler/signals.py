"""What one second of a service looked like, merged over all workers."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Signal:
    """One interval of one service. Times are seconds; counts are of this interval.

    Replicas of a rollout that are only there for a while, and those still warming up, are left
    out of it; so are answers that failed without having been worked on.

    - `interval`: its length. Everything may be scaled by it; 1 s is usual.
    - `arrivals`, `completions`: requests that came, requests that were answered.
    - `in_flight`: mean number in flight over the interval (exact: integrated, not sampled),
      waiting ones included.
    - `latency`: histogram of the whole exchange as (upper bound in seconds, count), ascending;
      `latency_sum`: the exact sum.
    - `queue_sum`: seconds of it that requests waited at the proxy for a replica; None unknown.
    - `downstream_sum`: seconds that this service spent waiting for calls it made itself through
      the mesh; None unknown.
    - `errors`: answers with a 5xx; `shed`: refused for overload; `parked`: waiting for a first
      replica at the end of the interval.
    - `ready`, `starting`, `draining`: replicas at the end of the interval; `ejected` of the
      ready ones get no traffic.
    - `startups`: how long each replica took that became ready in the interval; `wakes`: the
      same of those that were only woken from a pool.
    - `cpu`: mean percent of its limit over ready replicas; `external`: whatever a query gave.
    - `scheduled`: replicas that a schedule asks for at this moment; 0 for none.
    - `busy`: a rollout is under way, so the number may grow but not shrink.
    """

    interval: float = 1.0
    arrivals: int = 0
    completions: int = 0
    in_flight: float = 0.0
    latency: tuple[tuple[float, int], ...] = ()
    latency_sum: float = 0.0
    queue_sum: float | None = None
    downstream_sum: float | None = None
    errors: int = 0
    shed: int = 0
    parked: int = 0
    ready: int = 0
    starting: int = 0
    draining: int = 0
    ejected: int = 0
    startups: tuple[float, ...] = ()
    cpu: float | None = None
    external: float | None = None
    scheduled: int = 0
    busy: bool = False
    wakes: tuple[float, ...] = ()

    def misses(self, objective: float) -> float:
        """Requests not answered within `objective` seconds: refused ones, and from the
        histogram those above it (the bucket it falls in is split by proportion)."""
        late, lower = 0.0, 0.0
        for upper, count in self.latency:
            if lower >= objective:
                late += count
            elif upper > objective:
                late += count * (upper - objective) / (upper - lower)
            lower = upper
        return late + self.shed
