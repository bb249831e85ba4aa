"""`meshd jobs`: list one-off jobs and schedules, show a job's output, stop a job."""

from pathlib import Path

import click

from meshd.api.dto import ScheduleStatus
from meshd.cli import follow as following
from meshd.cli import output
from meshd.cli.options import follow_option, output_option, state_option, tail_option
from meshd.cli.session import connect, run_async
from meshd.model.job import Job

COLUMNS = ("job", "service", "state", "code", "began", "took", "cause", "why")
SCHEDULE_COLUMNS = ("schedule", "service", "cron", "next", "last")


@click.group("jobs", invoke_without_command=True, short_help="Show one-off jobs and schedules.")
@tail_option(20, 1000, "Number of jobs to show.")
@output_option
@state_option
@click.pass_context
def command(context: click.Context, tail: int, as_json: bool, state: Path) -> None:
    """List one-off jobs, newest first, and schedules."""
    if context.invoked_subcommand is None:
        _list(tail, as_json, state)


@run_async
async def _list(tail: int, as_json: bool, state: Path) -> int:
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


@command.command("logs", short_help="Show the output of a job.")
@click.argument("job")
@follow_option("Show all output that is kept, until the job ends. Default while it runs.")
@state_option
@run_async
async def logs(job: str, follow: bool, state: Path) -> int:
    """Show the last lines of the output of JOB."""
    async with connect(state) as client:
        if follow or not (await client.job(job)).is_over:
            async for line in following.job(client, job):
                output.print_line(line.line)
            return output.OK
        for text in await client.job_lines(job):
            output.print_line(text)
    return output.OK


@command.command("stop", short_help="Stop a job.")
@click.argument("job")
@state_option
@run_async
async def stop(job: str, state: Path) -> int:
    """Send JOB its stop signal, and KILL after ten seconds."""
    async with connect(state) as client:
        await client.stop_job(job)
    return output.OK


def job_row(job: Job) -> list[str]:
    """Return the row of a job; the columns are `COLUMNS`."""
    # The clock may have been set back meanwhile.
    duration = max(0.0, job.ended - job.started) if job.started and job.is_over else None
    return [
        job.id,
        job.key,
        job.state,
        "" if job.exit_code is None else str(job.exit_code),
        output.format_time(job.started or job.at),
        output.format_seconds(duration),
        job.cause,
        job.text,
    ]


def schedule_row(schedule: ScheduleStatus) -> list[str]:
    """Return the row of a schedule; the columns are `SCHEDULE_COLUMNS`."""
    job = schedule.last
    zone = "" if schedule.timezone == "UTC" else f" {schedule.timezone}"
    return [
        schedule.name or "-",
        f"{schedule.project}/{schedule.service}",
        schedule.cron + zone,
        output.format_time(schedule.next) if schedule.next else "never",
        f"{job.state} {output.format_time(job.at)}" if job else "never",
    ]
