"""Lines of output of replicas, and which of them are asked for. Pure.

`meshd.runtime` reads them, `meshd.store.output_archive` keeps those of ended replicas, and the API
sends them.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Final, NamedTuple

import msgspec

ALL_LINES: Final = 2**31 - 1
"""A `tail` of a query for every line that is kept."""
CATCH_UP_LINES: Final = 10_000
"""Lines of a replica that are read at most to continue a stream that was cut."""
LINE_CHARACTERS: Final = 8 * 1024
"""Length at which a line is split, so that an endless one takes little memory."""
_LONGEST_STAMP: Final = 64
"""Characters that a time takes at most."""


class OutputLine(NamedTuple):
    """One line with the time when it was written (Unix time; 0: unknown)."""

    at: float
    text: str


class ReplicaLine(NamedTuple):
    """One line of output of a replica. `at` as in `OutputLine`."""

    replica: str
    at: float
    text: str


class OutputQuery(msgspec.Struct, frozen=True):
    """Which lines to return.

    - `tail`: the last lines of each replica.
    - `since`, `until`: Unix times; 0: no limit.
    - `replica`: only this one; empty: all.
    - `previous`: those of replicas that have ended, instead of the present ones.
    """

    tail: int = 100
    since: float = 0.0
    until: float = 0.0
    replica: str = ""
    previous: bool = False

    def includes(self, line: OutputLine) -> bool:
        """Whether a line is in the time that is asked for."""
        return line.at >= self.since and not 0.0 < self.until < line.at


class OutputCursor(msgspec.Struct, frozen=True):
    """How far the output of a replica was read: `count` lines of the time `at`, and all before."""

    at: float = 0.0
    count: int = 0

    def after(self, line: OutputLine) -> "OutputCursor":
        """Return the cursor once `line` was read too. A time that the clock went back from counts
        as unchanged."""
        if line.at > self.at:
            return OutputCursor(line.at, 1)
        return OutputCursor(self.at, self.count + (line.at == self.at))


class UnreadLines:
    """Leaves out the lines before a cursor from output that is read again, from `cursor.at` or
    earlier on."""

    def __init__(self, cursor: OutputCursor) -> None:
        self._cursor = cursor
        self._repeated = 0

    def includes(self, line: OutputLine) -> bool:
        """Whether the next line of the output is new. Call it once for each line, in order."""
        if not self._cursor.count or line.at > self._cursor.at:
            self._cursor = OutputCursor()
            return True
        self._repeated += line.at == self._cursor.at
        return self._repeated > self._cursor.count


class TimedLines:
    """Makes lines of the pieces in which Docker sends output with times.

    Docker writes a time before each message, and a line of more than 16 KiB is several messages:
    the times inside of it are removed.
    """

    def __init__(self) -> None:
        self._rest = ""

    def feed(self, piece: str) -> Iterator[OutputLine]:
        """Yield the lines that end in `piece`, and the begin of one that is too long."""
        if self._rest and (message := parse_timed_line(piece)).at:
            piece = message.text
        *whole, self._rest = (self._rest + piece).split("\n")
        for text in whole:
            yield from _split(text.rstrip("\r"))
        if len(self._rest) > _LONGEST_STAMP + LINE_CHARACTERS:
            stamp = self._rest[: -len(parse_timed_line(self._rest).text)]
            *pieces, last = _split(self._rest)
            yield from pieces
            self._rest = stamp + last.text

    def end(self) -> Iterator[OutputLine]:
        """Yield the unfinished last line."""
        if self._rest:
            yield from _split(self._rest)
            self._rest = ""


def _split(text: str) -> list[OutputLine]:
    """Return a line with its time, in pieces if it is long."""
    at, line = parse_timed_line(text)
    starts = range(0, len(line) or 1, LINE_CHARACTERS)
    return [OutputLine(at, line[start : start + LINE_CHARACTERS]) for start in starts]


def select_lines(lines: list[OutputLine], query: OutputQuery) -> list[OutputLine]:
    """Return the lines of one replica that are asked for."""
    found = [line for line in lines if query.includes(line)]
    return found[-query.tail :] if query.tail else []


def parse_timed_line(line: str) -> OutputLine:
    """Split a line that begins with a time as Docker writes it: RFC 3339 with nanoseconds."""
    stamp, space, text = line.partition(" ")
    try:
        if not space and not stamp.endswith("Z"):
            raise ValueError(line)
        # Nanoseconds to microseconds, which is what datetime reads.
        head, dot, digits = stamp.removesuffix("Z").partition(".")
        return OutputLine(
            datetime.fromisoformat(f"{head}{dot}{digits[:6]}+00:00").timestamp(), text
        )
    except ValueError:
        return OutputLine(0.0, line)
