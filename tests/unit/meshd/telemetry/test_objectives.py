"""When a latency objective counts as missed."""

import pytest

from meshd.telemetry.merge import MergedService
from meshd.telemetry.objectives import MIN_REQUESTS, describe_breach


def merged(quick: int, slow: int, errors: int = 0) -> MergedService:
    made = MergedService()
    for count, seconds in ((quick, 0.01), (slow, 0.9)):
        for _ in range(count):
            made.total.observe(seconds)
    made.codes = {"GET 2xx": quick + slow - errors, "GET 5xx": errors}
    return made


@pytest.mark.parametrize(
    ("quick", "slow", "errors", "is_breach"),
    [
        (0, 0, 0, False),
        (0, MIN_REQUESTS - 1, 0, False),
        (100, 0, 0, False),
        (95, 5, 0, False),
        (80, 20, 0, False),
        (70, 30, 0, True),
        (100, 0, 40, True),
        (0, 100, 0, True),
    ],
)
def test_breaches(quick: int, slow: int, errors: int, is_breach: bool) -> None:
    found = describe_breach(merged(quick, slow, errors), latency=0.2, share=95.0)
    assert (found is not None) is is_breach


def test_a_breach_is_described_by_its_numbers() -> None:
    assert describe_breach(merged(70, 30), 0.2, 95.0) == (
        "objective missed: 70.0 % of 100 requests within 200 ms in 10 s; expected 95 %"
    )
