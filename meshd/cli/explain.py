"""`meshd explain`: why a service has as many replicas as it has."""

import time
from datetime import datetime
from pathlib import Path

import click

from meshd.api.model import Event, ServiceStatus
from meshd.cli import output
from meshd.cli.session import complete_service, connect, duration, find_service, state_option, talks
from meshd.telemetry.events import SCALE


def moment(text: str) -> float:
    """Unix time, from `14:30`, `2026-01-31 14:30:05`, or `10m` for ten minutes ago. Raises
    click.BadParameter."""
    for shape in ("%H:%M", "%H:%M:%S"):
        try:
            at = datetime.strptime(text, shape).time()  # noqa: DTZ007 - local time of today
        except ValueError:
            continue
        return datetime.combine(datetime.now().astimezone().date(), at).timestamp()
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        ago = duration(text)
    return time.time() - ago


@click.command("explain", short_help="Say why a service has as many replicas as it has.")
@click.argument("service", shell_complete=complete_service)
@click.option(
    "--at", type=moment, metavar="TIME", help="As of 14:30, 2026-01-31T14:30:05, or 10m ago."
)
@click.option("-n", "--tail", type=click.IntRange(1, 1000), default=10, show_default=True,
              help="How many decisions to show.")  # fmt: skip
@output.output_option
@state_option
@talks
async def command(service: str, at: float | None, tail: int, as_json: bool, state: Path) -> int:
    """Say why SERVICE has as many replicas as it has (or had): the last decision, the numbers
    it was taken from, and those before it."""
    async with connect(state) as client:
        found = find_service(await client.status(), service)

        def decided(event: Event) -> bool:
            about = (event.project, event.service) == (found.project, found.name)
            in_time = at is None or event.at <= at
            return about and in_time and event.kind.startswith(SCALE)

        decisions, _ = await client.last_events(tail, decided)
    if as_json:
        now = None if at else found
        output.print_json({"service": now, "decisions": decisions})
    else:
        _explain(found, at, decisions)
    return output.OK


def _explain(found: ServiceStatus, at: float | None, decisions: list[Event]) -> None:
    key = f"{found.project}/{found.name}"
    if at is None:
        output.say(
            f"{key}: {found.wanted} wanted, {found.running} running, {found.ready} ready "
            f"(between {found.minimum} and {found.maximum})"
        )
        if found.override is not None:
            output.say(f"set to {found.override} by hand; `meshd scale {key} auto` takes it back")
        output.say(
            f"now: {found.rps:.1f} requests/s, {found.in_flight:.1f} in flight, "
            f"p95 {output.seconds(found.p95) or 'unknown'}"
        )
    else:
        output.say(f"{key} as of {output.clock(at)}")
    if not decisions:
        output.say("nothing was decided yet: the number stands as the spec gives it")
        return
    last = decisions[-1]
    output.say(f"\n{output.clock(last.at)}  {last.kind}  {last.text}")
    width = max((len(name) for name in last.numbers), default=0)
    for name, value in last.numbers.items():
        output.say(f"    {name.ljust(width)}  {value:.6g}")
    if len(decisions) > 1:
        output.say("\nbefore that:")
        for event in reversed(decisions[:-1]):
            output.say(f"  {output.clock(event.at)}  {event.kind}  {event.text}")
