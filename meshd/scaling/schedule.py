"""Scaling schedules: the lowest number of replicas that `scale.schedule` asks for at a time. Pure.

Used by the autoscaler loop in `meshd.scaling`; expressions are parsed by
`meshd.spec.cron_expression`. One-off jobs have their own schedules, see `meshd.jobs.schedule`.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from meshd.spec.cron_expression import parse_cron
from meshd.spec.model import ScalingSchedule

MINUTE: Final = timedelta(minutes=1)
"""The resolution of a cron expression."""


def scheduled_minimum(schedules: Sequence[ScalingSchedule], now: float) -> int:
    """Return the largest `min` of the schedules in force at `now` (Unix time); 0 if none is."""
    minute = int(now // 60)
    return max((each.min for each in schedules if _is_in_force(each, minute)), default=0)


@lru_cache(maxsize=1024)
def _is_in_force(schedule: ScalingSchedule, minute: int) -> bool:
    """Whether the schedule began at most `duration` before a minute (Unix time / 60).

    Minutes are counted in universal time and matched by the wall clock of the schedule's zone. A
    start that a clock change skips does not happen; one that it repeats extends the schedule.
    """
    expression, zone = parse_cron(schedule.cron), ZoneInfo(schedule.timezone)
    last = datetime.fromtimestamp(60 * minute, UTC)
    for back in range(max(1, int(schedule.duration // 60))):
        if expression.matches((last - back * MINUTE).astimezone(zone)):
            return True
    return False
