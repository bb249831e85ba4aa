"""One decision: what the policy wants, and what is allowed of it. Pure.

A policy's step is a function, so where its number may not be had it is asked again with a lower
maximum, and goes on from what it really gets.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import autoscaler
from autoscaler import Decision, Settings, Signal, State


@dataclass(frozen=True, slots=True)
class Ceiling:
    """No more than `number` for now: `limit` is a short stable code, `why` for people."""

    number: int
    limit: str
    why: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """`decision` is what becomes of it; `wish` what it would be without ceilings. `limits` says
    what changed the number, for people."""

    state: State
    decision: Decision
    wish: Decision
    limits: tuple[str, ...] = ()


_OWN = {
    "min": "the minimum of {0.min}",
    "max": "the maximum of {0.max}",
    "step": "one step (up to {0.step_up:g} times as many, down by {0.step_down:.0%})",
    "rollout": "nothing goes while a rollout or an ejection is under way",
}


def judge(
    settings: Settings,
    state: State,
    signal: Signal | None,
    now: float,
    floor: int = 0,
    ceilings: Sequence[Ceiling] = (),
) -> Verdict:
    """One step under all limits. The lowest ceiling that bites is the one that is told."""
    new, wish = autoscaler.make(settings).step(state, signal, now)
    decision, limits = wish, _own(settings, wish)
    lowest = min(ceilings, key=lambda each: each.number, default=None)
    if lowest is not None and wish.desired > lowest.number:
        lowered = replace(
            settings,
            min=min(settings.min, lowest.number),
            max=max(1, min(settings.max, lowest.number)),
        )
        new, decision = autoscaler.make(lowered).step(state, signal, now)
        reason = f"{wish.reason}; wanted {wish.desired}, {lowest.why}"
        decision = replace(
            decision,
            desired=min(decision.desired, lowest.number),
            cause=wish.cause,
            reason=reason,
            limited_by=lowest.limit,
        )
        limits = (f"wanted {wish.desired}, {lowest.why}",)
    if decision.desired < floor:
        decision = replace(decision, desired=floor, cause="wake", limited_by=None)
        limits = (f"{floor} were woken at once for the requests that waited",)
    return Verdict(new, decision, wish, limits)


def _own(settings: Settings, decision: Decision) -> tuple[str, ...]:
    text = _OWN.get(decision.limited_by or "")
    wanted = decision.numbers.get("wanted")
    if text is None or wanted is None:
        return ()
    return (f"wanted {wanted:.0f}, limited by {text.format(settings)}",)
