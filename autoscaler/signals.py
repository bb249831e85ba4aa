"""One second of a service's traffic, merged over all workers: the input of every policy. Pure.

`meshd.scaling.signals` builds it from the proxy's reports, `autoscaler.simulate` from simulated
requests.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Signal:
    """One interval of one service. Times are seconds; counts are of this interval.

    Two things are left out: replicas that a rollout adds temporarily or that still warm up, and
    failed answers that no replica has worked on.

    - `interval`: length of the interval; usually 1 s. Counts are scaled by it.
    - `arrivals`, `completions`: requests received, requests answered.
    - `in_flight`: mean number of requests in flight (integrated, not sampled), including waiting
      ones.
    - `streams`: mean number of open TCP connections, tunnels and event streams. They are part of
      `in_flight`, but no answer is awaited, so that they are not a queue.
    - `latency`: histogram of the whole exchange as (upper bound in seconds, count), ascending;
      `latency_sum`: the exact sum.
    - `queue_sum`: the part of it that requests waited at the proxy for a replica; None: unknown.
    - `downstream_sum`: seconds that this service waited for its own calls through the mesh; None:
      unknown.
    - `errors`: answers with a 5xx; `shed`: requests refused for overload; `parked`: requests that
      wait for a first replica at the end of the interval.
    - `ready`, `starting`, `draining`: replicas at the end of the interval; `ejected` of the ready
      ones get no traffic.
    - `startups`: start-up time of each replica that became ready in the interval; `wakes`: the
      same for replicas resumed from the warm pool.
    - `cpu`: mean CPU use of the ready replicas, in percent of their limit; `external`: value of
      the Prometheus query.
    - `scheduled`: replicas that a schedule asks for at this moment; 0 for none.
    - `busy`: a rollout is in progress, so the number may grow but not shrink.
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
    streams: float = 0.0

    @property
    def awaited(self) -> float:
        """Mean number of requests in flight that wait for an answer."""
        return max(0.0, self.in_flight - self.streams)

    def misses(self, objective: float) -> float:
        """Return the requests not answered within `objective` seconds: the refused ones, and those
        above it in the histogram (the bucket that contains it is split in proportion)."""
        late, lower = 0.0, 0.0
        for upper, count in self.latency:
            if lower >= objective:
                late += count
            elif upper > objective:
                late += count * (upper - objective) / (upper - lower)
            lower = upper
        return late + self.shed
