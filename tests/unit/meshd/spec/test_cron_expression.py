"""Cron expressions: which minutes match, and which expressions are rejected."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from meshd.spec.cron_expression import parse_cron
from meshd.spec.cron_times import times_on
from meshd.spec.model import Scale


def _matches(text: str, minute: str) -> bool:
    moment = datetime.fromisoformat(minute).replace(tzinfo=UTC)
    return moment.timestamp() in times_on(parse_cron(text), ZoneInfo("UTC"), moment.date())


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
        ("5-5/20 * * * *", "2026-03-01T09:05", True),
        ("5-5/20 * * * *", "2026-03-01T09:45", False),
        ("0 0 1,15 * *", "2026-03-15T00:00", True),
        ("0 0 * feb *", "2026-02-15T00:00", True),
        ("0 0 * feb *", "2026-03-15T00:00", False),
        ("0 0 * * 7", "2026-03-01T00:00", True),
        ("0 0 * * 0", "2026-03-01T00:00", True),
        ("0 0 * * fri-mon", "2026-03-01T00:00", True),
        ("0 0 * * fri-mon", "2026-03-04T00:00", False),
        ("0 0 * * fri-mon/2", "2026-03-01T00:00", True),
        ("0 0 * * fri-mon/2", "2026-03-02T00:00", False),
        # If both days are restricted, one of the two is enough.
        ("0 0 13 * fri", "2026-03-13T00:00", True),
        ("0 0 13 * fri", "2026-03-06T00:00", True),
        ("0 0 13 * fri", "2026-04-13T00:00", True),
        ("0 0 13 * fri", "2026-04-14T00:00", False),
        # The last day, the last working day, the second Friday, the last Friday.
        ("0 0 L * *", "2026-02-28T00:00", True),
        ("0 0 L * *", "2026-03-28T00:00", False),
        ("0 0 LW * *", "2026-02-27T00:00", True),
        ("0 0 * * fri#2", "2026-03-13T00:00", True),
        ("0 0 * * fri#2", "2026-03-06T00:00", False),
        ("0 0 * * 5L", "2026-03-27T00:00", True),
        ("@hourly", "2026-04-14T07:00", True),
        ("@weekly", "2026-03-01T00:00", True),
    ],
)
def test_matching_minutes(text: str, minute: str, matches: bool) -> None:
    assert _matches(text, minute) is matches


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("0 11 * *", "'0 11 [*] [*]' is not a cron expression; expected five fields"),
        ("0 0 11 * * *", "expected five fields"),
        ("", "expected five fields"),
        ("60 * * * *", "'60' is not a valid minute; expected 0 to 59"),
        ("0,60 * * * *", "'60' is not a valid minute"),
        ("0 24 * * *", "'24' is not a valid hour; expected 0 to 23"),
        ("0 0 32 * *", "'32' is not a valid day of the month; expected 1 to 31"),
        ("0 0 * 13 *", "'13' is not a valid month; expected 1 to 12 or jan to dec"),
        ("0 0 * * someday", "'someday' is not a valid day of the week; expected 0 to 7 or sun to"),
        ("0 0 * * 5-1x", "'5-1x' is not a valid day of the week"),
        ("0 0 * * 8-2", "'8-2' is not a valid day of the week"),
        ("5-1 * * * *", "'5-1' is not a valid minute; .*the lower value first"),
        ("*/0 * * * *", "'[*]/0' is not a valid minute; .* a step such as [*]/5"),
        ("1,,2 * * * *", "'' is not a valid minute"),
    ],
)
def test_invalid_expressions_name_the_wrong_part(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_cron(text)


def test_a_day_that_no_month_has_matches_nothing() -> None:
    expression = parse_cron("0 0 31 2,4 *")
    days = (date(2026, 1, 1) + timedelta(days=day) for day in range(8 * 366))
    assert not any(map(expression.matches_day, days))


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"timezone": "Mars/Base"}, "time zone"),
        ({"cron": "often"}, "not a cron expression"),
        ({"min": 10}, "above max 9"),
        ({"duration": "8d"}, "less than or equal"),
    ],
)
def test_invalid_scaling_schedules(given: dict[str, object], problem: str) -> None:
    schedule = {"cron": "0 11 * * mon-fri", "duration": "3h", "min": 5, **given}
    with pytest.raises(ValueError, match=problem):
        Scale.model_validate({"min": 1, "max": 9, "schedule": schedule})
