"""Log lines that were written while the daemon did not answer."""

import pytest

from meshd.api.dto import LogLine
from meshd.cli.follow import missed_lines


@pytest.mark.parametrize(
    ("past", "seen", "new"),
    [
        ("a b c", "a b", "c"),
        ("a b c", "c", ""),
        ("a b c", "", "a b c"),
        ("c d", "a b", "c d"),  # more was written than is kept: return what is left
        ("tick tick tick x", "tick tick", "x"),
        ("b c d e", "a b c", "d e"),
        ("a lost b c", "a b", "c"),  # a line that the stream did not contain
        ("", "a", ""),
    ],
)
def test_missed_lines_follow_the_last_seen_ones(past: str, seen: str, new: str) -> None:
    lines = [LogLine("web-1", word) for word in past.split()]
    other = [LogLine("web-2", "x")]
    got = missed_lines([*lines, *other], {"web-1": seen.split(), "web-2": ["x"]})
    assert [line.line for line in got] == new.split()
