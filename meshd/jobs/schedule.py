"""When a schedule is due, and whether it is run then. Pure.

Times are matched by the wall clock of the schedule's zone. Where the clock is put forward, a
time that is left out is due as late after midnight as it would have been without the change;
where it is put back, a time that comes twice is due once. Schedules for every hour go by what
passes instead: they leave out nothing and repeat.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Final, Literal
from zoneinfo import ZoneInfo

import msgspec

from meshd.spec import cron
from meshd.spec.model import JobSchedule

LATE: Final = 60.0
"""Seconds after which a time counts as missed: nobody looked when it came."""
FAR: Final = 8 * 366
"""Days to look ahead: from one 29th of February to the next, over a century's end."""
COUNTED: Final = 1000
_DAY: Final = timedelta(days=1)


class ScheduleDecision(msgspec.Struct, frozen=True):
    """What to do about a schedule that was due `at`; `missed` are earlier times that this one
    makes up for, `text` why it is not run."""

    act: Literal["start", "replace", "skip"]
    at: float
    missed: int = 0
    text: str = ""


def next_due(schedule: JobSchedule, after: float) -> float | None:
    """The first time after a moment (Unix time); None when there is none for years."""
    expression, zone = cron.parse(schedule.cron), ZoneInfo(schedule.timezone)
    day = datetime.fromtimestamp(after, zone).date() - _DAY
    for _ in range(FAR):
        later = [at for at in _times(expression, zone, day) if at > after]
        if later:
            return later[0]
        day += _DAY
    return None


def decide(schedule: JobSchedule, looked: float, runs: bool, now: float) -> ScheduleDecision | None:
    """What is due since `looked`: nothing, or one run, however many times went by. `runs` tells
    whether an earlier run still does."""
    due = list(_past(schedule, looked, now))
    if not due:
        return None
    newest, missed = due[0], len(due) - 1
    if now >= newest + LATE and not schedule.catch_up:
        return ScheduleDecision("skip", newest, missed, "was missed, and is not to be made up for")
    if runs and schedule.concurrency == "forbid":
        return ScheduleDecision("skip", newest, missed, "the run before has not ended yet")
    act: Literal["start", "replace"] = "start"
    if runs and schedule.concurrency == "replace":
        act = "replace"
    return ScheduleDecision(act, newest, missed)


def _past(schedule: JobSchedule, after: float, now: float) -> Iterator[float]:
    """The times in (after, now], the newest first; at most `COUNTED`."""
    expression, zone = cron.parse(schedule.cron), ZoneInfo(schedule.timezone)
    day = datetime.fromtimestamp(now, zone).date() + _DAY
    first = datetime.fromtimestamp(after, zone).date() - _DAY
    told = 0
    while day >= first:
        for at in reversed(_times(expression, zone, day)):
            if after < at <= now:
                yield at
                told += 1
                if told == COUNTED:
                    return
        day -= _DAY


@lru_cache(maxsize=256)
def _times(expression: cron.Cron, zone: ZoneInfo, day: date) -> tuple[float, ...]:
    """All times of a day of the wall clock, as Unix times in order."""
    if not expression.on_day(day):
        return ()
    every_hour = len(expression.hours) == 24
    found: set[float] = set()
    for hour in expression.hours:
        for minute in expression.minutes:
            wall = datetime(day.year, day.month, day.day, hour, minute)  # noqa: DTZ001 (a wall clock)
            found.update(_moments(wall, zone, every_hour))
    return tuple(sorted(found))


def _moments(wall: datetime, zone: ZoneInfo, every_hour: bool) -> Iterator[float]:
    """When the clock shows `wall`: once, or as the module says where it shows it never or twice."""
    first = wall.replace(tzinfo=zone).timestamp()
    shown = datetime.fromtimestamp(first, UTC).astimezone(zone).replace(tzinfo=None) == wall
    if shown or not every_hour:
        yield first
    if shown and every_hour:
        yield wall.replace(tzinfo=zone, fold=1).timestamp()
