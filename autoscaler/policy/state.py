"""What the policy remembers between steps: frozen, and JSON-able so that it can be stored."""

from typing import Any

import msgspec

BUCKETS = 32


class Demand(msgspec.Struct, frozen=True):
    """How much is asked for: see `policy.demand`.

    `rates`, `in_flights`: the last seconds. `past`: (level, trend, season) as they were
    estimated, back to one start-up time ago. `season`: what the time of day brings, 0 where that
    is not believed; `forecast`: that, or the trend where it is more. `shortfalls`: decayed
    histogram of how much the level turned out above what was forecast for it. `rise`: requests a
    second more, per second, as far as that is sure. `level_error`, `forecast_error`: decayed mean
    errors of level and trend.
    """

    rates: tuple[float, ...] = ()
    in_flights: tuple[float, ...] = ()
    past: tuple[tuple[float, float, float], ...] = ()
    shortfalls: tuple[float, ...] = (0.0,) * BUCKETS
    level: float = 0.0
    forecast: float = 0.0
    season: float = 0.0
    rise: float = 0.0
    level_error: float = 0.0
    forecast_error: float = 0.0


class Capacity(msgspec.Struct, frozen=True):
    """How much a replica bears: see `policy.capacity`.

    `service_time`: seconds a request takes when it need not wait; 0 unknown. `answers`: how many
    it is the mean of, at most `policy.capacity.MANY`. `proven`: workers a
    replica has shown to have; `bound`: more than it has, as far as known. `saturated`: whether
    `bound` was seen rather than assumed. `completions`, `latency`, `outside`
    (waiting for own calls), `replicas`, `queue`: decayed sums.
    `startup`: seconds until a replica that was ordered is ready, on the late side, from `started`
    of them; `cold_start`: the same without those that were only woken. `downstream`: usual
    seconds a request waits for calls the service makes itself.
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


class Season(msgspec.Struct, frozen=True):
    """What every five minutes of the last days brought: see `policy.season`.

    `slot`: the number of the current five minutes, of which `seconds` with `arrivals` requests
    are over. `means`: requests a second in those before, below 0 where unknown. `errors`: recent
    relative error of what a day and what a week ago say, `scales`: how much more comes now.
    """

    slot: int = 0
    seconds: float = 0.0
    arrivals: float = 0.0
    means: tuple[float, ...] = ()
    errors: tuple[float, ...] = (1.0, 1.0)
    scales: tuple[float, ...] = (1.0, 1.0)


class GainCheck(msgspec.Struct, frozen=True):
    """A scale-up whose gain is still to be seen: when it was ordered, from how many ready
    replicas, what they did then (answers a second, mean latency), and since when more of them
    serve."""

    since: float
    ready: int
    throughput: float
    latency: float
    served: float | None = None


class Cap(msgspec.Struct, frozen=True):
    """`number` of replicas above which more brought nothing: holds until `until` (it was set
    for `span` seconds), and while no more than `rate` requests a second come."""

    number: int
    until: float
    span: float
    rate: float
    throughput: float


class Rushes(msgspec.Struct, frozen=True):
    """What a warm pool would have had to hold: see `policy.pool`.

    `orders`: (when, replicas) ordered within the last start-up time. `largest`: the largest sum
    of them in each stretch of time, the last of which is number `span`.
    """

    orders: tuple[tuple[float, int], ...] = ()
    span: int = 0
    largest: tuple[int, ...] = ()


class State(msgspec.Struct, frozen=True):
    """Everything learned and seen. Treat as opaque; `dump` and `load` keep it.

    `desired` is -1 before the first signal; `raised` is when it last grew. `needs`: replicas
    needed in each of the last seconds; `blocks`: the largest of each ten seconds before.
    `budget`: decayed (requests, misses).
    """

    desired: int = -1
    last_arrival: float = 0.0
    since_block: int = 0
    demand: Demand = Demand()
    capacity: Capacity = Capacity()
    needs: tuple[float, ...] = ()
    blocks: tuple[float, ...] = ()
    budget: tuple[float, float] = (0.0, 0.0)
    trial: GainCheck | None = None
    cap: Cap | None = None
    rushes: Rushes = Rushes()
    season: Season = Season()
    raised: float = 0.0


def dump(state: State) -> dict[str, Any]:
    """`state` as plain JSON values."""
    plain = msgspec.to_builtins(state)
    assert isinstance(plain, dict)
    return plain


def load(data: dict[str, Any]) -> State:
    """The state that `dump` gave. Raises ValueError when `data` is not one (for example of
    another version): the caller then starts from `initial`."""
    try:
        return msgspec.convert(data, State)
    except msgspec.ValidationError as error:
        raise ValueError(f"not a stored autoscaler state: {error}") from error
