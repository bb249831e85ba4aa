"""The policy: combines the estimates, objectives, costs and limits into one decision. Pure.

`meshd.scaling.decide` and the simulator call `Policy.step` once a second. See `autoscaler.policy`
for the parts.
"""

from math import ceil, sqrt

from msgspec.structs import replace

from autoscaler import limits
from autoscaler.decision import Decision
from autoscaler.policy import (
    budget,
    capacity,
    change_cost,
    demand,
    explain,
    gain_check,
    objectives,
    season,
    warm_pool,
)
from autoscaler.policy.objectives import Need
from autoscaler.policy.observation import Observation
from autoscaler.policy.state import State
from autoscaler.settings import ScalingSettings
from autoscaler.signals import Signal

FORECAST_MARGIN = 1.0
"""Seconds beyond the start-up time that the forecast looks ahead: one step, until an order is
placed."""

FIRST_STARTUP = 30.0
"""Seconds that a start-up is expected to take at least before one was seen: many take longer than
the usual 10 s, and an order that is 20 s early costs little. The forecast looks this far ahead, and
the caution is that of this start-up."""

FIRST_SLOW_STARTUP = 120.0
"""Seconds that slow growth looks ahead before a start-up was seen: a model or a large cache takes
that long to load, and a slow rise leaves the time to be early."""

FIRST_GROWTH = 2
"""Replicas for each ready one that a latency objective may order before it is known how many
requests a replica can serve: an estimate from a few answers may be wrong by a multiple."""


