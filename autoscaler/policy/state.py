"""What the policy remembers between two steps: frozen values that JSON can hold. Pure.

The parts of the policy read and replace these values; `meshd.scaling.state_store` stores them over
restarts. The JSON names are a stored format: a renamed attribute keeps its old name there.
"""

from typing import Any, Final

import msgspec

SHORTFALL_BUCKETS: Final = 32
"""Buckets of the shortfall histogram: up to a factor of e² above the forecast (see
`policy.demand`)."""


class DemandEstimate(msgspec.Struct, frozen=True):
    """The load of a service, now and one start-up time ahead: see `policy.demand`.

    - `rates` (requests per second), `in_flights` (requests): the last 32 seconds.
    - `past`: (level, trend, season) as estimated, back to one start-up time ago.
    - `shortfalls`: decayed histogram of level / forecast, where the level was higher.
    - `level`, `forecast` (requests per second): the load now; the load expected.
    - `season` (requests per second): the seasonal forecast; 0 if it is not trusted.
    - `rise` (requests per second, per second): significant slope of the rate; 0 at the start of
      traffic, until one could be compared with what followed.
    - `level_error`, `forecast_error`: decayed sums of the errors of the forecast without the trend,
      and with it.
    - `peak` (requests per second): highest level of the last minutes, decayed towards the level.
    - `slow_past`: (level, forecast by slow growth) back to one start-up time ago, if that is long;
      `slow_level_error`, `slow_error`: the errors of the two.
    """

    rates: tuple[float, ...] = ()
    in_flights: tuple[float, ...] = ()
    past: tuple[tuple[float, float, float], ...] = ()
    shortfalls: tuple[float, ...] = (0.0,) * SHORTFALL_BUCKETS
    level: float = 0.0
    forecast: float = 0.0
    season: float = 0.0
    rise: float = 0.0
    level_error: float = 0.0
    forecast_error: float = 0.0
    peak: float = 0.0
    slow_past: tuple[tuple[float, float], ...] = ()
    slow_level_error: float = 0.0
    slow_error: float = 0.0


class CapacityEstimate(msgspec.Struct, frozen=True):
    """What one replica can serve: see `policy.capacity`.

    - `service_time`: seconds that a request takes when it need not wait; 0: unknown.
    - `answers`: number of answers that it is the mean of (at most `capacity.KNOWN_ANSWERS`).
    - `proven`: workers that a replica has shown to have.
    - `bound`: workers that a replica has at most, as far as known.
    - `saturated`: whether `bound` was measured rather than assumed.
    - `completions` (answers), `latency` (seconds), `outside` (seconds that requests waited for the
      service's own calls), `replicas` (replica-seconds), `queue` (seconds at the proxy): decayed
      sums over about ten seconds.
    - `startup`: seconds from the order of a replica until it is ready, about the 85th percentile,
      from `started` replicas; `cold_start`: the same without those from the warm pool.
    - `starting`: seconds for which each start that is under way lasts, the longest first;
      `planned_startup`: `startup` as it would be if those that last longer ended now.
    - `downstream`: seconds that a request usually waits for the service's own calls.
    - `cpu`: smoothed CPU use, summed over the ready replicas, in percent of one replica's limit.
    - `newcomers`: decayed number of replicas that became ready within about ten seconds.
    - `slowdown`: factor by which all requests take longer at present than `service_time`; `abrupt`:
      whether an overload has raised it, so that it may contain waiting.
    - `quick`: decayed sum, over answers, of the latency that a fifth of the answers of a second
      does not exceed; `spread`: ratio of the service time to it while no request waits; 0:
      unknown.
    """

    service_time: float = 0.0
    answers: float = 1000.0
    proven: float = 1.0
    bound: float = 4.0
    saturated: bool = False
    completions: float = 0.0
    latency: float = 0.0
    outside: float = 0.0
    replicas: float = 0.0
    startup: float = 10.0
    started: int = 0
    cold_start: float = 10.0
    downstream: float = 0.0
    cpu: float = 0.0
    queue: float = 0.0
    quick: float = 0.0
    spread: float = 0.0
    slowdown: float = 1.0
    newcomers: float = 0.0
    abrupt: bool = False
    starting: tuple[float, ...] = ()
    planned_startup: float = 10.0

    @property
    def present_time(self) -> float:
        """Seconds that a request takes at present when it need not wait; 0: unknown."""
        return self.service_time * self.slowdown


