"""Bounds and step sizes of one service. Pure.

The policy calls `apply_limits` last. Limits that need a memory, and the capacity of the nodes, are
in `meshd.scaling.limits` and `meshd.capacity`.
"""

from autoscaler.settings import ScalingSettings


def apply_limits(settings: ScalingSettings, current: int, needed: int) -> tuple[int, str | None]:
    """Return `needed` within the service's bounds and within one step of `current`, and the limit
    that changed it (`min`, `max`, `step`) or None. Bounds take precedence over steps."""
    number, limit = needed, None
    highest = max(current + settings.step_up_least, int(current * settings.step_up))
    lowest = current - max(1, int(current * settings.step_down))
    if number > highest:
        number, limit = highest, "step"
    elif number < lowest:
        number, limit = lowest, "step"
    if number < settings.min:
        return settings.min, "min"
    if number > settings.max:
        return settings.max, "max"
    return number, limit


def describe_limit(settings: ScalingSettings, limit: str) -> str:
    """Return the text of a limit by its code, as it follows the number that was needed."""
    match limit:
        case "min":
            return f"limited by the minimum of {settings.min}"
        case "max":
            return f"limited by the maximum of {settings.max}"
        case "step":
            return (
                f"limited to one step (at most {settings.step_up:g} times as many, or "
                f"{settings.step_down:.0%} fewer)"
            )
        case "unmeasured":
            return (
                "but the latency objective orders at most twice the ready replicas (at least 2) "
                "until enough answers show how many requests a replica can serve"
            )
        case "rollout":
            return "but no replica is removed during a rollout or an ejection"
        case "signal":
            return "but no replica is removed while the external signal is unknown"
    raise ValueError(f"unknown limit {limit!r}")
