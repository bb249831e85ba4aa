"""Windows, cooldown, steps and several objectives, second by second."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import autoscaler
from autoscaler import ScalingSettings, Signal
from meshd.scaling.decide import Cap, DecisionInput, apply_caps, run_policy
from meshd.scaling.decision_record import make_record
from meshd.scaling.prometheus_queries import NoValue, value_of
from tests.fakes.scaling_scene import KEY, Scene, desired, replicas
from tests.support.rollouts import rollout


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.close()


def counts(scene: Scene, seconds: int, arrivals: int, **scale: object) -> list[int | None]:
    service = desired(2, scale={"min": 1, **scale})
    found = []
    for _ in range(seconds):
        scene.second(service, replicas(scene.wanted() or 2), arrivals=arrivals)
        found.append(scene.wanted())
    return found


def test_scaling_up_waits_for_the_up_window(scene: Scene) -> None:
    rising = counts(scene, 8, 60, concurrency=1, up_window="5s")
    assert rising[:5] == [2] * 5
    assert rising[-1] == 6
    held = [d for d in scene.decisions.of(KEY, 0, 50) if d.desired == 2 and d.wanted == 6]
    assert "6 wanted, but not yet for the up window of 5 s" in held[-1].limits[0]


def test_no_replica_is_removed_during_the_cooldown(scene: Scene) -> None:
    assert counts(scene, 5, 60, concurrency=1, cooldown="60s", down_window="5s")[-1] == 6
    calm = counts(scene, 45, 10, concurrency=1, cooldown="60s", down_window="5s")
    assert set(calm) == {6}
    later = counts(scene, 60, 10, concurrency=1, cooldown="60s", down_window="5s")
    assert later[-1] is not None
    assert later[-1] < 6
    limits = [line for d in scene.decisions.of(KEY, 0, 99) for line in d.limits]
    assert any(
        "no replica is removed during the cooldown after a change" in line for line in limits
    )


def test_steps_are_bounded_in_both_directions(scene: Scene) -> None:
    up = counts(scene, 4, 190, concurrency=1, step_up=1.5, down_window="5s", max=100)
    assert up[0] == 6
    down = counts(scene, 150, 1, concurrency=1, step_down=0.2, down_window="5s", max=100)
    pairs = [(a, b) for a, b in itertools.pairwise(down) if a and b and b < a]
    assert pairs
    assert all(a - b <= max(1, a // 5) for a, b in pairs)


def test_a_schedule_is_one_need_among_others(scene: Scene) -> None:
    always = {"cron": "* * * * *", "duration": "1h", "min": 5}
    assert counts(scene, 2, 10, concurrency=1, schedule=always)[-1] == 5
    (last,) = scene.decisions.of(KEY, 0, 1)
    assert (last.candidates["schedule"], last.cause) == (5, "schedule")
    assert (counts(scene, 9, 90, concurrency=1, schedule=always)[-1] or 0) >= 9


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ({"status": "success", "data": {"resultType": "scalar", "result": [1.0, "7.5"]}}, 7.5),
        (
            {
                "status": "success",
                "data": {
                    "resultType": "vector",
                    "result": [{"value": [1, "2"]}, {"value": [1, "3"]}],
                },
            },
            5.0,
        ),
    ],
)
def test_the_value_of_a_query_is_the_sum_of_its_result(
    answer: dict[str, object], value: float
) -> None:
    assert value_of(answer) == value


@pytest.mark.parametrize(
    "answer",
    [
        {"status": "error", "error": "parse error"},
        {"status": "success", "data": {"resultType": "vector", "result": []}},
        {"status": "success", "data": {"resultType": "vector", "result": [{"value": [1, "NaN"]}]}},
        {"status": "success", "data": {"resultType": "matrix", "result": []}},
        {"status": "success", "data": {"resultType": "vector", "result": [{}]}},
        {},
    ],
)
def test_an_answer_without_a_number_is_no_data(answer: dict[str, object]) -> None:
    with pytest.raises(NoValue):
        value_of(answer)


def test_no_replica_is_removed_during_a_rollout_or_an_ejection(scene: Scene) -> None:
    scale = {"min": 1, "concurrency": 1, "down_window": "5s"}
    busy = desired(6, scale=scale)
    for _ in range(8):
        scene.second(busy, replicas(6), arrivals=60)
    high = scene.wanted()
    rolling = desired(6, scale=scale, rollout=rollout(), revision="r2")
    group = [*replicas(6), *(r for r in replicas(8, "r2") if r.name > "web-5")]
    for _ in range(60):
        scene.second(rolling, group, arrivals=10)
    assert scene.wanted() == high
    for _ in range(60):
        scene.second(busy, replicas(6), arrivals=10, ejected=True)
    assert scene.wanted() == high
    for _ in range(60):
        scene.second(busy, replicas(6), arrivals=10)
    assert (scene.wanted() or 99) < (high or 0)


loads = st.builds(
    Signal,
    arrivals=st.integers(0, 2000),
    completions=st.integers(0, 2000),
    in_flight=st.floats(0, 500),
    latency_sum=st.floats(0, 5000),
    parked=st.integers(0, 50),
    ready=st.integers(0, 30),
    starting=st.integers(0, 10),
    busy=st.booleans(),
    scheduled=st.integers(0, 40),
)


@settings(max_examples=100, deadline=None)
@given(
    st.builds(
        ScalingSettings,
        min=st.integers(0, 4),
        max=st.integers(4, 30),
        concurrency=st.floats(0.5, 50.0),
        rps=st.one_of(st.none(), st.floats(0.5, 500.0)),
        latency=st.one_of(st.none(), st.floats(0.01, 2.0)),
    ),
    st.lists(st.one_of(st.none(), loads), min_size=1, max_size=30),
    st.integers(0, 20),
    st.integers(0, 6),
    st.booleans(),
)
def test_a_record_never_contradicts_its_numbers(
    chosen: ScalingSettings, sequence: list[Signal | None], room: int, floor: int, cooling: bool
) -> None:
    """The decision under caps, as `meshd explain` prints it."""
    state, before = autoscaler.make(chosen).initial(0.0), chosen.min
    for second, signal in enumerate(sequence):
        data = DecisionInput(chosen, state, signal, float(second + 1), cooling)
        uncapped = run_policy(data)
        cap = Cap(room, "room", f"but capacity for {room} only: the node is full")
        result = apply_caps(data, uncapped, floor, [cap])
        record = make_record(chosen, signal, result, before, None, data.now)
        assert record.desired <= max(room, chosen.min if uncapped is result else room)
        for line in record.limits:
            if match := re.fullmatch(r"(\d+) wanted, but capacity for (\d+) only: .*", line):
                assert record.desired <= int(match[2]) < int(match[1]), line
            if match := re.fullmatch(r"(\d+) were started at once .*", line):
                assert record.desired == int(match[1]), line
        for line in record.rejected:
            if match := re.fullmatch(r"(\d+) for \w+: \w+ needs (\d+), .*", line):
                assert int(match[1]) < int(match[2]), line
            else:
                assert int(line.split(":")[0]) != record.desired, line
        if match := re.search(r"; (\d+) would do", record.reason):
            assert int(match[1]) < record.wanted, record.reason
        state, before = result.state, record.desired
