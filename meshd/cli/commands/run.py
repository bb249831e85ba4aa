"""`meshd run`: run a command once in a container of a service."""

import asyncio
from pathlib import Path
from typing import Final

import click

from meshd.api.client import Client
from meshd.cli import follow as following
from meshd.cli import output
from meshd.cli.options import (
    DURATION,
    detach_option,
    output_option,
    service_argument,
    state_option,
)
from meshd.cli.session import connect, find_service, run_async
from meshd.model.job import Job, JobOrder, JobState

POLL_SECONDS: Final = 0.5
"""Seconds between two requests while a job waits to start."""
TIMED_OUT: Final = 124
"""Exit code of timeout(1) for a command that took too long."""
NOT_RUN: Final = 125
"""Exit code of timeout(1) and `docker run` if the command could not be run."""


def parse_variable(text: str) -> tuple[str, str]:
    """Return the name and the value of `NAME=VALUE`. Raises click.BadParameter."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise click.BadParameter(f"{text!r} is not valid; expected NAME=VALUE")
    return name, value


@click.command(
    "run",
    short_help="Run a command once in a service's environment.",
    context_settings={"allow_interspersed_args": False},
)
@service_argument()
@click.argument("argv", metavar="[-- COMMAND...]", nargs=-1, type=click.UNPROCESSED)
@detach_option("Print the job's id and return at once.")
@click.option(
    "-e",
    "--env",
    "variables",
    type=parse_variable,
    multiple=True,
    metavar="NAME=VALUE",
    help="Set an environment variable in addition to the service's own.",
)
@click.option(
    "--timeout",
    "seconds",
    type=DURATION,
    default="0",
    show_default="no limit",
    help="Stop the command after this time (exit code 124).",
)
@output_option
@state_option
@run_async
async def command(
    service: str,
    argv: tuple[str, ...],
    detach: bool,
    variables: tuple[tuple[str, str], ...],
    seconds: float,
    as_json: bool,
    state: Path,
) -> int:
    """Run COMMAND once with the image, environment, networks and volumes of SERVICE.

    Without COMMAND the service's own command runs. The output is shown, and the exit code is the
    command's (125 if it could not be run). Ctrl-C stops it. It gets no requests and does not count
    as a replica. While there is no capacity for it, it waits. `meshd jobs` keeps its last lines.
    Options must precede SERVICE.
    """
    words = argv[1:] if argv[:1] == ("--",) else argv
    if words[:1] and words[0].startswith("-"):
        raise click.UsageError(
            f"{words[0]} is not a command; options of meshd run come before SERVICE"
        )
    order = JobOrder(words, dict(variables), seconds)
    async with connect(state) as client:
        found = find_service(await client.status(), service)
        job = await client.run(found.project, found.name, order)
        if not detach:
            job = await _show_until_end(client, job, as_json)
    if as_json:
        output.print_json_line(job)
    elif detach:
        output.print_line(job.id)
    return output.OK if detach else exit_code(job)


async def _report_waiting(client: Client, id: str) -> None:
    """Print why the job waits, each time the reason changes, until it starts."""
    reported = ""
    while (job := await client.job(id)).state is JobState.WAITING:
        if job.text != reported:
            output.print_error(f"meshd: {id} {job.text}")
            reported = job.text
        await asyncio.sleep(POLL_SECONDS)


async def _show_until_end(client: Client, job: Job, as_json: bool) -> Job:
    """Print the job's output until it ends; return its final state."""
    waiting = asyncio.create_task(_report_waiting(client, job.id))
    try:
        async for line in following.job(client, job.id):
            if as_json:
                output.print_json_line(line)
            else:
                output.print_line(line.line)
    except asyncio.CancelledError:
        await client.stop_job(job.id)
        output.print_error(f"meshd: stopping {job.id}")
        raise
    finally:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    job = await client.job(job.id)
    if (job.text and job.exit_code is None) or job.state is JobState.TIMED_OUT:
        output.print_error(f"meshd: {job.id} {job.state}: {job.text}")
    return job


def exit_code(job: Job) -> int:
    """Return the exit code of `meshd run` for a job that has ended."""
    if job.state is JobState.TIMED_OUT:
        return TIMED_OUT
    return NOT_RUN if job.exit_code is None else job.exit_code
