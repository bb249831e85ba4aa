"""One decision: what the policy wants, and what is allowed of it. Pure.

A policy's step is a function, so where its number may not be had it is asked again with a lower
maximum, and goes on from what it really gets.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import autoscaler
from autoscaler import Decision, ScalingSettings, Signal, State


@dataclass(frozen=True, slots=True)
class DecisionInput:
    """What a decision is made from. While it is `cooling` down from a change, nothing goes."""

    settings: ScalingSettings
    state: State
    signal: Signal | None
    now: float
    cooling: bool = False


@dataclass(frozen=True, slots=True)
class Cap:
    """No more than `number` for now: `limit` is a short stable code, `why` for people."""

    number: int
    limit: str
    why: str


@dataclass(frozen=True, slots=True)
class ScalingDecision:
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
    "cooldown": "nothing goes so soon after a change",
}


def wish(case: DecisionInput) -> ScalingDecision:
    """What the policy wants, under the limits of its own settings."""
    signal = case.signal
    cooling = case.cooling and signal is not None and not (signal.busy or signal.ejected)
    if signal is not None and cooling:
        signal = replace(signal, busy=True)
    policy = autoscaler.make(case.settings)
    state, decision = policy.step(case.state, signal, case.now)
    if cooling and decision.limited_by == "rollout":
        reason = decision.reason.replace("limited by rollout", "limited by cooldown")
        decision = replace(decision, limited_by="cooldown", reason=reason)
    return ScalingDecision(state, decision, decision, _own(case.settings, decision))


def limited(
    case: DecisionInput, wished: ScalingDecision, floor: int = 0, ceilings: Sequence[Cap] = ()
) -> ScalingDecision:
    """The same under these ceilings, of which the lowest counts, and `floor` as far as they
    allow it: replicas that were woken already."""
    lowest = min(ceilings, key=lambda each: each.number, default=None)
    verdict = wished
    if lowest is not None and wished.decision.desired > lowest.number:
        verdict = _lowered(case, wished.decision, lowest)
    if lowest is not None:
        floor = min(floor, lowest.number)
    if verdict.decision.desired >= floor:
        return verdict
    decision = replace(verdict.decision, desired=floor, cause="wake", limited_by=None)
    woken = f"{floor} were woken at once for the requests that waited"
    return replace(verdict, decision=decision, limits=(woken,))


def _lowered(case: DecisionInput, wished: Decision, ceiling: Cap) -> ScalingDecision:
    settings, number = case.settings, ceiling.number
    lower = replace(settings, min=min(settings.min, number), max=max(1, min(settings.max, number)))
    state, decision = autoscaler.make(lower).step(case.state, case.signal, case.now)
    decision = replace(
        decision,
        desired=min(decision.desired, number),
        cause=wished.cause,
        reason=f"{wished.reason}; wanted {wished.desired}, {ceiling.why}",
        limited_by=ceiling.limit,
    )
    return ScalingDecision(state, decision, wished, (f"wanted {wished.desired}, {ceiling.why}",))


def _own(settings: ScalingSettings, decision: Decision) -> tuple[str, ...]:
    text = _OWN.get(decision.limited_by or "")
    wanted = decision.numbers.get("wanted")
    if text is None or wanted is None:
        return ()
    return (f"wanted {wanted:.0f}, limited by {text.format(settings)}",)
