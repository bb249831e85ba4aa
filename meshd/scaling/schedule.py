"""What the schedules of a service ask for at a moment. Pure."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from meshd.spec import cron
from meshd.spec.model import Schedule

MINUTE = timedelta(minutes=1)


def scheduled(schedules: Sequence[Schedule], now: float) -> int:
    """The largest `min` of those that hold at `now` (Unix time); 0 for none."""
    minute = int(now // 60)
    return max((each.min for each in schedules if _holds(each, minute)), default=0)


@lru_cache(maxsize=1024)
def _holds(schedule: Schedule, minute: int) -> bool:
    """Whether one of the minutes that began it lies at most `duration` ago.

    Minutes are counted in universal time and matched by the wall clock of the zone: what a
    change of the clock leaves out does not happen, and what it repeats goes on."""
    expression, zone = cron.parse(schedule.cron), ZoneInfo(schedule.timezone)
    last = datetime.fromtimestamp(60 * minute, UTC)
    for back in range(max(1, int(schedule.duration // 60))):
        if expression.matches((last - back * MINUTE).astimezone(zone)):
            return True
    return False
