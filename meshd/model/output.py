"""Lines of output of replicas, and which of them are asked for. Pure.

`meshd.runtime` reads them, `meshd.store.output_archive` keeps those of ended replicas, and the API
sends them.
"""

from datetime import datetime
from typing import NamedTuple

import msgspec


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
