"""A decision as a record for `meshd explain`. Pure.

`meshd.scaling.controller` makes one every second and keeps those that say something new.
"""

from typing import Final

from autoscaler import ScalingSettings, Signal
from meshd.model.scaling import ScaleDecision
from meshd.scaling.decide import ScalingDecision

MAX_INTERVAL: Final = 60.0
"""Seconds after which a record is kept even if nothing changed."""
MIN_INTERVAL: Final = 10.0
"""Seconds between two records if only cause or limits changed: they may alternate every second."""
_OBJECTIVES: Final = {
    "concurrency": "{:g} requests in flight per replica",
    "rps": "{:g} requests/s per replica",
    "cpu": "{:g} % CPU per replica",
    "queue": "{:g} s in the queue",
    "external": "{:g} of the query per replica",
}


def make_record(
    settings: ScalingSettings,
    signal: Signal | None,
    result: ScalingDecision,
    previous: int,
    override: int | None,
    now: float,
) -> ScaleDecision:
    """Return the record of a decision with all its inputs. `previous` is the number before,
    `override` the number set by hand."""
    decision = result.decision
    needed = result.uncapped.numbers.get("wanted", float(result.uncapped.desired))
    return ScaleDecision(
        at=now,
        desired=decision.desired,
        previous=previous,
        wanted=round(needed),
        cause=decision.cause,
        reason=decision.reason,
        objectives=describe_objectives(settings),
        signals=describe_signal(signal),
        model={name: round(value, 6) for name, value in decision.numbers.items()},
        candidates=dict(result.uncapped.candidates),
        limits=result.limits,
        rejected=describe_rejected(result),
        override=override,
    )


def is_worth_keeping(before: ScaleDecision | None, now: ScaleDecision) -> bool:
    """Return whether a record says something new, or the last one is old."""
    if before is None or before.desired != now.desired or before.override != now.override:
        return True
    age = now.at - before.at
    differs = (before.cause, bool(before.limits)) != (now.cause, bool(now.limits))
    return age >= MAX_INTERVAL or (differs and age >= MIN_INTERVAL)


def describe_objectives(settings: ScalingSettings) -> tuple[str, ...]:
    """Return a line for each objective, and the bounds last."""
    lines = []
    if settings.latency is not None:
        lines.append(f"p{settings.share:g} within {settings.latency * 1000:g} ms")
    for name, text in _OBJECTIVES.items():
        value = getattr(settings, name)
        if value is not None:
            lines.append(text.format(value))
    return (*lines, f"{settings.min} to {settings.max} replicas")


def describe_signal(signal: Signal | None) -> dict[str, float]:
    """Return the measurements by name; empty without data."""
    if signal is None:
        return {}
    done = max(signal.completions, 1)
    values = {
        "arrivals_per_second": signal.arrivals / signal.interval,
        "in_flight": signal.in_flight,
        "streams": signal.streams,
        "mean_latency": signal.latency_sum / done,
        "mean_queue": (signal.queue_sum or 0.0) / done,
        "own_calls_in_flight": (signal.downstream_sum or 0.0) / signal.interval,
        "errors": signal.errors,
        "shed": signal.shed,
        "parked": signal.parked,
        "ready": signal.ready,
        "starting": signal.starting,
        "ejected": signal.ejected,
        "rollout": signal.busy,
    }
    for name in ("cpu", "external"):
        value = getattr(signal, name)
        if value is not None:
            values[name] = value
    if signal.scheduled:
        values["scheduled"] = signal.scheduled
    return {name: round(float(value), 6) for name, value in values.items()}


def describe_rejected(result: ScalingDecision) -> tuple[str, ...]:
    """Return a line for each number that was considered but not chosen, with the reason."""
    uncapped, lines = result.uncapped, []
    ranked = sorted(uncapped.candidates.items(), key=lambda each: (-each[1], each[0]))
    if len(ranked) > 1:
        top, most = ranked[0]
        lines += [
            f"{number} for {name}: {top} needs {most}, and the largest need wins"
            for name, number in ranked[1:]
            if number < most
        ]
    if result.decision.desired != uncapped.desired:
        lines.append(f"{uncapped.desired}: {'; '.join(result.limits)}")
    return tuple(lines)
