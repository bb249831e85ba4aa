"""A decision as it is kept for whoever asks why. Pure."""

from typing import Final

from autoscaler import ScalingSettings, Signal
from meshd.model.scaling import ScaleDecision
from meshd.scaling.decide import ScalingDecision

SAMPLE: Final = 60.0
CALM: Final = 10.0
"""Seconds between records where nothing but the reason changed."""
_UNITS: Final = {
    "concurrency": "{:g} in flight a replica",
    "rps": "{:g} requests/s a replica",
    "cpu": "{:g} % CPU a replica",
    "queue": "{:g} s in the queue",
    "external": "{:g} of the query a replica",
}


def made(
    settings: ScalingSettings,
    signal: Signal | None,
    verdict: ScalingDecision,
    previous: int,
    override: int | None,
    now: float,
) -> ScaleDecision:
    """All that a decision was made from, and what it came to."""
    decision = verdict.decision
    wanted = verdict.uncapped.numbers.get("wanted", float(verdict.uncapped.desired))
    return ScaleDecision(
        at=now,
        desired=decision.desired,
        previous=previous,
        wanted=round(wanted),
        cause=decision.cause,
        reason=decision.reason,
        objectives=objectives(settings),
        signals=signals(signal),
        model={name: round(value, 6) for name, value in decision.numbers.items()},
        candidates=dict(verdict.uncapped.candidates),
        limits=verdict.limits,
        rejected=rejected(verdict),
        override=override,
    )


def worth_keeping(before: ScaleDecision | None, now: ScaleDecision) -> bool:
    """Whether it says something new, or the last one is long ago."""
    if before is None or before.desired != now.desired or before.override != now.override:
        return True
    past = now.at - before.at
    told = (before.cause, bool(before.limits)) != (now.cause, bool(now.limits))
    return past >= SAMPLE or (told and past >= CALM)


def objectives(settings: ScalingSettings) -> tuple[str, ...]:
    """What is asked, in words."""
    found = []
    if settings.latency is not None:
        found.append(f"p{settings.share:g} within {settings.latency * 1000:g} ms")
    for name, text in _UNITS.items():
        value = getattr(settings, name)
        if value is not None:
            found.append(text.format(value))
    return (*found, f"{settings.min} to {settings.max} replicas")


def signals(signal: Signal | None) -> dict[str, float]:
    """What was seen, by name; empty without data."""
    if signal is None:
        return {}
    done = max(signal.completions, 1)
    told = {
        "arrivals_per_second": signal.arrivals / signal.interval,
        "in_flight": signal.in_flight,
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
            told[name] = value
    if signal.scheduled:
        told["scheduled"] = signal.scheduled
    return {name: round(float(value), 6) for name, value in told.items()}


def rejected(verdict: ScalingDecision) -> tuple[str, ...]:
    """What else was on the table, and why it was not taken."""
    wish, found = verdict.uncapped, []
    ranked = sorted(wish.candidates.items(), key=lambda each: (-each[1], each[0]))
    if len(ranked) > 1:
        top, most = ranked[0]
        found += [
            f"{number} for {name}: {top} wants {most}, and the largest wins"
            for name, number in ranked[1:]
            if number < most
        ]
    if verdict.decision.desired != wish.desired:
        found.append(f"{wish.desired}: {'; '.join(verdict.limits)}")
    return tuple(found)
