"""`meshd run`: a command once, beside a service's replicas."""

import asyncio
from pathlib import Path
from typing import Final

import click

from meshd.api.client import Client
from meshd.cli import follow as following
from meshd.cli import output
from meshd.cli.session import complete_service, connect, duration, find_service, state_option, talks
from meshd.model.job import Job, JobOrder, JobState

AGAIN: Final = 0.5
TIMED_OUT: Final = 124
NOT_RUN: Final = 125
"""As timeout(1) and docker-run(1) have them."""


def variable(text: str) -> tuple[str, str]:
    """`NAME=VALUE`. Raises click.BadParameter."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise click.BadParameter(f"{text!r} is not NAME=VALUE")
    return name, value


@click.command(
    "run",
    short_help="Run a command once, beside a service's replicas.",
    context_settings={"allow_interspersed_args": False},
)
@click.argument("service", shell_complete=complete_service)
@click.argument("argv", metavar="[-- COMMAND...]", nargs=-1, type=click.UNPROCESSED)
@click.option("-d", "--detach", is_flag=True, help="Return once it is accepted; tells its id.")
@click.option("-e", "--env", "variables", type=variable, multiple=True, metavar="NAME=VALUE",
              help="Environment of its own.")  # fmt: skip
@click.option("--timeout", "seconds", type=duration, default="0", metavar="TIME",
              help="End it after that long (exit code 124); default: never.")  # fmt: skip
@output.output_option
@state_option
@talks
async def command(
    service: str,
    argv: tuple[str, ...],
    detach: bool,
    variables: tuple[tuple[str, str], ...],
    seconds: float,
    as_json: bool,
    state: Path,
) -> int:
    """Run COMMAND once in SERVICE's image, with its environment, networks and volumes; without
    one, the service's own. What it writes is shown; the exit code is the command's (125: it
    could not be run). Ctrl-C stops it. It is never routed to and is no replica; `meshd jobs`
    keeps its last lines. While there is no room for it, it waits. Options come before SERVICE."""
    told = argv[1:] if argv[:1] == ("--",) else argv
    if told[:1] and told[0].startswith("-"):
        raise click.UsageError(f"{told[0]} is no command; options of meshd run come before SERVICE")
    order = JobOrder(told, dict(variables), seconds)
    async with connect(state) as client:
        found = find_service(await client.status(), service)
        job = await client.run(found.project, found.name, order)
        if not detach:
            job = await _shown(client, job, as_json)
    if as_json:
        output.print_json_line(job)
    elif detach:
        output.say(job.id)
    return output.OK if detach else exit_code(job)


async def _tell_waiting(client: Client, id: str) -> None:
    """Say why it does not begin, as long as it does not."""
    told = ""
    while (job := await client.job(id)).state is JobState.WAITING:
        if job.text != told:
            output.complain(f"meshd: {id} {job.text}")
            told = job.text
        await asyncio.sleep(AGAIN)


async def _shown(client: Client, job: Job, as_json: bool) -> Job:
    """The job at its end; its lines were printed."""
    waiting = asyncio.create_task(_tell_waiting(client, job.id))
    try:
        async for line in following.job(client, job.id):
            if as_json:
                output.print_json_line(line)
            else:
                output.say(line.line)
    except asyncio.CancelledError:
        await client.stop_job(job.id)
        output.complain(f"meshd: {job.id} is stopped")
        raise
    finally:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    job = await client.job(job.id)
    if (job.text and job.exit_code is None) or job.state is JobState.TIMED_OUT:
        output.complain(f"meshd: {job.id} {job.state}: {job.text}")
    return job


def exit_code(job: Job) -> int:
    """What `meshd run` ends with for a job that ended so."""
    if job.state is JobState.TIMED_OUT:
        return TIMED_OUT
    return NOT_RUN if job.exit_code is None else job.exit_code
