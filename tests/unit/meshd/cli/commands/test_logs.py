"""`meshd logs`: colours and patterns."""

import click
import pytest

from meshd.api.dto import LogLine
from meshd.cli.commands.logs import _Printer, colour_of, parse_pattern


def test_a_replica_has_the_same_colour_everywhere() -> None:
    names = [f"web-{number}" for number in range(50)]
    assert [colour_of(name) for name in names] == [colour_of(name) for name in names]
    assert len({colour_of(name) for name in names}) > 4


@pytest.mark.parametrize(
    ("pattern", "shown"),
    [("error", ["an ERROR", "error 5"]), ("ERROR", ["an ERROR"]), (r"\d$", ["error 5"]), ("x*", 3)],
)
def test_only_matching_lines_are_shown(
    pattern: str, shown: list[str] | int, capsys: pytest.CaptureFixture[str]
) -> None:
    printer = _Printer(False, False, parse_pattern(pattern))
    for text in ("an ERROR", "fine", "error 5"):
        printer.print(LogLine("web-a", text))
    printed = click.unstyle(capsys.readouterr().out).splitlines()
    lines = [line.partition(" | ")[2] for line in printed]
    assert lines == shown if isinstance(shown, list) else len(lines) == shown


def test_a_pattern_that_is_not_valid() -> None:
    with pytest.raises(click.BadParameter, match="not a valid regular expression"):
        parse_pattern("(")
