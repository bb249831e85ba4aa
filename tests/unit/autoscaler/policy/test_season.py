"""The seasonal forecast: learned, evaluated, and never below the reactive forecast."""

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from autoscaler import ScalingSettings, Signal, State, dump, load, make, simulate
from autoscaler.policy import demand, season
from autoscaler.policy.state import DemandEstimate, Season

DAY = 86_400
RUSH = 1200
"""Seconds from the start of the simulation, and of each day before it, to the daily rush."""


def rate(at: float) -> float:
    return 300.0 if RUSH <= at % DAY < RUSH + 1800 else 40.0


def learned(days: float, rates: object = rate, until: float = 0.0) -> Season:
    """Return the history after some days, observed a minute at a time."""
    state = Season()
    assert callable(rates)
    for minute in range(-int(days * 1440), 0):
        at = until + 60.0 * minute
        signal = Signal(interval=60.0, arrivals=round(60 * rates(at)))
        state = season.observe(state, signal, at)
    return state


def test_yesterday_is_the_forecast_once_it_has_been_right_for_a_while() -> None:
    assert season.expected_rate(learned(0.9), RUSH + 10.0) == 0.0
    assert season.expected_rate(learned(1.02), RUSH + 10.0) == 0.0, "right for half an hour only"
    assert season.expected_rate(learned(1.5), RUSH + 10.0) == pytest.approx(300.0, rel=0.01)
    assert season.expected_rate(learned(1.5), RUSH - 10.0) == pytest.approx(40.0, rel=0.01)


def test_the_forecast_is_scaled_by_the_recent_ratio() -> None:
    twice = learned(1.6, lambda at: rate(at) * (1.5 if at > -DAY // 2 else 1.0))
    assert season.expected_rate(twice, RUSH + 10.0) == pytest.approx(450.0, rel=0.05)


def test_last_week_counts_if_yesterday_was_another_kind_of_day() -> None:
    """Every seventh day is quiet, and so is the next day."""

    def weekly(at: float) -> float:
        return 30.0 if int(at // DAY) % 7 == 0 else 100.0

    state = learned(9.5, weekly, until=0.5 * DAY)
    assert season.expected_rate(state, 0.5 * DAY + 600.0) == pytest.approx(30.0, rel=0.05)
    assert state.errors[1] < season.MAX_ERROR < state.errors[0]


def test_a_season_that_ended_is_no_longer_trusted() -> None:
    rng = random.Random(1)
    state = learned(1.5)
    for minute in range(60):
        signal = Signal(interval=60.0, arrivals=round(60 * rng.choice([4.0, 90.0, 400.0])))
        state = season.observe(state, signal, 60.0 * minute)
    assert season.expected_rate(state, 3700.0) == 0.0


def test_slots_not_seen_are_unknown_and_the_history_is_bounded() -> None:
    state = season.observe(learned(1.5), Signal(arrivals=1), 6.0 * 3600)
    assert state.means[-72:] == (season.UNKNOWN,) * 72
    assert season.expected_rate(state, 6.0 * 3600 + DAY - 600) == 0.0
    state = learned(30.0)
    assert len(state.means) == season.KEPT
    assert len(json.dumps(dump(State(season=state)))) < 32_000
    assert season.observe(state, Signal(), 90.0 * DAY).means == ()


def test_it_survives_a_restart() -> None:
    state = State(season=learned(1.5))
    again = load(json.loads(json.dumps(dump(state))))
    assert again == state
    assert season.expected_rate(again.season, RUSH + 10.0) == pytest.approx(300.0, rel=0.01)


def a_day(seed: int, more: int) -> list[float]:
    """Return requests per second in every slot of a day and `more`, drawn from one seed because
    drawing each with hypothesis takes long."""
    rng = random.Random(seed)
    return [rng.uniform(0.0, 500.0) for _ in range(season.LAGS[0] + more)]


rates = st.builds(a_day, st.integers(0, 1_000_000), st.integers(0, 40))


@settings(max_examples=50, deadline=None)
@given(rates, st.floats(season.MAX_ERROR, 1.0, exclude_min=True), st.integers(0, 900))
def test_there_is_no_forecast_while_its_recent_error_is_large(
    means: list[float], error: float, ahead: int
) -> None:
    slot = len(means)
    bad = Season(slot, 1.0, 1.0, tuple(means), (error, 1.0))
    assert season.expected_rate(bad, slot * season.SLOT + ahead) == 0.0
    good = replace(bad, errors=(season.MAX_ERROR / 2, 1.0))
    assert season.expected_rate(good, slot * season.SLOT + ahead) == pytest.approx(
        means[len(means) + int(ahead // season.SLOT) - season.LAGS[0]]
        if len(means) + int(ahead // season.SLOT) - season.LAGS[0] < len(means)
        else 0.0
    )


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 900), min_size=1, max_size=50),
    st.floats(0.0, 2000.0),
    st.floats(1.0, 60.0),
)
def test_it_never_lowers_the_reactive_forecast(
    arrivals: list[int], said: float, ahead: float
) -> None:
    seen, alone = DemandEstimate(), DemandEstimate()
    for count in arrivals:
        signal = Signal(arrivals=count)
        alone = demand.observe(alone, signal, ahead, 0.0)
        seen = demand.observe(seen, signal, ahead, said)
        assert seen.forecast >= alone.forecast
        assert (seen.level, seen.forecast_error) == (alone.level, alone.forecast_error)


class PolicyWithSeason:
    """The policy with a season that it has already learned, or without."""

    def __init__(self, known: Season) -> None:
        self.policy = make(ScalingSettings(min=1, max=60, latency=0.4, share=99.6))
        self.known = known

    def initial(self, now: float) -> State:
        return replace(self.policy.initial(now), season=self.known)

    def step(self, state: State, signal: Signal | None, now: float) -> object:
        return self.policy.step(state, signal, now)


def test_the_daily_rush_is_met_by_replicas_that_have_started() -> None:
    second_by_second = [rate(at) for at in range(RUSH + 600)]
    model = simulate.ServiceModel(startup=(20.0, 40.0))
    blind, knowing = (
        simulate.run(second_by_second, PolicyWithSeason(known), model, random.Random(1))  # type: ignore[arg-type]
        for known in (Season(), learned(1.5))
    )
    print(f"missed {blind.missed_pct:.2f} % without a season, {knowing.missed_pct:.2f} % with it")
    assert blind.missed_pct > 2.0
    assert knowing.missed_pct < 0.3
    assert knowing.replica_hours < 1.3 * blind.replica_hours