class Season(msgspec.Struct, frozen=True):
    """The mean rate of every five minutes of the last days: see `policy.season`.

    - `slot`: number of the current five minutes since the epoch, of which `seconds` with
      `arrivals` requests have passed.
    - `means` (requests per second): the slots before it; below 0 for an unknown one.
    - `errors`: recent relative error of the forecast from a day ago, and from a week ago.
    - `scales`: factor by which each of the two is multiplied.
    """

    slot: int = 0
    seconds: float = 0.0
    arrivals: float = 0.0
    means: tuple[float, ...] = ()
    errors: tuple[float, ...] = (1.0, 1.0)
    scales: tuple[float, ...] = (1.0, 1.0)


class GainCheck(msgspec.Struct, frozen=True):
    """A scale-up whose effect is not known yet: see `policy.gain_check`.

    - `since`: time of the order (seconds, as `now`).
    - `ready`: replicas that were ready then.
    - `throughput` (answers per second), `latency` (mean, seconds): what those achieved.
    - `served`: time since which more replicas are ready; None: they are not yet.
    """

    since: float
    ready: int
    throughput: float
    latency: float
    served: float | None = None


class GainCap(msgspec.Struct, frozen=True):
    """A number of replicas above which more did not help: see `policy.gain_check`.

    - `number`: the cap. It holds until `until` and while at most `rate` requests per second arrive.
    - `span`: seconds for which it was set.
    - `throughput`: answers per second; if fewer are achieved under the cap, the cap was wrong.
    - `added`: replicas that did not help; `latency`: mean seconds of an answer, before and with
      them. If an answer takes much longer under the cap, the cap was wrong, too.
    """

    number: int
    until: float
    span: float
    rate: float
    throughput: float
    added: int = 0
    latency: tuple[float, float] = (0.0, 0.0)


class BurstHistory(msgspec.Struct, frozen=True):
    """The largest scale-ups of the last hours: see `policy.warm_pool`.

    - `orders`: (time, replicas) ordered within the last start-up time.
    - `span`: number of the current stretch of time.
    - `largest`: largest sum of `orders` in each stretch of time, the current one last.
    """

    orders: tuple[tuple[float, int], ...] = ()
    span: int = 0
    largest: tuple[int, ...] = ()


class Removal(msgspec.Struct, frozen=True):
    """What became of removed replicas: see `policy.change_cost`.

    - `at`, `count`: time of the last one, and the replicas that were removed and have neither been
      ordered again nor saved the cost of a change yet.
    - `caution`: factor on the shortest time for which a lower number must have been enough.
    """

    at: float = 0.0
    count: int = 0
    caution: float = 1.0


class State(msgspec.Struct, frozen=True, rename={"gain_check": "trial", "burst_history": "rushes"}):
    """Everything learned and seen so far. Opaque to callers; `dump` and `load` convert it.

    - `desired`: number decided last; -1 before the first signal.
    - `last_arrival`: time of the last request (seconds, as `now`).
    - `needs`: replicas needed in each of the last seconds; `blocks`: largest need of each earlier
      block of ten seconds; `since_block`: seconds since the last block ended.
    - `budget`: decayed (requests, misses).
    - `raised`: time of the last scale-up.
    - `removal`: the last removal, and how cautious the next one is.
    """

    desired: int = -1
    last_arrival: float = 0.0
    since_block: int = 0
    demand: DemandEstimate = DemandEstimate()
    capacity: CapacityEstimate = CapacityEstimate()
    needs: tuple[float, ...] = ()
    blocks: tuple[float, ...] = ()
    budget: tuple[float, float] = (0.0, 0.0)
    gain_check: GainCheck | None = None
    cap: GainCap | None = None
    burst_history: BurstHistory = BurstHistory()
    season: Season = Season()
    raised: float = 0.0
    removal: Removal = Removal()


def forget_future(state: State, now: float) -> State:
    """Return `state` without times after `now`, which a clock that was ahead has left in it: the
    service would not scale down until then. What replicas can serve stays known."""
    if max(state.last_arrival, state.raised, state.removal.at) <= now:
        return state
    return msgspec.structs.replace(
        state,
        last_arrival=min(state.last_arrival, now),
        raised=min(state.raised, now),
        removal=Removal(),
        gain_check=None,
        cap=None,
        burst_history=BurstHistory(),
    )


def dump(state: State) -> dict[str, Any]:
    """Return `state` as plain JSON values."""
    plain = msgspec.to_builtins(state)
    assert isinstance(plain, dict)
    return plain


def load(data: dict[str, Any]) -> State:
    """Return the state that `dump` converted. Raises ValueError if `data` is not one, for example
    because another version wrote it; the caller then starts from `Policy.initial`."""
    try:
        return msgspec.convert(data, State)
    except msgspec.ValidationError as error:
        raise ValueError(f"not a stored autoscaler state: {error}") from error
