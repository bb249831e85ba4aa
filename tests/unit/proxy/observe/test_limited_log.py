"""At most one line a second."""

from proxy.observe.limited_log import LimitedLog


def test_lines_within_a_second_are_left_out_and_counted() -> None:
    lines: list[str] = []
    log = LimitedLog(lines.append)
    log.add("one", 10.0)
    log.add("two", 10.1)
    log.add("three", 10.9)
    log.add("four", 11.0)
    log.add("five", 12.5)
    assert lines == ["one", "four (before it, 2 more lines were left out)", "five"]
