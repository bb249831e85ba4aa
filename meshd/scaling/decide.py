"""One decision: what the policy asks for, and how many replicas it may have. Pure.

`meshd.scaling.controller` calls `run_policy` for every service, then `apply_caps` with the caps of
`meshd.scaling.limits` and `meshd.capacity`.

A policy's step is a function. If its number is above a cap, the step runs again with a lower
maximum, so that the policy continues from the number that it really gets.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import autoscaler
from autoscaler import Decision, ScalingSettings, Signal, State
from autoscaler.limits import describe_limit

COOLDOWN_TEXT: Final = "but no replica is removed during the cooldown after a change"


@dataclass(frozen=True, slots=True)
class DecisionInput:
    """The input of a decision.

    - `settings`, `state`: of the policy.
    - `signal`: the last second; None without data.
    - `now`: Unix time.
    - `cooling`: whether the cooldown after a change lasts, so that no replica is removed.
    """

    settings: ScalingSettings
    state: State
    signal: Signal | None
    now: float
    cooling: bool = False


@dataclass(frozen=True, slots=True)
class Cap:
    """A temporary upper limit on the number of replicas.

    - `number`: the most replicas.
    - `limit`: short stable code.
    - `reason`: text for people; it continues "9 replicas wanted, ".
    """

    number: int
    limit: str
    reason: str


@dataclass(frozen=True, slots=True)
class ScalingDecision:
    """A decision and how it came about.

    - `state`: the policy's next state.
    - `decision`: the final decision.
    - `uncapped`: the decision without caps.
    - `limits`: texts of the limits that changed the number.
    """

    state: State
    decision: Decision
    uncapped: Decision
    limits: tuple[str, ...] = ()


def run_policy(data: DecisionInput) -> ScalingDecision:
    """Return what the policy decides within its own limits."""
    signal = data.signal
    cooling = data.cooling and signal is not None and not (signal.busy or signal.ejected)
    if signal is not None and cooling:
        signal = replace(signal, busy=True)
    policy = autoscaler.make(data.settings)
    state, decision = policy.step(data.state, signal, data.now)
    if cooling and decision.limited_by == "rollout":
        rollout_text = describe_limit(data.settings, "rollout")
        reason = decision.reason.replace(rollout_text, COOLDOWN_TEXT)
        decision = replace(decision, limited_by="cooldown", reason=reason)
    return ScalingDecision(state, decision, decision, _own_limits(data.settings, decision))


def apply_caps(
    data: DecisionInput, uncapped: ScalingDecision, floor: int = 0, caps: Sequence[Cap] = ()
) -> ScalingDecision:
    """Return the decision under the lowest of `caps`. `floor` is the number of replicas that were
    already started for waiting requests; it holds as far as the caps allow."""
    lowest = min(caps, key=lambda each: each.number, default=None)
    result = uncapped
    if lowest is not None and uncapped.decision.desired > lowest.number:
        result = _apply_cap(data, uncapped.decision, lowest)
    if lowest is not None:
        floor = min(floor, lowest.number)
    if result.decision.desired >= floor:
        return result
    text = f"{floor} were started at once for waiting requests"
    decision = replace(result.decision, desired=floor, cause="wake", reason=text, limited_by=None)
    return replace(result, decision=decision, limits=(text,))


def _apply_cap(data: DecisionInput, uncapped: Decision, cap: Cap) -> ScalingDecision:
    settings, number = data.settings, cap.number
    lower = replace(settings, min=min(settings.min, number), max=max(1, min(settings.max, number)))
    state, decision = autoscaler.make(lower).step(data.state, data.signal, data.now)
    text = f"{uncapped.desired} wanted, {cap.reason}"
    decision = replace(
        decision,
        desired=min(decision.desired, number),
        cause=uncapped.cause,
        reason=f"{uncapped.reason}; {text}",
        limited_by=cap.limit,
    )
    return ScalingDecision(state, decision, uncapped, (text,))


def _own_limits(settings: ScalingSettings, decision: Decision) -> tuple[str, ...]:
    limit, needed = decision.limited_by, decision.numbers.get("wanted")
    if limit is None or needed is None:
        return ()
    text = COOLDOWN_TEXT if limit == "cooldown" else describe_limit(settings, limit)
    return (f"{needed:.0f} needed, {text}",)
