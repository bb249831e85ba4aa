"""What may be done with a number: bounds and steps of one service, and room in a cluster."""

from collections.abc import Mapping

from autoscaler.settings import ScalingSettings


def bound(settings: ScalingSettings, current: int, wanted: int) -> tuple[int, str | None]:
    """`wanted` within the service's limits and one step of `current`, and the limit that
    changed it (`min`, `max`, `step`) or None. Limits win over steps."""
    number, limit = wanted, None
    up = max(current + settings.step_up_least, int(current * settings.step_up))
    down = current - max(1, int(current * settings.step_down))
    if number > up:
        number, limit = up, "step"
    elif number < down:
        number, limit = down, "step"
    if number < settings.min:
        return settings.min, "min"
    if number > settings.max:
        return settings.max, "max"
    return number, limit


def fit(
    wants: Mapping[str, int], room: int, priority: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Shares `room` replicas out between services that want `wants`.

    A higher priority is served first (0 where none is given). Within one priority every service
    gets its first replica before any gets a second, and so on, so that what is short is short
    for the largest wants. The names decide ties, so the same input gives the same answer.
    """
    ranks = priority or {}
    given = dict.fromkeys(wants, 0)
    for rank in sorted({ranks.get(name, 0) for name in wants}, reverse=True):
        names = sorted(name for name in wants if ranks.get(name, 0) == rank)
        while room > 0:
            short = [name for name in names if given[name] < wants[name]]
            if not short:
                break
            share = max(1, room // len(short))
            for name in short:
                more = min(share, wants[name] - given[name], room)
                given[name] += more
                room -= more
    return given
