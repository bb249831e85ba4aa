"""What is kept of a decision: everything it was made from, in bounded number."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from autoscaler import Decision, ScalingSettings, Signal, State
from meshd.model.scaling import ScaleDecision
from meshd.scaling.decide import Cap, DecisionInput, ScalingDecision, apply_caps, run_policy
from meshd.scaling.decision_record import SAMPLE, made, worth_keeping
from meshd.store.decisions import BEHIND, KEPT, LIFE, DecisionLog
from tests.fakes.scaling_scene import KEY, NOW, Scene, desired, replicas

BUSY = Signal(arrivals=90, completions=90, in_flight=9.0, latency_sum=9.0, ready=2)
SETTINGS = ScalingSettings(min=1, max=8, rps=10.0, concurrency=3.0)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made_scene = Scene(tmp_path)
    yield made_scene
    made_scene.close()


def judge(state: State, signal: Signal | None, *ceilings: Cap) -> ScalingDecision:
    case = DecisionInput(SETTINGS, state, signal, NOW)
    return apply_caps(case, run_policy(case), 0, ceilings)


def decided(at: float = NOW, desired: int = 3, **more: object) -> ScaleDecision:
    fields = {"previous": desired, "wanted": desired, "cause": "hold", "reason": "", **more}
    return ScaleDecision(at=at, desired=desired, **fields)  # type: ignore[arg-type]


def test_the_largest_demand_wins_and_what_lost_is_told() -> None:
    verdict = judge(State(desired=2), BUSY)
    told = made(SETTINGS, BUSY, verdict, 2, None, NOW)
    assert (told.desired, told.previous, told.cause, told.wanted) == (8, 2, "load", 9)
    assert told.candidates == {"concurrency": 3, "rps": 9}
    assert told.rejected == ("3 for concurrency: rps wants 9, and the largest wins",)
    assert told.limits == ("9 needed, limited by the maximum of 8",)
    assert told.objectives == ("3 in flight a replica", "10 requests/s a replica",
                               "1 to 8 replicas")  # fmt: skip
    assert told.signals["arrivals_per_second"] == 90.0
    assert told.model["rate"] == 90.0


def test_a_ceiling_holds_and_is_told() -> None:
    ceilings = (Cap(5, "other", "not so"), Cap(4, "room", "room for 4, because of so"))
    verdict = judge(State(desired=2), BUSY, *ceilings)
    assert (verdict.decision.desired, verdict.decision.limited_by) == (4, "room")
    assert verdict.state.desired == 4
    assert verdict.limits == (f"{verdict.uncapped.desired} needed, room for 4, because of so",)
    nothing = judge(State(desired=2), BUSY, Cap(0, "room", "full"))
    assert nothing.decision.desired == 0
    high = judge(State(desired=2), BUSY, Cap(50, "room", "no"))
    assert high.decision == high.uncapped


def test_without_data_the_number_is_held_and_so_it_is_told() -> None:
    verdict = judge(State(desired=3), None)
    told = made(SETTINGS, None, verdict, 3, 5, NOW)
    assert (told.desired, told.cause, told.signals, told.override) == (3, "no-data", {}, 5)


def test_changes_are_kept_and_the_rest_now_and_then() -> None:
    before = decided()
    assert worth_keeping(None, before)
    assert not worth_keeping(before, decided(NOW + 1))
    assert worth_keeping(before, decided(NOW + 1, desired=4))
    assert worth_keeping(before, decided(NOW + 1, override=2))
    assert not worth_keeping(before, decided(NOW + 1, cause="strain"))
    assert worth_keeping(before, decided(NOW + 11, cause="strain"))
    assert worth_keeping(before, decided(NOW + SAMPLE))


def test_the_log_is_bounded_and_answers_for_any_time(scene: Scene) -> None:
    log = DecisionLog(scene.store)
    for number in range(3 * BEHIND):
        log.add(KEY, decided(NOW + number, desired=number))
    log.add("shop/other", decided(NOW + 7))
    assert [d.desired for d in log.of(KEY, NOW + 100.5, 2)] == [100, 99]
    assert [d.desired for d in log.of(KEY, 0, 1)] == [3 * BEHIND - 1]
    log.add(KEY, decided(NOW + LIFE + 100))
    log.flush(NOW + LIFE + 100)
    count = scene.store.database.execute("SELECT count(*), min(at) FROM decision").fetchone()
    assert count == (3 * BEHIND - 100 + 1, NOW + 100)
    assert KEPT > 7 * 1440


def test_decisions_outlive_the_control_process(scene: Scene) -> None:
    service = desired(2, scale={"min": 1, "concurrency": 1})
    for _ in range(3):
        scene.second(service, replicas(2), arrivals=60, took=0.1)
    at = scene.clock
    scene.restart()
    (last,) = scene.decisions.of(KEY, at + 1, 1)
    assert last.desired == scene.wanted()
    assert last.candidates["concurrency"] > 2


def test_a_verdict_without_a_wish_of_its_own_has_no_limits() -> None:
    calm = ScalingDecision(State(), Decision(2, "hold", "x"), Decision(2, "hold", "x"))
    assert made(SETTINGS, BUSY, calm, 2, None, NOW).limits == ()
