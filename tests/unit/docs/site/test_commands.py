"""Every `meshd` command of the README and the pages is one that the command line accepts."""

from pathlib import Path

import click
import pytest

from docs.site.commands import CommandLine, find_commands, find_mentions
from docs.site.stage import ROOT, written_pages
from meshd.cli.main import main

PAGES = {"README": ROOT / "README.md", "CHANGELOG": ROOT / "CHANGELOG.md", **written_pages()}
COMMANDS = sorted(
    {
        (page, command.words)
        for page, path in PAGES.items()
        for command in find_commands(path.read_text())
    }
)
MENTIONS = sorted(
    {(page, words) for page, path in PAGES.items() for words in find_mentions(path.read_text())}
)


def accept(words: tuple[str, ...]) -> None:
    """Parse a command as the command line does. Raises ClickException if it is not valid."""
    command: click.Command = main
    context = main.make_context("meshd", list(words))
    while isinstance(command, click.Group):
        rest = [*context._protected_args, *context.args]
        if not rest and command.invoke_without_command:
            return
        name, found, rest = command.resolve_command(context, rest)
        assert found is not None
        context, command = found.make_context(name, rest, parent=context), found


def accept_mention(words: tuple[str, ...]) -> None:
    """Check that the command exists and has the options. Raises ClickException if not."""
    command: click.Command = main
    context, rest = click.Context(main, info_name="meshd"), list(words)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        if rest[0].isupper():  # COMMAND means any of them
            return
        _, found, rest = command.resolve_command(context, rest)
        assert found is not None
        context, command = click.Context(found, parent=context), found
    known = {
        name for each in command.get_params(context) for name in each.opts + each.secondary_opts
    }
    if "--" in rest:
        rest = rest[: rest.index("--")]
    unknown = {word for word in rest if word.startswith("-")} - known
    if unknown:
        raise click.UsageError(f"no such options: {unknown}")


@pytest.fixture
def _any_file_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    """Examples name files of the reader's machine."""

    def convert(self: object, value: str, *_: object) -> Path:
        return Path(value)

    monkeypatch.setattr(click.Path, "convert", convert)
    monkeypatch.setattr(click.File, "convert", convert)


@pytest.mark.usefixtures("_any_file_exists")
@pytest.mark.parametrize(
    ("page", "words"), COMMANDS, ids=lambda each: each if isinstance(each, str) else " ".join(each)
)
def test_every_command_of_the_pages_is_valid(page: str, words: tuple[str, ...]) -> None:
    try:
        accept(words)
    except click.ClickException as error:
        pytest.fail(f"{page}: meshd {' '.join(words)}: {error.format_message()}")


def test_every_command_in_a_sentence_exists_with_its_options() -> None:
    assert len(MENTIONS) > 50
    wrong = []
    for page, words in MENTIONS:
        try:
            accept_mention(words)
        except click.ClickException as error:
            wrong.append(f"{page}: meshd {' '.join(words)}: {error.format_message()}")
    assert not wrong


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("    meshd ps -r   # replicas", [CommandLine(("ps", "-r"), "meshd ps -r", "replicas")]),
        ("```sh\n$ meshd top\n```", [CommandLine(("top",), "meshd top", "")]),
        ("```python\nmeshd top\n```\nText with meshd top.", []),
        (
            "```\nmeshd ps && A=1 meshd top | cat\nmeshd logs \\\n  web\n```",
            [
                CommandLine(("ps",), "meshd ps && A=1 meshd top | cat", ""),
                CommandLine(("top",), "meshd ps && A=1 meshd top | cat", ""),
                CommandLine(("logs", "web"), "meshd logs web", ""),
            ],
        ),
        ("```yaml\n# meshd top\n```", []),
    ],
)  # fmt: skip
def test_commands_are_found(text: str, expected: list[CommandLine]) -> None:
    assert find_commands(text) == expected


@pytest.mark.parametrize("words", [("scale", "web"), ("ps", "--no-such-option"), ("no-such",)])
def test_a_command_that_is_not_valid_is_found(words: tuple[str, ...]) -> None:
    with pytest.raises(click.ClickException):
        accept(words)


def test_commands_in_sentences_are_found() -> None:
    text = "Run `meshd scale SERVICE N [--for TIME]` or\n`meshd logs\n-f`, not `docker ps`."
    assert find_mentions(text) == [("scale", "SERVICE", "N", "--for", "TIME"), ("logs", "-f")]
    with pytest.raises(click.ClickException):
        accept_mention(("scale", "SERVICE", "--no-such-option"))
    accept_mention(("COMMAND", "--help"))
