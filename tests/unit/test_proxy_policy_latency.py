"""Latency estimators."""

import pytest

from proxy.policy.latency import PeakEwma, RecentLatency


def test_peak_counts_at_once_and_fades() -> None:
    peak = PeakEwma()
    peak.observe(0.1, 0.0)
    peak.observe(0.5, 1.0)
    assert peak.value == 0.5
    peak.observe(0.1, 1.1)
    assert peak.value == pytest.approx(0.496, abs=0.001)
    peak.observe(0.1, 100.0)
    assert peak.value < 0.12


def test_recent_starts_with_the_first_answers_and_follows() -> None:
    recent = RecentLatency()
    assert recent.value == 0.0
    recent.observe(0.1, 0.0)
    assert recent.value == pytest.approx(0.1)
    recent.observe(0.3, 0.0)
    assert recent.value == pytest.approx(0.2)
    for _ in range(100):
        recent.observe(1.0, 0.0)
    assert recent.value == pytest.approx(1.0, abs=0.01)
