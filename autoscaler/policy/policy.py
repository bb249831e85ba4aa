"""The policy: puts demand, capacity, budget, objectives, calm and limits together."""

from dataclasses import dataclass
from math import ceil, sqrt

from msgspec.structs import replace

from autoscaler import limits
from autoscaler.decision import Decision
from autoscaler.policy import (
    budget,
    capacity,
    change_cost,
    demand,
    gain_check,
    objectives,
    season,
    warm_pool,
)
from autoscaler.policy.objectives import Need, ReplicaSizing
from autoscaler.policy.state import Capacity, Demand, State
from autoscaler.settings import ScalingSettings
from autoscaler.signals import Signal


@dataclass(frozen=True, slots=True)
class _Seen:
    """Everything one step goes by."""

    signal: Signal
    current: int
    demand: Demand
    capacity: Capacity
    sizing: ReplicaSizing
    needs: dict[str, Need]
    cap: int | None
    now: float


class Policy:
    """A policy made from settings: holds no state of its own."""

    def __init__(self, settings: ScalingSettings) -> None:
        self.settings = settings

    def initial(self, now: float) -> State:
        """The state of a service that nothing is known about yet."""
        return State(last_arrival=now)

    def step(self, state: State, signal: Signal | None, now: float) -> tuple[State, Decision]:
        """One step, once a second of `now` (seconds, from any origin). `signal` None is
        "no data", which holds the number."""
        settings = self.settings
        if signal is None or signal.interval <= 0.0:
            held = min(max(settings.min, state.desired), settings.max)
            return state, Decision(held, "no-data", f"no data: holding {held}")
        state, seen = self._observe(state, signal, now)
        window = change_cost.window(settings)
        most_down = max((need.down for need in seen.needs.values()), default=0.0)
        recent, blocks, since = change_cost.remember(state, most_down, window)
        wanted, cause = self._wanted(seen, state, recent, blocks, window)
        desired, limited_by = self._limited(seen, wanted)
        if limited_by in ("min", "max") and desired == seen.current:
            cause = "minimum" if limited_by == "min" else "maximum"
        attempt = state.trial
        queueing = seen.sizing.backlog > 0.0 or capacity.excess(seen.capacity) > 0.5
        if desired > seen.current and queueing and attempt is None and signal.ready:
            attempt = gain_check.begin(seen.capacity, signal, now)
        state = replace(
            state,
            desired=desired,
            raised=now if desired > seen.current else state.raised,
            needs=recent,
            blocks=blocks,
            since_block=since,
            trial=attempt,
            rushes=warm_pool.observe(
                state.rushes, desired - seen.current, seen.capacity.cold_start, now
            ),
        )
        warm = warm_pool.size(state.rushes, settings.max - desired)
        return state, _explain(seen, desired, wanted, cause, limited_by, warm)

    def _observe(self, state: State, signal: Signal, now: float) -> tuple[State, _Seen]:
        learned = capacity.observe(state.capacity, signal)
        seen_before = season.observe(state.season, signal, now)
        ahead = learned.startup + 1.0
        usual = season.expected(seen_before, now + ahead + season.LEAD)
        asked = demand.observe(state.demand, signal, ahead, usual)
        spent = budget.observe(state.budget, signal, self.settings)
        attempt, cap = gain_check.judge(
            state.trial, state.cap, learned, signal, state.desired, asked.level, now
        )
        active = _active(signal)
        state = replace(
            state,
            capacity=learned,
            demand=asked,
            season=seen_before,
            budget=spent,
            trial=attempt,
            cap=cap,
            last_arrival=now if active else state.last_arrival,
        )
        current = state.desired if state.desired >= 0 else signal.ready + signal.starting
        sizing = objectives.size(self.settings, signal, asked, learned, spent)
        needs = objectives.needs(self.settings, signal, asked, learned, sizing)
        capped = gain_check.capped(cap, asked.level, now)
        return state, _Seen(signal, current, asked, learned, sizing, needs, capped, now)

    def _wanted(
        self,
        seen: _Seen,
        state: State,
        recent: tuple[float, ...],
        blocks: tuple[float, ...],
        window: int,
    ) -> tuple[int, str]:
        """The number before limits, and its cause."""
        settings, current = self.settings, seen.current
        idle = seen.now - state.last_arrival
        if settings.min == 0 and idle >= settings.idle and not seen.signal.scheduled:
            return 0, "idle" if current else "hold"
        up = max((need.up for need in seen.needs.values()), default=0.0)
        wanted = ceil(up - change_cost.ROUND)
        if current == 0:
            return (max(1, wanted), "wake") if _active(seen.signal) else (0, "hold")
        if seen.cap is not None and max(wanted, current) > seen.cap:
            return max(seen.cap, 1), "no-gain"
        worth = change_cost.worth(settings)
        if wanted > current:
            more = change_cost.batch(up, seen.demand, worth) if _by_rate(seen.needs) else 0.0
            return max(wanted, ceil(up + more - change_cost.ROUND)), _cause_up(seen)
        margin = change_cost.margin(seen.sizing, seen.capacity)
        held = seen.now - state.raised
        low = max(1, change_cost.lower(current, recent, blocks, window, margin, worth, held))
        if low < current:
            return low, "surplus"
        return current, "strain" if capacity.strained(seen.capacity) else "hold"

    def _limited(self, seen: _Seen, wanted: int) -> tuple[int, str | None]:
        """Within limits and steps; nothing goes while a rollout or an ejection is on."""
        current, signal = seen.current, seen.signal
        held = wanted < current and (signal.busy or signal.ejected > 0)
        desired, limited_by = limits.bound(self.settings, current, current if held else wanted)
        return desired, limited_by or ("rollout" if held else None)


