"""The lines about images that are pulled or built."""

import pytest

from meshd.api.dto import ImageStatus
from meshd.cli.bars import Bar
from meshd.cli.image_progress import ImageLines, describe_image, image_bar

PULL = ImageStatus("postgres:16", "db", "pull", "2 of 14 layers", 1_500_000, 130_000_000, 1.0)


@pytest.mark.parametrize(
    ("image", "text"),
    [
        (ImageStatus("a:1", "web", "pull"), "web: pulling a:1"),
        (PULL, "db: pulling postgres:16 (2 of 14 layers, 1.5 of 130.0 MB)"),
        (
            ImageStatus("shop_web", "web", "build", "Step 1/2 : FROM a"),
            "web: building shop_web (Step 1/2 : FROM a)",
        ),
    ],
)
def test_one_line_describes_an_image(image: ImageStatus, text: str) -> None:
    assert describe_image(image) == text


@pytest.mark.parametrize(
    ("action", "detail", "size", "done", "total"),
    [
        ("pull", "2 of 14 layers", (15, 130), 15, 130),
        ("pull", "", (0, 0), 0, 0),
        ("build", "Step 2/5 : RUN cp 1/2 /x", (0, 0), 2, 5),
        ("build", "#7 [web 2/5] RUN cp 1/2 /x", (0, 0), 2, 5),
        ("build", "#1 [internal] load build definition", (0, 0), 0, 0),
        ("build", "", (0, 0), 0, 0),
    ],
)
def test_a_bar_shows_how_far_an_image_is(
    action: str, detail: str, size: tuple[int, int], done: int, total: int
) -> None:
    image = ImageStatus("a:1", "web", action, detail, *size)
    text = describe_image(image).removeprefix("web: ")
    assert image_bar(image) == Bar("web", done, total, text)


def test_a_line_is_repeated_after_a_while_if_it_changed() -> None:
    lines = ImageLines()
    other = ImageStatus("a:1", "web", "pull", since=1.0)
    assert lines.new_lines([PULL], 0.0) == [describe_image(PULL)]
    assert lines.new_lines([PULL, other], 1.0) == [describe_image(other)]
    later = ImageStatus("postgres:16", "db", "pull", "3 of 14 layers", since=1.0)
    assert lines.new_lines([later, other], 9.0) == []
    assert lines.new_lines([later, other], 11.0) == [describe_image(later)]
    again = ImageStatus("a:1", "web", "pull", since=12.0)
    assert lines.new_lines([again], 12.0) == [describe_image(again)]
