"""The reference of the command line, from the commands themselves.

`docs.site.stage` calls `render`. Examples are the commands with a comment in the README and the
pages.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from docs.site.commands import CommandLine, find_commands
from docs.site.reference.markdown import code, sentence, table
from meshd.cli.main import main

HEAD = """# Command line

Every command with its options, generated from the code. `meshd COMMAND --help` prints the same.
"""


def render(pages: Mapping[str, Path]) -> str:
    """Return the page. `pages` are the ones to take examples from."""
    examples = [
        command
        for path in pages.values()
        for command in find_commands(path.read_text(encoding="utf-8"))
        if command.comment
    ]
    root = click.Context(main, info_name="meshd")
    parts = [HEAD, table(["command", "meaning"], summary(root)), "", exit_codes(), ""]
    parts += ["## Options before the command", "", options_table(main, root), ""]
    for name in main.list_commands(root):
        command = main.get_command(root, name)
        assert command is not None
        parts += describe(command, click.Context(command, parent=root, info_name=name), examples)
    return "\n".join(parts)


def summary(root: click.Context) -> Iterator[tuple[str, str]]:
    """Yield a link to each command, and what it does."""
    for name in main.list_commands(root):
        command = main.get_command(root, name)
        assert command is not None
        yield f"[`meshd {name}`](#meshd-{name})", command.get_short_help_str(200)


def exit_codes() -> str:
    """Return the exit codes as the help of `meshd` lists them."""
    found = re.search(r"Exit codes: (.*?)\. ", main.epilog or "")
    assert found is not None
    parts = re.split(r", (?=\d )", found[1])
    rows = [(code(number), sentence(meaning)) for number, _, meaning in map(split_code, parts)]
    return "## Exit codes\n\n" + table(["code", "meaning"], rows)


def split_code(text: str) -> tuple[str, str, str]:
    """Return an exit code and its meaning."""
    return text.partition(" ")


def describe(
    command: click.Command, context: click.Context, examples: list[CommandLine], level: int = 2
) -> Iterator[str]:
    """Yield the section of a command, and of each of its subcommands."""
    path = context.command_path
    usage = " ".join([path, *command.collect_usage_pieces(context)])
    yield f"{'#' * level} `{path}`\n\n```\n{usage}\n```\n\n{help_text(command)}\n"
    if len(command.params):
        yield options_table(command, context) + "\n"
    words = tuple(path.split()[1:])
    shown = {each.line: each.comment for each in examples if each.words[: len(words)] == words}
    subcommands = command.commands if isinstance(command, click.Group) else {}
    if shown and not subcommands:
        width = max(map(len, shown))
        lines = [f"{line:<{width}}   # {comment}" for line, comment in shown.items()]
        yield "```sh\n" + "\n".join(lines) + "\n```\n"
    for name, inner in sorted(subcommands.items()):
        inside = click.Context(inner, parent=context, info_name=name)
        yield from describe(inner, inside, examples, level + 1)


def help_text(command: click.Command) -> str:
    """Return the help of a command with its paragraphs; those that click keeps as they are become
    code."""
    paragraphs = (command.help or "").split("\n\n")
    return "\n\n".join(
        "```\n" + paragraph.removeprefix("\b\n") + "\n```"
        if paragraph.startswith("\b\n")
        else " ".join(paragraph.split()).replace("*", "\\*").replace("<", "\\<")
        for paragraph in paragraphs
    )


def options_table(command: click.Command, context: click.Context) -> str:
    """Return the options of a command with their meanings."""
    records = (each.get_help_record(context) for each in command.get_params(context))
    rows = [
        (code(names), plain(text))
        for names, text in filter(None, records)
        if names not in ("--help", "-h, --help")
    ]
    return table(["option", "meaning"], rows) if rows else ""


def plain(text: str) -> str:
    """Return a help text as Markdown, without accidental markup."""
    return re.sub(r"([*<])", r"\\\1", text)
