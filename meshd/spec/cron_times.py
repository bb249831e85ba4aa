"""The times of a day at which a cron expression is due, by the wall clock of a time zone. Pure.

Called by `meshd.jobs.schedule` and `meshd.scaling.schedule`; `cron_expression` parses.

Where the clock is put forward, a skipped time is due as long after midnight as it would have been
without the change. Where the clock is put back, a repeated time is due once. Schedules for every
hour follow elapsed time instead: they skip and repeat nothing.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

from meshd.spec.cron_expression import CronExpression


@lru_cache(maxsize=256)
def times_on(expression: CronExpression, zone: ZoneInfo, day: date) -> tuple[float, ...]:
    """Return all due times of a day of the wall clock, in order (Unix time)."""
    if not expression.matches_day(day):
        return ()
    found: set[float] = set()
    for hour in expression.hours:
        for minute in expression.minutes:
            wall = datetime(day.year, day.month, day.day, hour, minute)  # noqa: DTZ001 (a wall clock)
            found.update(_unix_times(wall, zone, expression.every_hour))
    return tuple(sorted(found))


def _unix_times(wall: datetime, zone: ZoneInfo, every_hour: bool) -> Iterator[float]:
    """Yield when a wall-clock time is due: once, or as the module says if the clock skips or
    repeats it."""
    first = wall.replace(tzinfo=zone).timestamp()
    exists = datetime.fromtimestamp(first, UTC).astimezone(zone).replace(tzinfo=None) == wall
    if exists or not every_hour:
        yield first
    if exists and every_hour:
        yield wall.replace(tzinfo=zone, fold=1).timestamp()
