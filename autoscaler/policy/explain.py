"""The reason of a decision, as a sentence with its numbers. Pure.

`policy.policy` calls `make_decision` at the end of each step. The text ends up in events and in
`meshd explain`, so it must never contradict the numbers that it shows.
"""

from collections.abc import Mapping
from math import ceil
from typing import Final

from autoscaler.decision import Decision
from autoscaler.limits import describe_limit
from autoscaler.policy.change_cost import TOLERANCE, noise_margin
from autoscaler.policy.observation import Observation
from autoscaler.policy.state import GainCap

REASONS: Final[Mapping[str, str]] = {
    "load": "the load needs more replicas",
    "forecast": "the load is rising",
    "headroom": "recent bursts need more headroom",
    "backlog": "requests are queueing",
    "wake": "requests wait and no replica runs",
    "idle": "no requests",
    "surplus": "fewer replicas have been enough for long enough",
    "no-gain": "more replicas did not help; the bottleneck is probably behind this service",
    "strain": "the services it calls are slow, so more replicas would not help",
    "schedule": "the schedule asks for more replicas",
    "minimum": "at the minimum",
    "maximum": "at the maximum",
    "hold": "load is within target",
}
"""Beginning of the reason, by cause. `_begin` refines some of them."""
STAYED: Final = 1.25
"""Ratio of two latencies up to which the text says that they stayed the same: ten seconds vary."""


def make_decision(
    seen: Observation, desired: int, needed: int, cause: str, limited_by: str | None, warm: int
) -> Decision:
    """Return the decision for `desired` replicas. `needed` is the number before limits."""
    capacity, sizing = seen.capacity, seen.sizing
    numbers = {
        "rate": seen.demand.level,
        "forecast": seen.demand.forecast,
        "season": seen.demand.season,
        "in_flight": seen.signal.in_flight,
        "service_time": capacity.service_time,
        "slowdown": capacity.slowdown,
        "workers_proven": capacity.proven,
        "workers_bound": capacity.bound,
        "startup": capacity.planned_startup,
        "warm": float(warm),
        "load": sizing.load,
        "headroom": sizing.headroom,
        "backlog": sizing.backlog,
        "beta": sizing.beta,
        "burn": sizing.burn,
        "wanted": float(needed),
    }
    candidates = {name: ceil(need.up - TOLERANCE) for name, need in seen.needs.items()}
    reason = f"{_begin(seen, cause)} ({_measurement(seen, cause)})"
    if cause == "hold" and not limited_by:
        reason += _surplus(seen)
    if limited_by:
        reason += f"; {needed} needed, {describe_limit(seen.settings, limited_by)}"
    return Decision(desired, cause, reason, numbers, candidates, limited_by, warm)


def _begin(seen: Observation, cause: str) -> str:
    demand, top = seen.demand, seen.top_objective
    if cause == "forecast" and demand.season >= demand.forecast:
        return "more load is expected at this time of day"
    if cause == "idle":
        return f"no requests for {seen.settings.idle:g} s"
    if cause == "no-gain" and seen.cap is not None and seen.cap.added:
        return _describe_gain(seen.cap)
    if cause != "hold":
        return REASONS[cause]
    if not seen.current:
        return "no requests, so no replica is needed"
    if top is not None and seen.needs[top].up > seen.current:
        return f"load is above target by less than {TOLERANCE:g} replicas"
    if top == "queue":
        return "requests wait in the queue, and the replicas for them are starting"
    return REASONS[cause]


def _describe_gain(cap: GainCap) -> str:
    before, after = cap.latency
    noun = "replica" if cap.added == 1 else "replicas"
    change = "stayed at" if after <= STAYED * before else f"went from {before:.2g} s to"
    return (
        f"added {cap.added} {noun}, answers {change} {after:.2g} s: replicas are not the bottleneck"
    )


def _measurement(seen: Observation, cause: str) -> str:
    """Return the measured load per replica and its target, for the objective that counts."""
    settings, signal, count = seen.settings, seen.signal, max(seen.current, 1)
    level = seen.demand.level
    match seen.top_objective if seen.current or cause == "schedule" else None:
        case "latency":
            workers = seen.sizing.workers
            each = workers / seen.needs["latency"].up if workers else seen.capacity.bound
            text = f"{seen.sizing.load / count:.1f} of {each:.1f} workers busy per replica"
            if level:
                text += f", {level:.1f} requests/s of {seen.capacity.present_time * 1000:.0f} ms"
        case "concurrency":
            in_flight = seen.needs["concurrency"].up * (settings.concurrency or 0.0) / count
            text = f"{in_flight:.1f} of {settings.concurrency:g} requests in flight per replica"
        case "rps":
            rate = seen.demand.forecast / count
            text = f"{rate:.1f} of {settings.rps:g} requests/s per replica"
        case "cpu":
            text = f"{seen.capacity.cpu / count:.0f} of {settings.cpu:g} % CPU per replica"
        case "queue":
            waited = seen.capacity.queue / seen.capacity.completions
            text = f"{waited:.3g} s in the queue, target {settings.queue:g} s"
        case "external":
            value = (signal.external or 0.0) / count
            text = f"{value:.4g} of {settings.external:g} from the query per replica"
        case "schedule":
            text = f"{signal.scheduled} replicas scheduled"
        case _:
            text = f"{level:.1f} requests/s"
    if seen.sizing.backlog >= 1.0 and signal.awaited >= 1.0:
        text += f", {signal.awaited:.0f} in flight"
    if signal.streams >= 1.0:
        text += f", {signal.streams:.0f} open connections"
    if signal.parked:
        text += f", {signal.parked} waiting for a first replica"
    return text


def _surplus(seen: Observation) -> str:
    """Return the text about replicas that are not needed now but stay; empty without any."""
    need = max((each.down for each in seen.needs.values()), default=0.0)
    enough = ceil(need + noise_margin(seen.sizing, seen.capacity) - TOLERANCE)
    enough = max(enough, seen.settings.min, 1)
    if enough >= seen.current:
        return ""
    return f"; {enough} would do, but not for long enough to remove replicas"
