"""Scaling schedules: how many replicas they ask for, and when."""

from datetime import datetime

import pytest

from meshd.scaling.schedule import scheduled_minimum
from meshd.spec.model import Scale


def lunch(zone: str) -> Scale:
    schedule = {"cron": "0 11 * * mon-fri", "duration": "3h", "min": 5, "timezone": zone}
    return Scale.model_validate({"min": 1, "max": 9, "schedule": schedule})


@pytest.mark.parametrize(
    ("zone", "utc", "minimum"),
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
def test_a_schedule_follows_the_wall_clock_of_its_zone(zone: str, utc: str, minimum: int) -> None:
    now = datetime.fromisoformat(utc + "+00:00").timestamp()
    assert scheduled_minimum(lunch(zone).schedule, now) == minimum


def test_the_largest_minimum_of_several_schedules_wins() -> None:
    both = ({"cron": "@hourly", "duration": "1h", "min": 2},
            {"cron": "@hourly", "duration": "30m", "min": 7})  # fmt: skip
    schedules = Scale.model_validate({"max": 9, "schedule": both}).schedule
    assert [scheduled_minimum(schedules, minute * 60.0) for minute in (0, 29, 30, 59)] == [
        7,
        7,
        2,
        2,
    ]


@pytest.mark.parametrize(
    ("utc", "minimum"),
    [
        # 02:30 does not exist in Berlin on 2026-03-29: the schedule begins an hour later.
        ("2026-03-29T01:29:00", 0),
        ("2026-03-29T01:30:00", 4),
        ("2026-03-29T02:29:00", 4),
        ("2026-03-29T02:30:00", 0),
        # 02:30 exists twice on 2026-10-25: it begins at the first, once.
        ("2026-10-25T00:30:00", 4),
        ("2026-10-25T01:29:00", 4),
        ("2026-10-25T01:30:00", 0),
    ],
)
def test_a_start_that_summer_time_skips_or_repeats(utc: str, minimum: int) -> None:
    schedule = {"cron": "30 2 * * *", "duration": "1h", "min": 4, "timezone": "Europe/Berlin"}
    scale = Scale.model_validate({"min": 1, "max": 9, "schedule": schedule})
    now = datetime.fromisoformat(utc + "+00:00").timestamp()
    assert scheduled_minimum(scale.schedule, now) == minimum
