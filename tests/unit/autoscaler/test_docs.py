"""The page about the autoscaler: its example runs, and it names every cause."""

import re
from types import SimpleNamespace
from typing import get_type_hints

from autoscaler import Decision, ScalingSettings, Signal, State
from autoscaler.policy.explain import REASONS
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "autoscaler.md").read_text(encoding="utf-8")


class Simulator:
    """A user's simulator: 200 requests/s of 50 ms, replicas of four workers that start at once."""

    def __init__(self) -> None:
        self.replicas = 1

    def play_one_second(self) -> SimpleNamespace:
        done = min(200, 80 * self.replicas)
        return SimpleNamespace(
            arrivals=200, done=done, refused=200 - done, mean_in_flight=done * 0.05,
            histogram=((0.06, done),), latency_sum=0.05 * done, ready=self.replicas, starting=0,
            became_ready_after=(),
        )  # fmt: skip

    def scale_to(self, desired: int) -> None:
        self.replicas = desired


def test_the_example_drives_the_policy() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len([line for line in example.splitlines() if line.strip()]) <= 14
    simulator = Simulator()
    names: dict[str, object] = {"my_simulator": simulator}
    exec(compile(example, "docs/autoscaler.md", "exec"), names)
    state, decision = names["state"], names["decision"]
    assert isinstance(state, State)
    assert isinstance(decision, Decision)
    assert 3 <= simulator.replicas == decision.desired <= 12


def test_the_page_names_every_cause_and_setting() -> None:
    for cause in REASONS:
        assert re.search(rf"\b{cause}\b", PAGE), cause
    for setting in ("min", "max", "concurrency", "rps", "down_window", "calm"):
        assert setting in get_type_hints(ScalingSettings)
        assert f"`{setting}`" in PAGE, setting
    assert "wakes" in get_type_hints(Signal)
