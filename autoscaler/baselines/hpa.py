"""Kubernetes' horizontal pod autoscaler (HPA v2), re-implemented from its published rule.

Source: kubernetes `pkg/controller/podautoscaler` (Apache-2.0), read for the rule only: every
15 s `ceil(pods * metric / target)`, a tolerance of 10 %, up by at most 4 pods or 100 % in 15 s,
down to the largest recommendation of the last 300 s.
"""

from dataclasses import dataclass
from math import ceil
from typing import Literal

from autoscaler.decision import Decision
from autoscaler.signals import Signal

TICK, TOLERANCE, DOWN_WINDOW = 15, 0.1, 300
YOUNG = 30
"""Seconds a pod that became ready still counts as unready: until a whole metric window (15 s,
seen 15 s late) lies after it, within the first five minutes of a pod."""


@dataclass(frozen=True, slots=True)
class HpaState:
    """Samples of the metric, and recommendations as (when, count)."""

    seconds: int = 0
    seen: tuple[float, ...] = ()
    wanted: tuple[tuple[int, int], ...] = ()
    desired: int = 0
    became_ready: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Hpa:
    """`metric` cpu: `target` percent of the CPU, a 15 s window seen 15 s late, as the metrics
    server gives it. `metric` rps: `target` requests a second a replica, a 60 s rate."""

    metric: Literal["cpu", "rps"]
    target: float
    least: int = 1
    most: int = 200

    def initial(self, _now: float) -> HpaState:
        """Nothing seen yet."""
        return HpaState()

    def step(
        self, state: HpaState, signal: Signal | None, _now: float
    ) -> tuple[HpaState, Decision]:
        """One second; decides every fifteenth."""
        if signal is None:
            return state, Decision(state.desired, "no-data", "no data")
        value = (signal.cpu or 0.0) if self.metric == "cpu" else signal.arrivals / signal.interval
        seen = (*state.seen[-59:], value)
        seconds = state.seconds + 1
        desired = state.desired or signal.ready
        wanted = state.wanted
        fresh = [one for one in state.became_ready if one[0] > seconds - YOUNG]
        if signal.startups:
            fresh.append((seconds, len(signal.startups)))
        if seconds % TICK == 0:
            young = sum(count for _, count in fresh)
            recommended = min(
                max(self._recommend(seen, signal, desired, young), self.least), self.most
            )
            wanted = (
                *[one for one in wanted if one[0] > seconds - DOWN_WINDOW],
                (seconds, recommended),
            )
            # Stabilised first: never below what was recommended in the window.
            stable = max(recommended, min(desired, max(count for _, count in wanted)))
            desired = min(stable, max(desired + 4, desired * 2))
        return HpaState(seconds, seen, wanted, desired, tuple(fresh)), Decision(
            desired, "load", self.metric
        )

    def _recommend(self, seen: tuple[float, ...], signal: Signal, current: int, young: int) -> int:
        if self.metric == "rps":
            rate = sum(seen) / len(seen)
            usage = rate / (self.target * max(1, current))
            return current if abs(1.0 - usage) <= TOLERANCE else ceil(rate / self.target)
        window = seen[-30:-15] or seen[:1]
        ratio = sum(window) / len(window) / self.target
        ready = max(1, signal.ready - young)
        unready = signal.starting + signal.ready - ready
        if ratio <= 1.0 or not unready:
            return current if abs(1.0 - ratio) <= TOLERANCE else ceil(ratio * ready)
        # Pods that are not ready count as using nothing on the way up.
        corrected = ratio * ready / (ready + unready)
        return current if corrected <= 1.0 + TOLERANCE else ceil(corrected * (ready + unready))
