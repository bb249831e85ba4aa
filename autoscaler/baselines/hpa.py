"""Kubernetes' horizontal pod autoscaler (HPA v2), reimplemented from its published rule. Pure.

`meshd simulate` compares the policy with it.

Source: kubernetes `pkg/controller/podautoscaler` (Apache-2.0), read for the rule only: every 15 s
`ceil(pods * metric / target)`, a tolerance of 10 %, up by at most 4 pods or 100 % in 15 s, down to
the largest recommendation of the last 300 s.
"""

from dataclasses import dataclass
from math import ceil
from typing import Final, Literal

from autoscaler.decision import Decision
from autoscaler.signals import Signal

TICK: Final = 15
"""Seconds between two decisions (`--horizontal-pod-autoscaler-sync-period`)."""
TOLERANCE: Final = 0.1
"""Relative deviation from the target that changes nothing."""
DOWN_WINDOW: Final = 300
"""Seconds of recommendations of which the largest counts when scaling down."""
UNREADY_SECONDS: Final = 30
"""Seconds for which a pod that became ready still counts as unready: until a whole metric window
(15 s, seen 15 s late) lies after it, within the first five minutes of a pod."""
RATE_SECONDS: Final = 60
"""Seconds of the rate, for the rps metric."""
CPU_WINDOW, CPU_DELAY = 15, 15
"""Seconds of the CPU metric's window, and seconds until the metrics server shows it."""
UP_PODS, UP_RATIO = 4, 2
"""Pods, and factor, by which one step may scale up; the larger result counts."""


@dataclass(frozen=True, slots=True)
class HpaState:
    """The last samples of the metric, and the last recommendations and new pods as (second,
    count)."""

    seconds: int = 0
    samples: tuple[float, ...] = ()
    recommendations: tuple[tuple[int, int], ...] = ()
    desired: int = 0
    became_ready: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Hpa:
    """Kubernetes' HPA on one metric.

    - `metric` cpu: `target` percent of the CPU, over a 15 s window seen 15 s late, as the metrics
      server delivers it.
    - `metric` rps: `target` requests per second and replica, as a 60 s rate.
    """

    metric: Literal["cpu", "rps"]
    target: float
    min_replicas: int = 1
    max_replicas: int = 200

    def initial(self, _now: float) -> HpaState:
        """Return the state before the first signal."""
        return HpaState()

    def step(
        self, state: HpaState, signal: Signal | None, _now: float
    ) -> tuple[HpaState, Decision]:
        """Play one second; every fifteenth decides."""
        if signal is None:
            return state, Decision(state.desired, "no-data", "no data")
        sample = (signal.cpu or 0.0) if self.metric == "cpu" else signal.arrivals / signal.interval
        samples = (*state.samples[1 - RATE_SECONDS :], sample)
        seconds = state.seconds + 1
        desired = state.desired or signal.ready
        recommendations = state.recommendations
        recent = [each for each in state.became_ready if each[0] > seconds - UNREADY_SECONDS]
        if signal.startups:
            recent.append((seconds, len(signal.startups)))
        if seconds % TICK == 0:
            unready = sum(count for _, count in recent)
            recommended = min(
                max(self._recommend(samples, signal, desired, unready), self.min_replicas),
                self.max_replicas,
            )
            recommendations = (
                *[each for each in recommendations if each[0] > seconds - DOWN_WINDOW],
                (seconds, recommended),
            )
            # Stabilized first: never below a recommendation of the window.
            highest = max(count for _, count in recommendations)
            stable = max(recommended, min(desired, highest))
            desired = min(stable, max(desired + UP_PODS, desired * UP_RATIO))
        return HpaState(seconds, samples, recommendations, desired, tuple(recent)), Decision(
            desired, "load", self.metric
        )

    def _recommend(self, samples: tuple[float, ...], signal: Signal, current: int, new: int) -> int:
        if self.metric == "rps":
            rate = sum(samples) / len(samples)
            usage = rate / (self.target * max(1, current))
            return current if abs(1.0 - usage) <= TOLERANCE else ceil(rate / self.target)
        window = samples[-CPU_WINDOW - CPU_DELAY : -CPU_DELAY] or samples[:1]
        ratio = sum(window) / len(window) / self.target
        ready = max(1, signal.ready - new)
        unready = signal.starting + signal.ready - ready
        if ratio <= 1.0 or not unready:
            return current if abs(1.0 - ratio) <= TOLERANCE else ceil(ratio * ready)
        # When scaling up, pods that are not ready count as idle.
        corrected = ratio * ready / (ready + unready)
        return current if corrected <= 1.0 + TOLERANCE else ceil(corrected * (ready + unready))
