"""`FrameBudget`: bursts pass, floods do not; work earns control frames."""

from proxy.http2.abuse import (
    CONTROL_BURST,
    CONTROL_PER_WORK,
    CONTROL_RATE,
    RESET_BURST,
    RESET_RATE,
    FrameBudget,
)


def test_a_burst_of_control_frames_passes_and_a_flood_does_not() -> None:
    budget = FrameBudget(0.0)
    assert all(budget.take_control(0.0) for _ in range(int(CONTROL_BURST)))
    assert not budget.take_control(0.0)


def test_control_frames_come_back_with_time() -> None:
    budget = FrameBudget(0.0)
    while budget.take_control(0.0):
        pass
    allowed = 0
    while budget.take_control(10.0):
        allowed += 1
    assert allowed in (10 * CONTROL_RATE, 10 * CONTROL_RATE - 1)


def test_work_earns_control_frames_up_to_the_burst() -> None:
    budget = FrameBudget(0.0)
    for _ in range(10 * int(CONTROL_BURST)):
        budget.earn()
        assert all(budget.take_control(0.0) for _ in range(int(CONTROL_PER_WORK)))
    for _ in range(1000):
        budget.earn()
    assert sum(budget.take_control(0.0) for _ in range(5000)) == CONTROL_BURST


def test_resets_have_their_own_budget() -> None:
    budget = FrameBudget(0.0)
    for _ in range(1000):
        budget.earn()
    assert sum(budget.take_reset(0.0) for _ in range(1000)) == RESET_BURST
    assert not budget.take_reset(0.0)
    assert budget.take_control(0.0)
    later = FrameBudget(0.0)
    while later.take_reset(0.0):
        pass
    assert sum(later.take_reset(10.0) for _ in range(1000)) in (
        10 * RESET_RATE,
        10 * RESET_RATE - 1,
    )


def test_frames_without_effect_count_as_control_frames() -> None:
    budget = FrameBudget(0.0)
    assert budget.take_controls(int(CONTROL_BURST), 0.0)
    assert not budget.take_controls(1, 0.0)
    assert budget.take_controls(1, 1.0)
