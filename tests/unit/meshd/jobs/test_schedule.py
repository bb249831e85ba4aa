"""When job schedules are due: across clock changes and while the daemon was not running."""

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from meshd.jobs.schedule import MOST_COUNTED, decide, next_due
from meshd.spec.model import JobSchedule, Mesh


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def shown(moment: float | None) -> str | None:
    return None if moment is None else f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M}"


def schedule(cron: str, zone: str = "UTC", **more: Any) -> JobSchedule:
    return JobSchedule(cron=cron, timezone=zone, **more)


@pytest.mark.parametrize(
    ("cron", "zone", "after", "due"),
    [
        ("0 3 * * *", "UTC", "2026-05-01 02:59", "2026-05-01 03:00"),
        ("0 3 * * *", "UTC", "2026-05-01 03:00", "2026-05-02 03:00"),
        ("*/15 * * * *", "UTC", "2026-05-01 23:50", "2026-05-02 00:00"),
        ("0 3 * * *", "Europe/Vienna", "2026-05-01 00:30", "2026-05-01 01:00"),
        ("0 0 29 2 *", "UTC", "2026-05-01 00:00", "2028-02-29 00:00"),
        ("0 0 29 2 *", "UTC", "2096-03-01 00:00", "2104-02-29 00:00"),
        ("0 0 31 2 *", "UTC", "2026-05-01 00:00", None),
        ("30 23 * * sun", "America/New_York", "2026-06-01 12:00", "2026-06-08 03:30"),
        # Put forward on 2026-03-29: 02:00 in Vienna is 03:00. A skipped time is due an hour later.
        ("30 2 * * *", "Europe/Vienna", "2026-03-28 12:00", "2026-03-29 01:30"),
        ("30 2 * * *", "Europe/Vienna", "2026-03-29 01:30", "2026-03-30 00:30"),
        ("30 * * * *", "Europe/Vienna", "2026-03-29 00:30", "2026-03-29 01:30"),
        # Put back on 2026-10-25: 03:00 in Vienna is 02:00. A repeated time is due once.
        ("30 2 * * *", "Europe/Vienna", "2026-10-24 12:00", "2026-10-25 00:30"),
        ("30 2 * * *", "Europe/Vienna", "2026-10-25 00:30", "2026-10-26 01:30"),
        ("30 * * * *", "Europe/Vienna", "2026-10-25 00:30", "2026-10-25 01:30"),
    ],
)
def test_the_next_due_time(cron: str, zone: str, after: str, due: str | None) -> None:
    assert shown(next_due(schedule(cron, zone), at(after))) == due


def test_every_minute_of_a_night_with_an_extra_hour_is_due_once() -> None:
    each, moment, count = schedule("* * * * *", "Europe/Vienna"), at("2026-10-24 23:00"), 0
    while (later := next_due(each, moment)) is not None and later <= at("2026-10-25 03:00"):
        assert later == moment + 60
        moment, count = later, count + 1
    assert count == 4 * 60


@pytest.mark.parametrize(
    ("fields", "checked", "running", "now", "expected"),
    [
        ({}, "2026-05-01 03:00", False, "2026-05-02 02:59", None),
        ({}, "2026-05-01 03:00", False, "2026-05-02 03:00", ("start", "2026-05-02 03:00", 0)),
        # Not running for four days: one run, and the number of missed times.
        ({}, "2026-05-01 03:00", False, "2026-05-05 12:00", ("start", "2026-05-05 03:00", 3)),
        ({"catch_up": False}, "2026-05-01 03:00", False, "2026-05-05 12:00",
         ("skip", "2026-05-05 03:00", 3)),
        ({"catch_up": False}, "2026-05-01 03:00", False, "2026-05-02 03:00",
         ("start", "2026-05-02 03:00", 0)),
        ({}, "2026-05-01 03:00", True, "2026-05-02 03:00", ("skip", "2026-05-02 03:00", 0)),
        ({"concurrency": "replace"}, "2026-05-01 03:00", True, "2026-05-02 03:00",
         ("replace", "2026-05-02 03:00", 0)),
        ({"concurrency": "allow"}, "2026-05-01 03:00", True, "2026-05-02 03:00",
         ("start", "2026-05-02 03:00", 0)),
    ],
)  # fmt: skip
def test_decisions(
    fields: dict[str, Any], checked: str, running: bool, now: str, expected: Any
) -> None:
    found = decide(schedule("0 3 * * *", **fields), at(checked), running, at(now))
    assert (found and (found.act, shown(found.at), found.missed)) == expected


def test_the_count_of_missed_times_is_bounded() -> None:
    found = decide(schedule("* * * * *"), at("2020-01-01 00:00"), False, at("2026-01-01 00:00"))
    assert found is not None
    assert (shown(found.at), found.missed) == ("2026-01-01 00:00", MOST_COUNTED - 1)


def test_schedules_in_the_spec() -> None:
    short = Mesh.model_validate({"schedule": "@daily"})
    assert short.is_job
    assert short.schedule[0].cron == "@daily"
    with_command = Mesh.model_validate(
        {"routes": ["/"], "schedule": {"cron": "0 3 * * *", "command": "backup --to '/a b'"}}
    )
    assert not with_command.is_job
    assert with_command.schedule[0].command == ("backup", "--to", "/a b")
    for wrong, why in (
        ({"schedule": "0 3 * *"}, "not a cron expression"),
        ({"schedule": "@daily", "routes": ["/"]}, "makes the service itself a job"),
        ({"schedule": {"cron": "@daily", "timezone": "Mars"}}, "Mars"),
        ({"schedule": ["@daily", "@hourly"]}, "same name"),
    ):
        with pytest.raises(ValidationError, match=why):
            Mesh.model_validate(wrong)
