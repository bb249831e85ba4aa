"""`meshd silence`: keep problems from being sent to webhooks for a while."""

import time
from pathlib import Path

import click

from meshd.cli import output
from meshd.cli.options import POSITIVE_DURATION, output_option, project_option, state_option
from meshd.cli.session import connect, find_service, run_async
from meshd.model.silence import MAX_TEXT, NewSilence, Silence
from meshd.spec.model.notify import TOPICS

COLUMNS = ("id", "for", "event", "ends", "by", "reason")


@click.group("silence", short_help="Keep problems from being sent to webhooks.")
def command() -> None:
    """Keep problems from being sent to the webhooks of `x-mesh.notify` for a while. They stay in
    `meshd events`."""


@command.command("add", short_help="Silence problems.")
@click.argument("service", required=False)
@click.option("--for", "seconds", type=POSITIVE_DURATION, required=True, metavar="TIME",
              help="How long, e.g. 2h; at most 30d.")  # fmt: skip
@click.option("--event", "topic", type=click.Choice(TOPICS), help="Only this event.")
@click.option("--reason", default="", metavar="TEXT", help="For other people.")
@project_option("Only problems of this project.")
@output_option
@state_option
@run_async
async def add(
    service: str | None,
    seconds: float,
    topic: str | None,
    reason: str,
    project: str | None,
    as_json: bool,
    state: Path,
) -> int:
    """Silence the problems of SERVICE, of a project, or all."""
    if len(reason) > MAX_TEXT:
        raise click.UsageError(f"--reason has {len(reason)} characters; expected up to {MAX_TEXT}")
    async with connect(state) as client:
        name = ""
        if service:
            found = find_service(await client.status(), service)
            if project not in (None, found.project):
                raise click.UsageError(f"{service} is a service of {found.project}, not {project}")
            project, name = found.project, found.name
        made = await client.create_silence(
            NewSilence(seconds, project or "", name, topic or "", reason)
        )
    if as_json:
        output.print_json(made)
    else:
        lasts = output.format_seconds(seconds)
        output.print_line(f"{made.id}: {_describe(made)} silenced for {lasts}")
    return output.OK


@command.command("ls", short_help="List the silences.")
@output_option
@state_option
@run_async
async def list_silences(as_json: bool, state: Path) -> int:
    """List the silences that have not ended."""
    async with connect(state) as client:
        found = await client.silences()
    if as_json:
        output.print_json(found)
    else:
        now = time.time()
        output.print_table(COLUMNS, [_row(each, now) for each in found])
    return output.OK


@command.command("rm", short_help="End silences.")
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@state_option
@run_async
async def remove(ids: tuple[str, ...], state: Path) -> int:
    """End silences by their id."""
    async with connect(state) as client:
        for id in ids:
            await client.remove_silence(id)
            output.print_line(f"{id}: ended")
    return output.OK


def _describe(silence: Silence) -> str:
    if silence.service:
        return f"{silence.project}/{silence.service}"
    return silence.project or "everything"


def _row(silence: Silence, now: float) -> list[str]:
    return [
        silence.id,
        _describe(silence),
        silence.topic or "all",
        output.format_seconds(max(0.0, silence.until - now)),
        silence.who,
        silence.reason,
    ]
