"""Latency estimators."""

import pytest

from proxy.policy.latency import LatencyAtLoad, PeakEwma


def test_peak_counts_at_once_and_fades() -> None:
    peak = PeakEwma()
    assert peak.at(3) == 0.0
    peak.observe(0.1, 0.0, 0)
    peak.observe(0.5, 1.0, 9)
    assert peak.at(0) == 0.5
    peak.observe(0.1, 1.1, 0)
    assert peak.at(0) == pytest.approx(0.496, abs=0.001)
    peak.observe(0.1, 100.0, 0)
    assert peak.at(0) < 0.12


def test_first_answers_count_fully_and_later_ones_move_the_mean() -> None:
    recent = LatencyAtLoad()
    assert recent.at(0) == 0.0
    recent.observe(0.1, 0.0, 0)
    assert recent.at(0) == pytest.approx(0.1)
    recent.observe(0.3, 0.0, 0)
    assert recent.at(0) == pytest.approx(0.2)
    for _ in range(100):
        recent.observe(1.0, 0.0, 0)
    assert recent.at(0) == pytest.approx(1.0, abs=0.01)


def test_latency_is_kept_per_load() -> None:
    recent = LatencyAtLoad()
    for _ in range(30):
        recent.observe(0.1, 0.0, 2)
        recent.observe(2.0, 0.0, 40)
    assert recent.at(3) == pytest.approx(0.1)
    assert recent.at(63) == pytest.approx(2.0)
    assert recent.at(10) == pytest.approx(0.1), "as at the next lower load that is known"
    assert recent.at(10**6) == pytest.approx(2.0)
    assert recent.at(0) == pytest.approx(0.025), "hopeful below what is known, to be tried"


def test_after_a_pause_one_answer_outweighs_the_past() -> None:
    recent = LatencyAtLoad()
    for tick in range(100):
        recent.observe(3.0, tick * 0.01, 0)
    recent.observe(0.1, 11.0, 0)
    assert recent.at(0) < 0.7
