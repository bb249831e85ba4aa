"""Invalid Compose files, with the exact text of all their errors."""

from pathlib import Path

import pytest

from meshd.spec.compose import load
from meshd.spec.errors import SpecError

TABLE = Path(__file__).with_name("bad_files.txt")


def _cases() -> list[tuple[str, dict[str, str], str, list[str]]]:
    cases = []
    for block in TABLE.read_text().split("\n== ")[1:]:
        name, _, rest = block.partition("\n")
        text, _, messages = rest.rpartition("\n--\n")
        lines = text.split("\n")
        environment = dict(line[2:].split("=") for line in lines if line.startswith("$ "))
        body = "\n".join(line for line in lines if not line.startswith("$ ")) + "\n"
        cases.append((name, environment, body, messages.strip().split("\n")))
    return cases


@pytest.mark.parametrize(
    ("environment", "text", "expected"), [pytest.param(*case[1:], id=case[0]) for case in _cases()]
)
def test_an_invalid_file_reports_all_errors_with_their_lines(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    text: str,
    expected: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("compose.yml").write_text(text)

    with pytest.raises(SpecError) as raised:
        load([Path("compose.yml")], environment=environment)

    found = [str(problem).replace(str(tmp_path), "DIR") for problem in raised.value.problems]
    assert found == [f"compose.yml:{line}" for line in expected]


def test_a_missing_an_empty_and_an_unreadable_file(tmp_path: Path) -> None:
    empty = tmp_path / "empty.yml"
    empty.touch()
    binary = tmp_path / "binary.yml"
    binary.write_bytes(b"\xff\xfe\x00")

    with pytest.raises(SpecError) as raised:
        load([tmp_path / "none.yml", empty, binary], environment={})

    found = [str(problem).replace(str(tmp_path), "DIR") for problem in raised.value.problems]
    assert found == [
        "DIR/none.yml: no such file",
        "DIR/binary.yml: cannot be read: it is not valid UTF-8",
    ]
    for text in ("", "# nothing\n", "---\n---\n"):
        empty.write_text(text)
        with pytest.raises(SpecError, match=r"empty\.yml: the file is empty; expected services"):
            load([empty], environment={})


def test_errors_in_merged_files_name_the_right_file(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text("services:\n  web:\n    image: i\n    init: maybe\n")
    (tmp_path / "b.yml").write_text("services:\n  web:\n    stop_signal: nope\n")

    with pytest.raises(SpecError) as raised:
        load([tmp_path / "a.yml", tmp_path / "b.yml"], environment={})

    assert [
        (Path(p.location.file).name, p.location.line, p.field) for p in raised.value.problems
    ] == [
        ("a.yml", 4, "init"),
        ("b.yml", 3, "stop_signal"),
    ]


def test_alias_expansion_is_bounded(tmp_path: Path) -> None:
    layers = ["x-0: &x0 [a, a, a, a, a, a, a, a, a, a]"]
    layers += [f"x-{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 10)}]" for n in range(1, 8)]
    path = tmp_path / "compose.yml"
    path.write_text("\n".join(layers) + "\nservices: {}\n")

    with pytest.raises(
        SpecError, match="the file has more than 250000 values after alias expansion"
    ):
        load([path], environment={})
