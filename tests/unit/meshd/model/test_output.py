"""Lines of output: parsed with their times, and selected."""

import pytest

from meshd.model.output import (
    LINE_CHARACTERS,
    OutputCursor,
    OutputLine,
    OutputQuery,
    TimedLines,
    UnreadLines,
    parse_timed_line,
    select_lines,
)

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


FIRST, LATER = "2026-05-01T14:30:00.000000000Z ", "2026-05-01T14:30:00.500000000Z "
AT = parse_timed_line(FIRST).at


def parsed(*pieces: str) -> list[tuple[float, str]]:
    """Return the lines of pieces of output, with their times in seconds after `AT`."""
    lines = TimedLines()
    found = [line for piece in pieces for line in lines.feed(piece)]
    return [(round(at - AT, 6), text) for at, text in [*found, *lines.end()]]


@pytest.mark.parametrize(
    ("pieces", "lines"),
    [
        ([FIRST + "a\n", LATER + "b\r\n", LATER + "\n"], [(0, "a"), (0.5, "b"), (0.5, "")]),
        ([FIRST + "a\n" + LATER + "b"], [(0, "a"), (0.5, "b")]),  # a terminal has no frames
        ([FIRST + "a", "b\n" + LATER[:9], LATER[9:] + "c\n"], [(0, "ab"), (0.5, "c")]),
        ([FIRST + "begin, ", LATER + "middle, ", LATER + "end\n"], [(0, "begin, middle, end")]),
        ([FIRST + "a\n", "no time\n"], [(0, "a"), (-AT, "no time")]),
        ([], []),
    ],
)
def test_lines_of_the_pieces_that_docker_sends(
    pieces: list[str], lines: list[tuple[float, str]]
) -> None:
    assert parsed(*pieces) == lines


@pytest.mark.parametrize("size", [7, 1000, LINE_CHARACTERS, 16 * 1024, 100_000])
def test_a_long_line_is_split_wherever_the_pieces_end(size: int) -> None:
    text = "".join(chr(97 + i % 26) for i in range(3 * LINE_CHARACTERS + 5))
    output = f"{FIRST}{text}\n{LATER}after\n"
    pieces = [output[start : start + size] for start in range(0, len(output), size)]
    starts = range(0, len(text), LINE_CHARACTERS)
    split = [(0.0, text[start : start + LINE_CHARACTERS]) for start in starts]
    assert parsed(*pieces) == [*split, (0.5, "after")]


def test_output_that_is_read_again_continues_after_the_last_line() -> None:
    """From any line of it on, and again from wherever that stopped."""
    times = [0.0, 0.0, 1.0, 1.0, 1.0, 2.5, 2.0, 2.5, 3.0]
    output = [OutputLine(at, f"{number}") for number, at in enumerate(times)]
    for first in range(len(output)):
        for second in range(first, len(output)):
            cursor, read = OutputCursor(), list[str]()
            for end in (first, second, len(output)):
                unread = UnreadLines(cursor)
                for line in output[:end]:
                    if line.at >= cursor.at and unread.includes(line):
                        cursor = cursor.after(line)
                        read.append(line.text)
            # A line from before a time that was read is lost if the stream stopped in between.
            assert [text for text in read if text != "6"] == list("01234578")
            assert read.count("6") <= 1