class Policy:
    """The policy for some settings. It keeps no state: the caller passes it in and out."""

    def __init__(self, settings: ScalingSettings) -> None:
        self.settings = settings

    def initial(self, now: float) -> State:
        """Return the state of a service of which nothing is known."""
        return State(last_arrival=now)

    def step(self, state: State, signal: Signal | None, now: float) -> tuple[State, Decision]:
        """Decide once. Call it once a second with `now` in seconds from any origin. `signal` None
        means "no data", which keeps the number."""
        settings = self.settings
        if signal is None or signal.interval <= 0.0:
            kept = min(max(settings.min, state.desired), settings.max)
            return state, Decision(kept, "no-data", f"no data, so the number stays at {kept}")
        state, seen = self._observe(state, signal, now)
        window = change_cost.down_window(settings)
        down_need = max((need.down for need in seen.needs.values()), default=0.0)
        recent, blocks, since_block = change_cost.remember_need(state, down_need, window)
        needed, cause = self._needed(seen, state, recent, blocks, window)
        desired, limited_by = self._apply_limits(seen, needed)
        if limited_by in ("min", "max") and desired == seen.current:
            cause = "minimum" if limited_by == "min" else "maximum"
        check = state.gain_check
        trouble = gain_check.is_in_trouble(seen.capacity, settings.latency)
        trouble = trouble or seen.sizing.backlog > 0.0
        if desired > seen.current and trouble and check is None and signal.ready:
            check = gain_check.start_check(seen.capacity, signal, now)
        state = replace(
            state,
            desired=desired,
            raised=now if desired > seen.current else state.raised,
            needs=recent,
            blocks=blocks,
            since_block=since_block,
            gain_check=check,
            removal=change_cost.judge_removal(
                state.removal,
                seen.current,
                desired,
                change_cost.change_cost(settings, seen.capacity.planned_startup),
                now,
            ),
            burst_history=warm_pool.observe(
                state.burst_history, desired - seen.current, seen.capacity.cold_start, now
            ),
        )
        warm = warm_pool.pool_size(state.burst_history, settings.max - desired)
        return state, explain.make_decision(seen, desired, needed, cause, limited_by, warm)

    def _observe(self, state: State, signal: Signal, now: float) -> tuple[State, Observation]:
        """Update every estimate with one second."""
        new_capacity = capacity.observe(state.capacity, signal)
        new_season = season.observe(state.season, signal, now)
        startup = new_capacity.planned_startup + FORECAST_MARGIN
        expected = new_capacity.planned_startup
        if not new_capacity.started:
            expected = max(expected, FIRST_STARTUP)
        ahead = expected + FORECAST_MARGIN
        seasonal = season.expected_rate(new_season, now + ahead + season.LEAD)
        slow = startup if new_capacity.started else FIRST_SLOW_STARTUP + FORECAST_MARGIN
        new_demand = demand.observe(
            state.demand, signal, ahead, seasonal, startup, max(startup, slow)
        )
        spent = budget.observe(state.budget, signal, self.settings)
        check, cap = gain_check.evaluate(
            state.gain_check,
            state.cap,
            new_capacity,
            signal,
            state.desired,
            new_demand.level,
            self.settings.latency,
            now,
        )
        state = replace(
            state,
            capacity=new_capacity,
            demand=new_demand,
            season=new_season,
            budget=spent,
            gain_check=check,
            cap=cap,
            last_arrival=now if _has_requests(signal) else state.last_arrival,
        )
        current = state.desired if state.desired >= 0 else signal.ready + signal.starting
        sizing = objectives.size(self.settings, signal, new_demand, new_capacity, spent, expected)
        needs = objectives.needs_by_objective(
            self.settings, signal, new_demand, new_capacity, sizing
        )
        active_cap = gain_check.active_cap(cap, new_demand.level, now)
        return state, Observation(
            self.settings,
            signal,
            current,
            new_demand,
            new_capacity,
            sizing,
            needs,
            active_cap,
            now,
        )

    def _needed(
        self,
        seen: Observation,
        state: State,
        recent: tuple[float, ...],
        blocks: tuple[float, ...],
        window: int,
    ) -> tuple[int, str]:
        """Return the number before limits, and its cause."""
        settings, current = self.settings, seen.current
        idle = seen.now - state.last_arrival
        if settings.min == 0 and idle >= settings.idle and not seen.signal.scheduled:
            return 0, "idle" if current else "hold"
        up_need = max((need.up for need in seen.needs.values()), default=0.0)
        needed = ceil(up_need - change_cost.TOLERANCE)
        if current == 0:
            if _has_requests(seen.signal):
                return max(1, needed), "wake"
            return (needed, "schedule") if seen.signal.scheduled else (0, "hold")
        if seen.cap is not None and max(needed, current) > seen.cap.number:
            return max(seen.cap.number, 1), "no-gain"
        if needed > current:
            by_rate = _is_rate_based(seen.needs)
            cost = change_cost.change_cost(settings, seen.capacity.planned_startup, safe=True)
            extra = change_cost.extra_order(up_need, seen.demand, cost) if by_rate else 0.0
            return max(needed, ceil(up_need + extra - change_cost.TOLERANCE)), _cause_of_rise(seen)
        lower = max(1, self._lower(seen, state, recent, blocks, window))
        if lower < current:
            return lower, "surplus"
        return current, "strain" if capacity.is_strained(seen.capacity) else "hold"

    def _lower(
        self,
        seen: Observation,
        state: State,
        recent: tuple[float, ...],
        blocks: tuple[float, ...],
        window: int,
    ) -> int:
        """Return the number to scale down to; the current one while no replica may be removed. The
        replicas that the largest rise remembered would need stay until they have cost a change that
        has to be undone."""
        margin = change_cost.noise_margin(seen.sizing, seen.capacity)
        startup = seen.capacity.planned_startup
        unchanged = seen.now - state.raised

        def lower_count(cost: float) -> int:
            return change_cost.lower_count(
                seen.current,
                recent,
                blocks,
                window,
                margin,
                cost,
                unchanged,
                state.removal.caution,
            )

        cost = change_cost.change_cost(self.settings, startup)
        safe_cost = change_cost.change_cost(self.settings, startup, safe=True)
        risky = lower_count(cost)
        if safe_cost == cost or "latency" not in seen.needs:
            return risky
        safe = lower_count(safe_cost)
        workers = objectives.workers_after_largest_rise(seen.demand, seen.capacity, seen.sizing)
        kept = ceil(workers / seen.capacity.proven + margin - change_cost.TOLERANCE)
        return min(risky, max(safe, kept))

    def _apply_limits(self, seen: Observation, needed: int) -> tuple[int, str | None]:
        """Return the number within bounds and steps, and what limited it. No replica is removed
        during a rollout or an ejection, or while the external signal is unknown."""
        current, signal = seen.current, seen.signal
        keeper = None
        if needed < current:
            if signal.busy or signal.ejected > 0:
                keeper = "rollout"
            elif self.settings.external is not None and signal.external is None:
                keeper = "signal"
        number = needed if keeper is None else current
        first = self._first_limit(seen)
        if first is not None and number > first:
            number, keeper = first, "unmeasured"
        desired, limited_by = limits.apply_limits(self.settings, current, number)
        return desired, limited_by or keeper

    def _first_limit(self, seen: Observation) -> int | None:
        """Return the highest number while the capacity of a replica is not known; None if it is, or
        if the user states it. Objectives that do not depend on it are not limited."""
        if "latency" not in seen.needs or self.settings.concurrency is not None:
            return None
        if capacity.is_measured(seen.capacity):
            return None
        others = [need.up for name, need in seen.needs.items() if name != "latency"]
        exact = ceil(max(others, default=0.0) - change_cost.TOLERANCE)
        return max(seen.current, FIRST_GROWTH * max(seen.signal.ready, 1), exact)


def _has_requests(signal: Signal) -> bool:
    return signal.arrivals > 0 or signal.parked > 0 or signal.in_flight > 0.0


def _is_rate_based(needs: dict[str, Need]) -> bool:
    """Return whether the objective with the largest need depends on the rate of requests."""
    return max(needs, key=lambda name: needs[name].up) in ("latency", "rps", "concurrency")


def _cause_of_rise(seen: Observation) -> str:
    """Return the first part of the sizing that alone makes the number grow."""
    top = max(seen.needs, key=lambda name: seen.needs[name].up)
    if top != "latency":
        return "schedule" if top == "schedule" else "load"
    sizing, limit = seen.sizing, seen.current + change_cost.TOLERANCE
    bound = sizing.workers / seen.needs[top].up
    level, forecast = seen.demand.level, seen.demand.forecast
    if (sizing.load + sizing.beta * sqrt(sizing.load)) / bound > limit:
        return "load"
    rising = sizing.load * forecast / level if level else 0.0
    if (rising + sizing.beta * sqrt(rising)) / bound > limit:
        return "forecast"
    return "backlog" if (sizing.workers - sizing.backlog) / bound <= limit else "headroom"
