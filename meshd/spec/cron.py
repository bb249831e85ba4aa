"""Five-field cron expressions: whether a minute matches. Pure.

The language of cron(5): lists, ranges, steps, names of months and days, and the words @hourly,
@daily, @weekly, @monthly and @yearly. As there, a minute matches when month, hour and minute do,
and the day of the month or that of the week where both are given.
"""

from collections.abc import Sequence
from datetime import date, datetime
from functools import lru_cache
from typing import Final, NamedTuple

MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
DAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
WORDS: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * sun",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_FIELDS: Final[tuple[tuple[str, int, int, Sequence[str]], ...]] = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, MONTHS),
    ("day of the week", 0, 7, DAYS),
)


class Cron(NamedTuple):
    """What each field allows; Sunday is 0. `any_day` and `any_weekday` tell `*`."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    any_day: bool
    any_weekday: bool

    def matches(self, minute: datetime) -> bool:
        """Whether the minute is one of those meant, by its own wall clock."""
        if minute.minute not in self.minutes or minute.hour not in self.hours:
            return False
        return self.on_day(minute)

    def on_day(self, date: date) -> bool:
        """Whether any minute of the day is."""
        if date.month not in self.months:
            return False
        day = date.day in self.days
        weekday = date.isoweekday() % 7 in self.weekdays
        if self.any_day or self.any_weekday:
            return day and weekday
        return day or weekday


@lru_cache(maxsize=1024)
def parse(text: str) -> Cron:
    """The expression. Raises ValueError, naming the field and what it may be."""
    words = WORDS.get(text.strip().lower(), text).split()
    if len(words) != len(_FIELDS):
        raise ValueError(
            f"{text!r} is no cron expression; expected five fields like 0 11 * * mon-fri "
            "(minute, hour, day, month, weekday)"
        )
    found = [_field(word.lower(), *spec) for word, spec in zip(words, _FIELDS, strict=True)]
    minutes, hours, days, months, weekdays = found
    sundays = frozenset(day % 7 for day in weekdays)
    any_day, any_weekday = words[2].startswith("*"), words[4].startswith("*")
    return Cron(minutes, hours, days, months, sundays, any_day, any_weekday)


def _field(word: str, name: str, low: int, high: int, names: Sequence[str]) -> frozenset[int]:
    allowed: set[int] = set()
    for part in word.split(","):
        span, slash, step = part.partition("/")
        if slash and (not step.isdecimal() or not int(step)):
            raise ValueError(f"{part!r} is no {name}; expected a step like */5")
        if span == "*":
            first, last = low, high
        else:
            start, dash, end = span.partition("-")
            first = _value(start, name, low, high, names)
            last = _value(end, name, low, high, names) if dash else high if slash else first
        if names is DAYS and last < first:
            last += 7  # fri-mon
        if first > last:
            raise ValueError(f"{span!r} is no {name}; expected the lower one first")
        allowed.update(range(first, last + 1, int(step) if slash else 1))
    return frozenset(allowed)


def _value(text: str, name: str, low: int, high: int, names: Sequence[str]) -> int:
    if text in names:
        return names.index(text) + (1 if names is MONTHS else 0)
    if not text.isdecimal() or not low <= int(text) <= high:
        extra = f" or {names[0]} to {names[-1]}" if names else ""
        raise ValueError(f"{text!r} is no {name}; expected {low} to {high}{extra}")
    return int(text)
