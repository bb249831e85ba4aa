"""Lines of output: parsed with their times, and selected."""

import pytest

from meshd.model.output import OutputLine, OutputQuery, parse_timed_line, select_lines

LINES = [OutputLine(float(at), f"line {at}") for at in range(1, 6)]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (OutputQuery(2), [4, 5]),
        (OutputQuery(0), []),
        (OutputQuery(9), [1, 2, 3, 4, 5]),
        (OutputQuery(9, since=3.0), [3, 4, 5]),
        (OutputQuery(9, until=3.0), [1, 2, 3]),
        (OutputQuery(1, since=2.0, until=4.0), [4]),
    ],
)
def test_lines_are_selected_by_time_and_number(query: OutputQuery, found: list[int]) -> None:
    assert [int(line.at) for line in select_lines(LINES, query)] == found


@pytest.mark.parametrize(
    ("line", "at", "text"),
    [
        ("2023-11-14T22:13:20.123456789Z hello there", 1_700_000_000.123456, "hello there"),
        ("2023-11-14T22:13:20Z x", 1_700_000_000.0, "x"),
        ("2023-11-14T22:13:20.500000000Z ", 1_700_000_000.5, ""),
        ("2023-11-14T22:13:20.500000000Z", 1_700_000_000.5, ""),
        ("no time here", 0.0, "no time here"),
        ("", 0.0, ""),
    ],
)
def test_a_line_with_a_time(line: str, at: float, text: str) -> None:
    parsed = parse_timed_line(line)
    assert (parsed.at, parsed.text) == (pytest.approx(at), text)
