"""The output of ended replicas: kept in order, and bounded."""

from pathlib import Path

from meshd.model.output import OutputLine
from meshd.store import output_archive
from meshd.store.output_archive import FILE_BYTES, LINES_KEPT, REPLICAS_KEPT, OutputArchive


def lines(count: int, width: int = 1) -> list[OutputLine]:
    return [OutputLine(float(n), f"{n}".ljust(width, "x")) for n in range(count)]


def test_output_is_read_as_it_was_saved(tmp_path: Path) -> None:
    archive = OutputArchive(tmp_path / "output")
    assert archive.read("shop", "web") == []
    odd = [OutputLine(1.5, "tabs\tand \x1b[1m colours ä")]
    archive.save("shop", "web", "shop-web-b", 200.0, odd)
    archive.save("shop", "web", "shop-web-a", 100.0, lines(2))
    archive.save("shop", "other", "shop-other-a", 100.0, lines(3))
    assert archive.read("shop", "web") == [("shop-web-a", lines(2)), ("shop-web-b", odd)]
    assert (tmp_path / "output").stat().st_mode & 0o777 == 0o700


def test_output_that_is_saved_again_takes_the_place_of_the_earlier(tmp_path: Path) -> None:
    archive = OutputArchive(tmp_path)
    archive.save("shop", "web", "a", 1.0, lines(2))
    archive.save("shop", "web", "b", 2.0, lines(1))
    archive.save("shop", "web", "a", 3.0, lines(3))
    assert archive.read("shop", "web") == [("b", lines(1)), ("a", lines(3))]


def test_everything_is_bounded(tmp_path: Path) -> None:
    archive = OutputArchive(tmp_path)
    for number in range(REPLICAS_KEPT + 5):
        archive.save("shop", "web", f"web-{number}", float(number), lines(1))
    kept = [name for name, _ in archive.read("shop", "web")]
    assert kept == [f"web-{n}" for n in range(5, REPLICAS_KEPT + 5)]
    archive.save("shop", "long", "a", 1.0, lines(LINES_KEPT + 10))
    ((_, found),) = archive.read("shop", "long")
    assert (len(found), found[-1]) == (LINES_KEPT, lines(LINES_KEPT + 10)[-1])
    archive.save("shop", "wide", "a", 1.0, lines(LINES_KEPT, 4000))
    ((_, found),) = archive.read("shop", "wide")
    assert 0 < len(found) < FILE_BYTES / 4000
    assert found[-1].at == LINES_KEPT - 1
    for number in range(output_archive.SERVICES_KEPT + 3):
        archive.save("many", f"s{number}", "a", 1.0, lines(1))
    assert len(list(tmp_path.iterdir())) == output_archive.SERVICES_KEPT


def test_names_cannot_leave_the_directory_and_an_error_is_not_raised(tmp_path: Path) -> None:
    archive = OutputArchive(tmp_path / "output")
    archive.save("../..", "..", "../x", 1.0, lines(1))
    assert [path.name for path in tmp_path.iterdir()] == ["output"]
    (tmp_path / "file").write_text("")
    OutputArchive(tmp_path / "file").save("shop", "web", "a", 1.0, lines(1))
    assert OutputArchive(tmp_path / "file").read("shop", "web") == []


def test_a_damaged_file_shows_what_can_be_read(tmp_path: Path) -> None:
    archive = OutputArchive(tmp_path)
    archive.save("shop", "web", "a", 1.0, lines(2))
    (file,) = (tmp_path / "shop.web").iterdir()
    file.write_bytes(file.read_bytes()[:-5])
    ((_, found),) = archive.read("shop", "web")
    assert found[0] == lines(2)[0]
    assert found[-1].text.startswith("(the rest cannot be read:")
