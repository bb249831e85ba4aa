"""Progress bars as a terminal shows them."""

import io

from rich.console import Console

from meshd.cli.bars import BAR_COLUMNS, Bar, draw_bars


def lines(*bars: Bar, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    with console.capture() as capture:
        console.print(draw_bars(bars))
    return [line.rstrip() for line in capture.get().splitlines()]


def test_bars_are_aligned_and_full_at_the_end() -> None:
    first, second = lines(
        Bar("web", 1, 4, "probing 1/4 ready"), Bar("payments", 4, 4, "ready 4/4", complete=True)
    )
    assert first.startswith(" · web      ")
    assert first.endswith("probing 1/4 ready")
    assert second.startswith(" ✓ payments ")
    assert second.count("━") == BAR_COLUMNS
    assert first.count("━") == BAR_COLUMNS // 4
    assert first.index("probing") == second.index("ready")


def test_a_bar_of_unknown_length_and_one_beyond_its_end_are_drawn() -> None:
    unknown, beyond = lines(Bar("db", 0, 0, "pulling a:1"), Bar("db", 7, 5, "building b"))
    assert unknown.endswith("pulling a:1")
    assert beyond.count("━") == BAR_COLUMNS


def test_a_text_that_does_not_fit_is_cut() -> None:
    (line,) = lines(Bar("web", 1, 2, "x" * 100), width=60)
    assert len(line) <= 60
    assert line.endswith("…")
