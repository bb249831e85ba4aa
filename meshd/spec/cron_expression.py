"""Cron expressions of five fields: parse one, then ask which days and minutes it matches. Pure.

Used by `meshd.spec.cron_times`, `meshd.jobs.schedule` and the checks in
`meshd.spec.reader.shorthand`. The `cronsim` library parses the fields and matches days; this
module adds what it lacks: the names @hourly, @daily, @midnight, @weekly, @monthly, @yearly and
@annually, weekday ranges that wrap around (`fri-mon`), and errors that name the wrong part.

A minute matches if its month, hour and minute match, and its day does. If both the day of the
month and the weekday are restricted, one of the two is enough, as in cron(5).
"""

import re
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import lru_cache
from typing import Final

from cronsim import CronSim, CronSimError

NICKNAMES: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * sun",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
DAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
# Indexes of these fields in the expression.
_MONTH: Final = 3
_WEEKDAY: Final = 4
_FIELDS: Final = (
    ("minute", "0 to 59"),
    ("hour", "0 to 23"),
    ("day of the month", "1 to 31, L (the last day), LW (the last working day)"),
    ("month", "1 to 12 or jan to dec"),
    ("day of the week", "0 to 7 or sun to sat, fri#2 (the second Friday), 5L (the last Friday)"),
)
"""Each field's name, and the values it takes."""
_RANGE: Final = re.compile(r"([0-9]+|[a-z]{3})-([0-9]+|[a-z]{3})(?:/([0-9]+))?")
_REFERENCE: Final = datetime(2000, 1, 1)  # noqa: DTZ001
"""CronSim requires a start time. Only its parsed fields are used here, so any time will do."""


@dataclass(frozen=True, slots=True)
class CronExpression:
    """A parsed cron expression. Two of the same text are equal.

    - `text`: the five fields, with nicknames and wrapping ranges expanded
    - `minutes`, `hours`: the minutes of an hour (0 to 59) and hours of a day (0 to 23) that match
    """

    text: str
    minutes: frozenset[int] = field(compare=False)
    hours: frozenset[int] = field(compare=False)
    _months: frozenset[int] = field(compare=False)
    _days: CronSim = field(compare=False)

    @property
    def every_hour(self) -> bool:
        """Whether all hours match."""
        return len(self.hours) == 24

    def matches_day(self, day: date) -> bool:
        """Whether the expression matches at least one minute of a day."""
        return day.month in self._months and self._days.match_day(day)


@lru_cache(maxsize=1024)
def parse_cron(text: str) -> CronExpression:
    """Parse an expression. Raises ValueError, with the wrong part and the values it can have."""
    words = NICKNAMES.get(text.strip().lower(), text).lower().split()
    if len(words) != len(_FIELDS):
        raise ValueError(
            f"{text!r} is not a cron expression; expected five fields such as 0 11 * * mon-fri "
            "(minute, hour, day, month, weekday)"
        )
    for index, word in enumerate(words):
        words[index] = ",".join(_check(part, index) for part in word.split(","))
    # CronSim refuses a day that none of the months has, such as 31 February. Here that expression
    # is valid and matches nothing. So it does not see days and months together.
    months = CronSim(_alone(words[_MONTH], _MONTH), _REFERENCE).months
    rest = CronSim(" ".join([*words[:_MONTH], "*", words[_WEEKDAY]]), _REFERENCE)
    return CronExpression(
        " ".join(words), frozenset(rest.minutes), frozenset(rest.hours), frozenset(months), rest
    )


def _check(part: str, index: int) -> str:
    """Check a part of the field at `index`; return it in a form that CronSim reads as cron does.

    Raises ValueError.
    """
    plain = _rewrite_range(part, index)
    try:
        CronSim(_alone(plain, index), _REFERENCE)
    except CronSimError as error:
        name, values = _FIELDS[index]
        raise ValueError(
            f"{part!r} is not a valid {name}; expected {values}, a range such as 1-5 (the lower "
            "value first) or a step such as */5"
        ) from error
    return plain


def _rewrite_range(part: str, index: int) -> str:
    """Rewrite the two kinds of ranges that CronSim does not read as cron does.

    It refuses weekday ranges that wrap around (`fri-mon`), and reads 5-5/10 as 5/10, which is
    5, 15, 25 and so on. Anything else is returned unchanged.
    """
    found = _RANGE.fullmatch(part)
    if found is None or not int(found[3] or 1):
        return part
    first, last = _number(found[1], index), _number(found[2], index)
    if first is None or last is None:
        return part
    if first == last:
        return str(first)
    if index == _WEEKDAY and last < first <= 7:
        days = range(first, last + 7 + 1, int(found[3] or 1))
        return ",".join(str(day % 7) for day in days)
    return part


def _number(text: str, index: int) -> int | None:
    """The value of a number or a name in the field at `index`; None if it is neither."""
    if index == _WEEKDAY and text in DAYS:
        return DAYS.index(text)
    if index == _MONTH and text in MONTHS:
        return MONTHS.index(text) + 1
    return int(text) if text.isdecimal() else None


def _alone(word: str, index: int) -> str:
    """An expression with `word` as its only restricted field."""
    return " ".join(word if each == index else "*" for each in range(len(_FIELDS)))
