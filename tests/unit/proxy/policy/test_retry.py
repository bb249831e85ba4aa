"""Which failures are retried, and the retry budget."""

import pytest

from proxy.policy.retry import IDEMPOTENT, Cause, RetryBudget, RetryDecision, decide_retry


@pytest.mark.parametrize(
    ("cause", "written", "reused", "idempotent", "decision"),
    [
        ("connect", False, False, True, "budget"),
        ("connect", False, False, False, "budget"),
        ("closed", False, True, False, "free"),
        ("closed", True, True, True, "free"),
        ("closed", True, True, False, "no"),
        ("closed", True, False, True, "budget"),
        ("closed", True, False, False, "no"),
        ("closed", False, False, False, "budget"),
        ("timeout", True, False, True, "budget"),
        ("timeout", True, True, True, "budget"),
        ("timeout", True, False, False, "no"),
        ("status", True, False, True, "budget"),
        ("status", True, False, False, "no"),
        ("protocol", True, True, True, "no"),
        ("broken", True, True, True, "no"),
    ],
)
def test_table(
    cause: Cause, written: bool, reused: bool, idempotent: bool, decision: RetryDecision
) -> None:
    asked = {"written": written, "reused": reused, "idempotent": idempotent}
    assert decide_retry(cause, replayable=True, **asked) == decision
    assert decide_retry(cause, replayable=False, **asked) == "no"


def test_idempotent_methods() -> None:
    assert b"GET" in IDEMPOTENT
    assert not {b"POST", b"PATCH", b"CONNECT", b"get"} & IDEMPOTENT


def test_the_reserve_alone() -> None:
    budget = RetryBudget(0.2, 10.0)
    assert sum(budget.withdraw(5.0) for _ in range(500)) == 100
    assert not budget.withdraw(14.0)
    assert budget.withdraw(16.0)


def test_a_fifth_of_the_requests() -> None:
    budget = RetryBudget(0.2, 0.0)
    for number in range(1000):
        budget.deposit(100.0 + number * 0.005)
    assert sum(budget.withdraw(105.0) for _ in range(500)) == 200


def test_the_window_slides() -> None:
    budget = RetryBudget(0.5, 0.0)
    allowed = 0
    for second in range(60):
        for _ in range(10):
            budget.deposit(float(second))
            allowed += budget.withdraw(second + 0.5)
    assert allowed == pytest.approx(300, abs=5)
    assert not budget.withdraw(1000.0)


def test_everything_failing_is_bounded() -> None:
    """Retries of retries: 1,000 requests a second that all fail add a fifth, and the reserve."""
    budget = RetryBudget()
    retries = 0
    for millisecond in range(30_000):
        now = millisecond / 1000
        budget.deposit(now)
        while budget.withdraw(now):
            retries += 1
    assert retries <= 30_000 * 0.2 + 4 * 100
