"""When a job schedule is due, and whether to start the run then. Pure.

Called by `meshd.jobs.cron_scheduler`; expressions are parsed by `meshd.spec.cron_expression`.
Scaling schedules are evaluated in `meshd.scaling.schedule`.

Times are matched by the wall clock of the schedule's zone. Where the clock is put forward, a
skipped time is due as long after midnight as it would have been without the change. Where the
clock is put back, a repeated time is due once. Schedules for every hour follow elapsed time
instead: they skip and repeat nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Final, Literal
from zoneinfo import ZoneInfo

from meshd.spec.cron_expression import CronExpression, parse_cron
from meshd.spec.model import JobSchedule

MISSED_AFTER: Final = 60.0
"""Seconds after which a due time counts as missed: a cron expression has a resolution of one
minute, so the daemon was not running when the time came."""
LOOK_AHEAD: Final = 8 * 366
"""Days to search for the next time: the longest gap between two 29ths of February, which spans the
turn of a century without a leap year."""
MOST_COUNTED: Final = 1000
"""Most missed times to count. A schedule for every minute reaches it in 17 hours."""
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class ScheduleDecision:
    """What to do about a schedule that is due.

    - `act`: start a run, end the previous run and start one, or skip this time
    - `at`: the time it was due (Unix time)
    - `missed`: earlier due times that were missed and are not started separately
    - `text`: the reason it is skipped; empty otherwise
    """

    act: Literal["start", "replace", "skip"]
    at: float
    missed: int = 0
    text: str = ""


def next_due(schedule: JobSchedule, after: float) -> float | None:
    """Return the first due time after `after` (both Unix time); None if none within 8 years."""
    expression, zone = parse_cron(schedule.cron), ZoneInfo(schedule.timezone)
    day = datetime.fromtimestamp(after, zone).date() - _DAY
    for _ in range(LOOK_AHEAD):
        later = [at for at in _times(expression, zone, day) if at > after]
        if later:
            return later[0]
        day += _DAY
    return None


def decide(
    schedule: JobSchedule, checked: float, running: bool, now: float
) -> ScheduleDecision | None:
    """Decide what is due since the last check: nothing (None), or one run for all missed times.

    `checked` is the time of the last check and `now` the time of this one (Unix time); `running`
    says whether an earlier run of the schedule still runs.
    """
    due = list(_past(schedule, checked, now))
    if not due:
        return None
    newest, missed = due[0], len(due) - 1
    if now >= newest + MISSED_AFTER and not schedule.catch_up:
        return ScheduleDecision("skip", newest, missed, "the time was missed and catch_up is false")
    if running and schedule.concurrency == "forbid":
        return ScheduleDecision("skip", newest, missed, "the previous run has not ended")
    act: Literal["start", "replace"] = "start"
    if running and schedule.concurrency == "replace":
        act = "replace"
    return ScheduleDecision(act, newest, missed)


def _past(schedule: JobSchedule, after: float, now: float) -> Iterator[float]:
    """Yield the due times in (after, now], newest first; at most `MOST_COUNTED`."""
    expression, zone = parse_cron(schedule.cron), ZoneInfo(schedule.timezone)
    day = datetime.fromtimestamp(now, zone).date() + _DAY
    first = datetime.fromtimestamp(after, zone).date() - _DAY
    count = 0
    while day >= first:
        for at in reversed(_times(expression, zone, day)):
            if after < at <= now:
                yield at
                count += 1
                if count == MOST_COUNTED:
                    return
        day -= _DAY


@lru_cache(maxsize=256)
def _times(expression: CronExpression, zone: ZoneInfo, day: date) -> tuple[float, ...]:
    """Return all due times of a day of the wall clock, in order (Unix time)."""
    if not expression.matches_day(day):
        return ()
    every_hour = len(expression.hours) == 24
    found: set[float] = set()
    for hour in expression.hours:
        for minute in expression.minutes:
            wall = datetime(day.year, day.month, day.day, hour, minute)  # noqa: DTZ001 (a wall clock)
            found.update(_unix_times(wall, zone, every_hour))
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
