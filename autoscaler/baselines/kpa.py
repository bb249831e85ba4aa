"""Knative's pod autoscaler (KPA), re-implemented from its published rule and defaults.

Source: knative/serving `pkg/autoscaler/scaling` (Apache-2.0), read for the rule only.
"""

from dataclasses import dataclass
from math import ceil, floor

from autoscaler.decision import Decision
from autoscaler.signals import Signal

TICK, STABLE, PANIC = 2, 60, 6
PANIC_THRESHOLD, UP_RATE, DOWN_RATE = 2.0, 1000.0, 2.0


@dataclass(frozen=True, slots=True)
class KpaState:
    """Concurrency of the last 60 s, and the panic that may be on."""

    seconds: int = 0
    seen: tuple[float, ...] = ()
    panic_since: float | None = None
    panic_most: int = 0
    desired: int = 0


@dataclass(frozen=True, slots=True)
class Kpa:
    """`target` is requests in flight a replica: container concurrency times 70 %."""

    target: float
    least: int = 1
    most: int = 200

    def initial(self, _now: float) -> KpaState:
        """Nothing seen yet."""
        return KpaState()

    def step(self, state: KpaState, signal: Signal | None, now: float) -> tuple[KpaState, Decision]:
        """One second; decides every second one, as the published default ticks."""
        if signal is None:
            return state, Decision(state.desired, "no-data", "no data")
        seen = (*state.seen[-(STABLE - 1) :], signal.in_flight)
        seconds = state.seconds + 1
        if seconds % TICK:
            desired = state.desired or signal.ready
            return (
                KpaState(seconds, seen, state.panic_since, state.panic_most, desired),
                Decision(desired, "hold", "between ticks"),
            )
        ready = max(1, signal.ready)
        stable = ceil(sum(seen) / len(seen) / self.target)
        recent = seen[-PANIC:]
        panic = ceil(sum(recent) / len(recent) / self.target)
        low, high = floor(ready / DOWN_RATE), ceil(UP_RATE * ready)
        since, most = state.panic_since, state.panic_most
        if seconds == TICK and ready > 1:
            since, most = now, ready
        if panic / ready >= PANIC_THRESHOLD:
            since = now
        elif since is not None and now - since > STABLE:
            since, most = None, 0
        desired = min(max(stable, low), high)
        if since is not None:
            most = max(most, desired, min(max(panic, low), high))
            desired = most
        desired = min(max(desired, self.least), self.most)
        cause = "burst" if since is not None else "load"
        return (
            KpaState(seconds, seen, since, most, desired),
            Decision(desired, cause, f"stable wants {stable}, panic wants {panic}"),
        )
