"""Records of decisions: their contents, and how many are kept."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from autoscaler import Decision, ScalingSettings, Signal, State
from meshd.model.scaling import ScaleDecision
from meshd.scaling.decide import Cap, DecisionInput, ScalingDecision, apply_caps, run_policy
from meshd.scaling.decision_record import MAX_INTERVAL, is_worth_keeping, make_record
from meshd.store.decisions import BEHIND, KEPT, LIFE, DecisionLog
from tests.fakes.scaling_scene import KEY, NOW, Scene, desired, replicas

BUSY = Signal(arrivals=90, completions=90, in_flight=9.0, latency_sum=9.0, ready=2)
SETTINGS = ScalingSettings(min=1, max=8, rps=10.0, concurrency=3.0)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made_scene = Scene(tmp_path)
    yield made_scene
    made_scene.close()


def decide(state: State, signal: Signal | None, *caps: Cap) -> ScalingDecision:
    data = DecisionInput(SETTINGS, state, signal, NOW)
    return apply_caps(data, run_policy(data), 0, caps)


def decided(at: float = NOW, desired: int = 3, **more: object) -> ScaleDecision:
    fields = {"previous": desired, "wanted": desired, "cause": "hold", "reason": "", **more}
    return ScaleDecision(at=at, desired=desired, **fields)  # type: ignore[arg-type]


def test_the_largest_need_wins_and_the_others_are_recorded() -> None:
    result = decide(State(desired=2), BUSY)
    record = make_record(SETTINGS, BUSY, result, 2, None, NOW)
    assert (record.desired, record.previous, record.cause, record.wanted) == (8, 2, "load", 9)
    assert record.candidates == {"concurrency": 3, "rps": 9}
    assert record.rejected == ("3 for concurrency: rps needs 9, and the largest need wins",)
    assert record.limits == ("9 needed, limited by the maximum of 8",)
    assert record.objectives == ("3 requests in flight per replica", "10 requests/s per replica",
                                 "1 to 8 replicas")  # fmt: skip
    assert record.signals["arrivals_per_second"] == 90.0
    assert record.model["rate"] == 90.0


def test_the_lowest_cap_holds_and_is_recorded() -> None:
    caps = (Cap(5, "other", "reason A"), Cap(4, "room", "but capacity for 4 only: reason B"))
    result = decide(State(desired=2), BUSY, *caps)
    assert (result.decision.desired, result.decision.limited_by) == (4, "room")
    assert result.state.desired == 4
    assert result.limits == (
        f"{result.uncapped.desired} wanted, but capacity for 4 only: reason B",
    )
    nothing = decide(State(desired=2), BUSY, Cap(0, "room", "full"))
    assert nothing.decision.desired == 0
    high = decide(State(desired=2), BUSY, Cap(50, "room", "no"))
    assert high.decision == high.uncapped


def test_without_data_the_number_stays_and_the_record_says_so() -> None:
    result = decide(State(desired=3), None)
    record = make_record(SETTINGS, None, result, 3, 5, NOW)
    assert (record.desired, record.cause, record.signals, record.override) == (3, "no-data", {}, 5)


def test_changes_are_kept_at_once_and_the_rest_now_and_then() -> None:
    before = decided()
    assert is_worth_keeping(None, before)
    assert not is_worth_keeping(before, decided(NOW + 1))
    assert is_worth_keeping(before, decided(NOW + 1, desired=4))
    assert is_worth_keeping(before, decided(NOW + 1, override=2))
    assert not is_worth_keeping(before, decided(NOW + 1, cause="strain"))
    assert is_worth_keeping(before, decided(NOW + 11, cause="strain"))
    assert is_worth_keeping(before, decided(NOW + MAX_INTERVAL))


def test_the_log_is_bounded_and_can_be_read_as_of_any_time(scene: Scene) -> None:
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


def test_decisions_survive_a_restart(scene: Scene) -> None:
    service = desired(2, scale={"min": 1, "concurrency": 1})
    for _ in range(3):
        scene.second(service, replicas(2), arrivals=60, took=0.1)
    at = scene.clock
    scene.restart()
    (last,) = scene.decisions.of(KEY, at + 1, 1)
    assert last.desired == scene.wanted()
    assert last.candidates["concurrency"] > 2


def test_a_decision_without_limits_has_no_limit_texts() -> None:
    calm = ScalingDecision(State(), Decision(2, "hold", "x"), Decision(2, "hold", "x"))
    assert make_record(SETTINGS, BUSY, calm, 2, None, NOW).limits == ()
