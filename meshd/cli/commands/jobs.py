"""`meshd jobs`: one-off jobs, what they wrote, and schedules."""

from pathlib import Path

import click

from meshd.api.dto import ScheduleStatus
from meshd.cli import follow as following
from meshd.cli import output
from meshd.cli.session import connect, state_option, talks
from meshd.model.job import Job

COLUMNS = ("job", "service", "state", "code", "began", "took", "cause", "why")
SCHEDULE_COLUMNS = ("schedule", "service", "cron", "next", "last")


@click.group("jobs", invoke_without_command=True, short_help="See one-off jobs and schedules.")
@click.option("-n", "--tail", type=click.IntRange(1, 1000), default=20, show_default=True,
              help="How many jobs to show.")  # fmt: skip
@output.output_option
@state_option
@click.pass_context
def command(context: click.Context, tail: int, as_json: bool, state: Path) -> None:
    """List one-off jobs, the newest first, and what is scheduled."""
    if context.invoked_subcommand is None:
        _listed(tail, as_json, state)


@talks
async def _listed(tail: int, as_json: bool, state: Path) -> int:
    async with connect(state) as client:
        found = await client.jobs()
    if as_json:
        output.print_json(found)
        return output.OK
    if found.schedules:
        output.print_table(SCHEDULE_COLUMNS, [schedule_row(each) for each in found.schedules])
    if found.jobs or not found.schedules:
        output.print_table(COLUMNS, [job_row(job) for job in found.jobs[:tail]])
    return output.OK


@command.command("logs")
@click.argument("job")
@click.option("-f", "--follow", is_flag=True, help="All of one that runs, until it ends.")
@state_option
@talks
async def logs(job: str, follow: bool, state: Path) -> int:
    """Show the last lines that JOB wrote."""
    async with connect(state) as client:
        if follow or not (await client.job(job)).is_over:
            async for line in following.job(client, job):
                output.say(line.line)
            return output.OK
        for text in await client.job_lines(job):
            output.say(text)
    return output.OK


@command.command("stop")
@click.argument("job")
@state_option
@talks
async def stop(job: str, state: Path) -> int:
    """Have JOB end: its stop signal, KILL ten seconds later."""
    async with connect(state) as client:
        await client.stop_job(job)
    return output.OK


def job_row(job: Job) -> list[str]:
    """One row a job."""
    took = job.ended - job.started if job.started and job.is_over else None
    return [
        job.id,
        job.key,
        job.state,
        "" if job.exit_code is None else str(job.exit_code),
        output.clock(job.started or job.at),
        output.seconds(took),
        job.cause,
        job.text,
    ]


def schedule_row(each: ScheduleStatus) -> list[str]:
    """One row a schedule."""
    last = f"{each.last.state} {output.clock(each.last.at)}" if each.last else "never"
    zone = "" if each.timezone == "UTC" else f" {each.timezone}"
    return [
        each.name or "-",
        f"{each.project}/{each.service}",
        each.cron + zone,
        output.clock(each.next) if each.next else "never",
        last,
    ]