def _active(signal: Signal) -> bool:
    return signal.arrivals > 0 or signal.parked > 0 or signal.in_flight > 0.0


def _by_rate(needs: dict[str, Need]) -> bool:
    """Whether what wants the most goes by the rate of requests."""
    return max(needs, key=lambda name: needs[name].up) in ("latency", "rps", "concurrency")


def _cause_up(seen: _Seen) -> str:
    """What made the number grow: the first of the sizing's parts that does it."""
    top = max(seen.needs, key=lambda name: seen.needs[name].up)
    if top != "latency":
        return "schedule" if top == "schedule" else "load"
    sizing, room = seen.sizing, seen.current + change_cost.ROUND
    bound = sizing.workers / seen.needs[top].up
    level, coming = seen.demand.level, seen.demand.forecast
    if (sizing.load + sizing.beta * sqrt(sizing.load)) / bound > room:
        return "load"
    rising = sizing.load * coming / level if level else 0.0
    if (rising + sizing.beta * sqrt(rising)) / bound > room:
        return "forecast"
    return "backlog" if (sizing.workers - sizing.backlog) / bound <= room else "headroom"


_WHY = {
    "load": "more load",
    "forecast": "load is rising",
    "headroom": "headroom for bursts as seen lately",
    "backlog": "requests are queueing",
    "wake": "requests wait and nothing runs",
    "idle": "no request for a while",
    "surplus": "less has been enough for a while",
    "no-gain": "more replicas brought nothing: the bottleneck is probably behind this service",
    "strain": "what it calls is slow, so more replicas would not help",
    "schedule": "the schedule asks for it",
    "minimum": "the minimum",
    "maximum": "the maximum",
    "hold": "enough, and not too many",
}


def _explain(
    seen: _Seen, desired: int, wanted: int, cause: str, limited_by: str | None, warm: int
) -> Decision:
    learned, sizing, level = seen.capacity, seen.sizing, seen.demand.level
    numbers = {
        "rate": level,
        "forecast": seen.demand.forecast,
        "season": seen.demand.season,
        "in_flight": seen.signal.in_flight,
        "service_time": learned.service_time,
        "workers_proven": learned.proven,
        "workers_bound": learned.bound,
        "startup": learned.startup,
        "warm": float(warm),
        "load": sizing.load,
        "headroom": sizing.headroom,
        "backlog": sizing.backlog,
        "beta": sizing.beta,
        "burn": sizing.burn,
        "wanted": float(wanted),
    }
    candidates = {name: ceil(need.up - change_cost.ROUND) for name, need in seen.needs.items()}
    usual = cause == "forecast" and seen.demand.season >= seen.demand.forecast
    why = "more comes at this time of day" if usual else _WHY[cause]
    reason = (
        f"{why}: {level:.1f} requests/s of {learned.service_time * 1000:.0f} ms keep "
        f"{sizing.load:.1f} workers busy, a replica has {learned.bound:.1f}"
    )
    if sizing.backlog >= 1.0:
        reason += f", {seen.signal.in_flight:.0f} in flight"
    if limited_by:
        reason += f"; wanted {wanted}, limited by {limited_by}"
    return Decision(desired, cause, reason, numbers, candidates, limited_by, warm)
