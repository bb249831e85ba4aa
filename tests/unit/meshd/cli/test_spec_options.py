"""The Compose files and env files that commands use without `-f`."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from meshd.cli import spec_options


def write(directory: Path, *names: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name in names:
        (directory / name).write_text("services: {web: {image: i}}\n")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], []),
        (["docker-compose.yaml", "docker-compose.yml"], ["docker-compose.yml"]),
        (["compose.yml", "compose.yaml", "docker-compose.yml"], ["compose.yaml"]),
        (["compose.yml", "compose.override.yml"], ["compose.yml", "compose.override.yml"]),
        (["docker-compose.yml", "docker-compose.override.yaml"],
         ["docker-compose.yml", "docker-compose.override.yaml"]),
    ],
)  # fmt: skip
def test_default_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str], expected: list[str]
) -> None:
    write(tmp_path, *names)
    monkeypatch.chdir(tmp_path)
    assert spec_options.default_files({}) == tuple(map(Path, expected))


def test_directories_above_are_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "compose.yml", "compose.override.yml")
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    expected = (tmp_path / "compose.yml", tmp_path / "compose.override.yml")
    assert spec_options.default_files({}) == expected


def test_compose_file_names_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "compose.yml")
    monkeypatch.chdir(tmp_path)
    assert spec_options.default_files({"COMPOSE_FILE": "a.yml:b.yml"}) == (
        Path("a.yml"),
        Path("b.yml"),
    )
    other = {"COMPOSE_FILE": "a:1.yml,b.yml", "COMPOSE_PATH_SEPARATOR": ","}
    assert spec_options.default_files(other) == (Path("a:1.yml"), Path("b.yml"))


def test_dotenv_may_name_the_files_and_env_files_replace_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @click.command()
    @spec_options.spec_options
    def command(files: tuple[Path, ...], project: str | None, profiles: tuple[str, ...]) -> None:
        click.echo(spec_options.load_project(files, project, profiles).services[0].image)

    monkeypatch.chdir(tmp_path)
    for name in ("COMPOSE_FILE", "COMPOSE_ENV_FILES"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "shop.yml").write_text("services: {web: {image: 'i:${TAG}'}}\n")
    (tmp_path / ".env").write_text("COMPOSE_FILE=shop.yml\nTAG=1\n")
    (tmp_path / "own.env").write_text("TAG=2\n")

    def run(*arguments: str) -> str:
        return CliRunner().invoke(command, arguments).output.strip()

    assert run() == "i:1"
    assert run("-f", "shop.yml", "--env-file", "own.env") == "i:2"
    monkeypatch.setenv("COMPOSE_ENV_FILES", "own.env")
    assert run("-f", "shop.yml") == "i:2"
