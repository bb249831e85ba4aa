"""Knative's pod autoscaler (KPA), reimplemented from its published rule and defaults. Pure.

`meshd simulate` compares the policy with it.

Source: knative/serving `pkg/autoscaler/scaling` (Apache-2.0), read for the rule only.
"""

from dataclasses import dataclass
from math import ceil, floor
from typing import Final

from autoscaler.decision import Decision
from autoscaler.signals import Signal

TICK: Final = 2
"""Seconds between two decisions (default `tick-interval`)."""
STABLE_SECONDS, PANIC_SECONDS = 60, 6
"""Seconds of the stable window, and of the panic window (defaults: 60 s, and 10 % of it)."""
PANIC_THRESHOLD: Final = 2.0
"""Desired pods in the panic window per ready pod from which panic begins (default 200 %)."""
MAX_UP_RATE, MAX_DOWN_RATE = 1000.0, 2.0
"""Factors by which one step may scale up, and down (defaults)."""


@dataclass(frozen=True, slots=True)
class KpaState:
    """The concurrency of the last 60 s; since when panic lasts (None: no panic), and the most
    replicas in it."""

    seconds: int = 0
    samples: tuple[float, ...] = ()
    panic_since: float | None = None
    panic_most: int = 0
    desired: int = 0


@dataclass(frozen=True, slots=True)
class Kpa:
    """KPA with `target` requests in flight per replica: container concurrency times 70 %."""

    target: float
    min_replicas: int = 1
    max_replicas: int = 200

    def initial(self, _now: float) -> KpaState:
        """Return the state before the first signal."""
        return KpaState()

    def step(self, state: KpaState, signal: Signal | None, now: float) -> tuple[KpaState, Decision]:
        """Play one second; every second one decides, which is the published default."""
        if signal is None:
            return state, Decision(state.desired, "no-data", "no data")
        samples = (*state.samples[-(STABLE_SECONDS - 1) :], signal.in_flight)
        seconds = state.seconds + 1
        if seconds % TICK:
            desired = state.desired or signal.ready
            return (
                KpaState(seconds, samples, state.panic_since, state.panic_most, desired),
                Decision(desired, "hold", "between ticks"),
            )
        ready = max(1, signal.ready)
        stable = ceil(sum(samples) / len(samples) / self.target)
        recent = samples[-PANIC_SECONDS:]
        panic = ceil(sum(recent) / len(recent) / self.target)
        low, high = floor(ready / MAX_DOWN_RATE), ceil(MAX_UP_RATE * ready)
        since, most = state.panic_since, state.panic_most
        if seconds == TICK and ready > 1:
            since, most = now, ready
        if panic / ready >= PANIC_THRESHOLD:
            since = now
        elif since is not None and now - since > STABLE_SECONDS:
            since, most = None, 0
        desired = min(max(stable, low), high)
        if since is not None:
            most = max(most, desired, min(max(panic, low), high))
            desired = most
        desired = min(max(desired, self.min_replicas), self.max_replicas)
        cause = "burst" if since is not None else "load"
        return (
            KpaState(seconds, samples, since, most, desired),
            Decision(desired, cause, f"stable window: {stable}, panic window: {panic}"),
        )
