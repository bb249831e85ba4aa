"""Cron expressions: minutes that match, and what is refused."""

from datetime import datetime

import pytest

from meshd.scaling.schedule import scheduled
from meshd.spec.cron import parse
from meshd.spec.model import Scale


@pytest.mark.parametrize(
    ("text", "minute", "matches"),
    [
        ("* * * * *", "2026-03-04T05:06", True),
        ("0 11 * * mon-fri", "2026-03-02T11:00", True),
        ("0 11 * * mon-fri", "2026-03-02T11:01", False),
        ("0 11 * * mon-fri", "2026-03-01T11:00", False),
        ("*/15 8-10 * * *", "2026-03-01T09:45", True),
        ("*/15 8-10 * * *", "2026-03-01T09:50", False),
        ("5/20 * * * *", "2026-03-01T09:45", True),
        ("0 0 1,15 * *", "2026-03-15T00:00", True),
        ("0 0 * feb *", "2026-02-15T00:00", True),
        ("0 0 * feb *", "2026-03-15T00:00", False),
        ("0 0 * * 7", "2026-03-01T00:00", True),
        ("0 0 * * 0", "2026-03-01T00:00", True),
        ("0 0 * * fri-mon", "2026-03-01T00:00", True),
        ("0 0 * * fri-mon", "2026-03-04T00:00", False),
        # The day of the month or that of the week, where both are given.
        ("0 0 13 * fri", "2026-03-13T00:00", True),
        ("0 0 13 * fri", "2026-03-06T00:00", True),
        ("0 0 13 * fri", "2026-04-13T00:00", True),
        ("0 0 13 * fri", "2026-04-14T00:00", False),
        ("@hourly", "2026-04-14T07:00", True),
        ("@weekly", "2026-03-01T00:00", True),
    ],
)
def test_minutes(text: str, minute: str, matches: bool) -> None:
    assert parse(text).matches(datetime.fromisoformat(minute)) is matches


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("0 11 * *", "expected five fields"),
        ("60 * * * *", "'60' is no minute; expected 0 to 59"),
        ("0 24 * * *", "'24' is no hour"),
        ("0 0 * * someday", "expected 0 to 7 or sun to sat"),
        ("0 0 * * 5-1x", "is no day of the week"),
        ("5-1 * * * *", "expected the lower one first"),
        ("*/0 * * * *", "expected a step"),
        ("", "expected five fields"),
    ],
)
def test_what_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse(text)


def lunch(**more: object) -> Scale:
    schedule = {"cron": "0 11 * * mon-fri", "duration": "3h", "min": 5, **more}
    return Scale.model_validate({"min": 1, "max": 9, "schedule": schedule})


@pytest.mark.parametrize(
    ("zone", "utc", "wanted"),
    [
        ("UTC", "2026-03-02T10:59:59", 0),
        ("UTC", "2026-03-02T11:00:00", 5),
        ("UTC", "2026-03-02T13:59:59", 5),
        ("UTC", "2026-03-02T14:00:00", 0),
        ("UTC", "2026-03-01T12:00:00", 0),
        ("Europe/Berlin", "2026-03-02T10:00:00", 5),
        ("Europe/Berlin", "2026-03-02T09:59:00", 0),
        # Summer time: an hour earlier by UTC.
        ("Europe/Berlin", "2026-07-06T09:00:00", 5),
        ("Europe/Berlin", "2026-07-06T12:00:00", 0),
    ],
)
def test_a_schedule_holds_by_the_wall_clock_of_its_zone(zone: str, utc: str, wanted: int) -> None:
    now = datetime.fromisoformat(utc + "+00:00").timestamp()
    assert scheduled(lunch(timezone=zone).schedule, now) == wanted


def test_the_largest_of_several_counts() -> None:
    both = ({"cron": "@hourly", "duration": "1h", "min": 2},
            {"cron": "@hourly", "duration": "30m", "min": 7})  # fmt: skip
    schedules = Scale.model_validate({"max": 9, "schedule": both}).schedule
    assert [scheduled(schedules, minute * 60.0) for minute in (0, 29, 30, 59)] == [7, 7, 2, 2]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"timezone": "Mars/Base"}, "no time zone"),
        ({"cron": "often"}, "no cron expression"),
        ({"min": 10}, "above max 9"),
        ({"duration": "8d"}, "less than or equal"),
    ],
)
def test_a_wrong_schedule_is_refused(given: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        lunch(**given)
