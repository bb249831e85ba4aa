"""When a job schedule is due, and whether to start the run then. Pure.

Called by `meshd.jobs.cron_scheduler` and `schedule_table`; `meshd.spec.cron_times` has the due
times of a day, across changes to and from summer time. Scaling schedules are evaluated in
`meshd.scaling.schedule`.

The host's own clock may be set back, by hand or by NTP. As in Vixie cron, a schedule for certain
hours does not repeat what it has done if the clock was set back by less than three hours. After
more, and for a schedule for every hour, the new time counts at once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal
from zoneinfo import ZoneInfo

from meshd.spec.cron_expression import parse_cron
from meshd.spec.cron_times import times_on
from meshd.spec.model import JobSchedule

MISSED_AFTER: Final = 60.0
"""Seconds after which a due time counts as missed: a cron expression has a resolution of one
minute, so the daemon was not running when the time came."""
LOOK_AHEAD: Final = 8 * 366
"""Days to search for the next time: the longest gap between two 29ths of February, which spans the
turn of a century without a leap year."""
MOST_COUNTED: Final = 1000
"""Most missed times to count. A schedule for every minute reaches it in 17 hours."""
SMALL_STEP: Final = 60.0
"""Seconds that the clock may be set back without any effect: a cron expression has a resolution of
one minute."""
LARGE_STEP: Final = 3 * 3600.0
"""Seconds; a clock that is set back by more was wrong before (the limit of Vixie cron)."""
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
        later = [at for at in times_on(expression, zone, day) if at > after]
        if later:
            return later[0]
        day += _DAY
    return None


def follows_set_back(schedule: JobSchedule, checked: float, now: float) -> bool:
    """Whether the schedule counts from `now`, because the clock was set back since `checked`.
    Otherwise it waits until the clock is at `checked` again."""
    if checked - now <= SMALL_STEP:
        return False
    return checked - now > LARGE_STEP or parse_cron(schedule.cron).every_hour


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
        for at in reversed(times_on(expression, zone, day)):
            if after < at <= now:
                yield at
                count += 1
                if count == MOST_COUNTED:
                    return
        day -= _DAY
