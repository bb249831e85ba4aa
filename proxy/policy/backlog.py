"""How many requests an endpoint gets at the same time before further ones wait in the proxy. Pure.

`proxy.state.service_state` owns one `Backlog` per service. A queue inside an endpoint cannot be
moved to another one: what waits there when a burst begins still waits when new replicas are ready.
So an endpoint that is saturated gets about half a second of work, and the rest waits in the proxy
for whichever endpoint is free first.

An endpoint is saturated if answers take twice as long at twice the load: then more requests in
flight mean a longer queue and no more answers. Half a second of work, or twice the time of a
request, is a margin: the endpoint is never idle while requests wait. The evidence must be fresh.
Without it the limit grows, so that an endpoint that can do more gets more within seconds.
"""

from typing import Final

from proxy.policy.latency import LatencyAtLoad, PeakEwma

NO_LIMIT: Final = 1 << 30
"""Requests in flight: more than an endpoint ever has."""
FEWEST: Final = 8
"""Requests in flight that every endpoint may have."""
WORK: Final = 0.5
"""Seconds of work that a saturated endpoint has; below this latency a queue does not matter."""
WORK_FACTOR: Final = 2.0
"""The same as a multiple of the time that a request takes without a queue: half of the work waits
while the other half is done."""
GAIN: Final = 1.6
"""Factor on the latency from one load class to the next, which has twice the load, above which the
endpoint is saturated. 2 means no more answers at all, 1 that it is not loaded."""
PAIRS: Final = 2
"""Pairs of load classes that are compared, from the highest one with answers."""
LOWEST_CLASS: Final = 3
"""The lowest load class, 4 to 7 in flight, that may be found saturated."""
FRESH: Final = 10.0
"""Seconds for which a latency counts as evidence, and for which a limit stays without need."""
STEP: Final = 1.5
"""Factor by which the limit grows without evidence, and at most changes at a time."""
SHORTEST_PERIOD: Final = 1.0
"""Seconds between two changes at least. Twice the latency if that is longer: a change shows its
effect only in answers to requests that were sent after it."""


class Backlog:
    """The limit of requests in flight at each endpoint of a service, as one worker sees it.

    - `limit`: requests in flight, of all workers; `NO_LIMIT` for none.
    """

    __slots__ = ("_change_at", "_needed_at", "limit")

    def __init__(self) -> None:
        self.limit = NO_LIMIT
        self._change_at = 0.0
        self._needed_at = 0.0

    def clear(self) -> None:
        """Have no limit."""
        self.limit = NO_LIMIT

    def update(
        self, latency: LatencyAtLoad | PeakEwma, in_flight: int, now: float, *, waiting: bool
    ) -> None:
        """Set the limit by what is known of the endpoint with the most in flight. `waiting` says
        whether requests wait for it."""
        if not isinstance(latency, LatencyAtLoad):
            return
        if self.limit == NO_LIMIT:
            if in_flight > FEWEST:
                self._begin(latency, in_flight, now)
            return
        if waiting or in_flight * 2 >= self.limit:
            self._needed_at = now
        elif now - self._needed_at > FRESH:
            self.limit = NO_LIMIT
            return
        if waiting and now >= self._change_at:
            self._adjust(latency, in_flight, now)

    def _begin(self, latency: LatencyAtLoad, in_flight: int, now: float) -> None:
        found = _find_saturated(latency, in_flight, now)
        if found is not None:
            wanted, seconds = found
            self.limit = max(FEWEST, wanted)
            self._needed_at = now
            self._change_at = now + max(SHORTEST_PERIOD, 2.0 * seconds)

    def _adjust(self, latency: LatencyAtLoad, in_flight: int, now: float) -> None:
        found = _find_saturated(latency, in_flight, now)
        limit = float(self.limit)
        seconds = latency.at(self.limit)
        if found is None:
            limit *= STEP
        else:
            wanted, seconds = found
            limit = min(max(float(wanted), limit / STEP), limit * STEP)
        self.limit = max(FEWEST, int(limit))
        self._change_at = now + max(SHORTEST_PERIOD, 2.0 * seconds)


def _find_saturated(latency: LatencyAtLoad, in_flight: int, now: float) -> tuple[int, float] | None:
    """Return the number in flight that is enough work, and the latency that it was derived from, if
    fresh latencies show that the endpoint is saturated; else None."""
    since = now - FRESH
    recent = [latency.recent(index, since) for index in range(LatencyAtLoad.CLASSES)]
    top = min(in_flight.bit_length(), LatencyAtLoad.CLASSES - 1)
    looked = 0
    for index in range(top, LOWEST_CLASS - 1, -1):
        here, below = recent[index], recent[index - 1]
        if not (here and below):
            continue
        looked += 1
        if here < WORK or here < below or looked > PAIRS:
            return None
        if here < GAIN * below:
            # The loads seen of a class may be close to those of the next one.
            continue
        alone = min(seconds for seconds in recent if seconds)
        # The middle of the class: it holds 2 ** (index - 1) to 2 ** index - 1 in flight.
        load = 0.75 * 2.0**index
        return int(load * max(WORK, WORK_FACTOR * alone) / here), here
    return None
