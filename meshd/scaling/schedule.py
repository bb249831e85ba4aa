"""Scaling schedules: the lowest number of replicas that `scale.schedule` asks for at a time. Pure.

Used by the autoscaler loop in `meshd.scaling`; `meshd.spec.cron_times` has the times at which a
schedule begins. One-off jobs have their own schedules, see `meshd.jobs.schedule`.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from meshd.spec.cron_expression import parse_cron
from meshd.spec.cron_times import times_on
from meshd.spec.model import ScalingSchedule

MINUTE: Final = 60.0
"""Seconds; the resolution of a cron expression."""
_DAY: Final = timedelta(days=1)


def scheduled_minimum(schedules: Sequence[ScalingSchedule], now: float) -> int:
    """Return the largest `min` of the schedules in force at `now` (Unix time); 0 if none is."""
    minute = int(now // MINUTE)
    return max((each.min for each in schedules if _is_in_force(each, minute)), default=0)


@lru_cache(maxsize=1024)
def _is_in_force(schedule: ScalingSchedule, minute: int) -> bool:
    """Whether the schedule began at most `duration` before a minute (Unix time / 60)."""
    expression, zone = parse_cron(schedule.cron), ZoneInfo(schedule.timezone)
    now = minute * MINUTE
    after = now - max(MINUTE, schedule.duration)
    day = datetime.fromtimestamp(now, zone).date() + _DAY
    first = datetime.fromtimestamp(after, zone).date() - _DAY
    while day >= first:
        if any(after < at <= now for at in times_on(expression, zone, day)):
            return True
        day -= _DAY
    return False
