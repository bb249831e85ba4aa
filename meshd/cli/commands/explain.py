"""`meshd explain`: why a service has as many replicas as it has."""

import time
from datetime import datetime
from pathlib import Path

import click

from meshd.api.dto import ServiceStatus
from meshd.cli import output
from meshd.cli.session import complete_service, connect, find_service, state_option, talks
from meshd.model.event import SCALE, Event
from meshd.model.scaling import ScaleDecision
from meshd.spec import units


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
        found = datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        try:
            found = time.time() - units.parse_duration(text)
        except ValueError:
            found = 0.0
    if found <= 0:
        raise click.BadParameter(
            f"{text!r} is no time; expected one like 14:30, 2026-01-31T14:30:05, or 10m (ago)"
        )
    return found


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
    """Say why SERVICE has as many replicas as it has (or had): what was asked, what was seen,
    what the autoscaler knew and weighed, what limited it, and the changes before."""
    async with connect(state) as client:
        found = find_service(await client.status(), service)
        decisions = await client.decisions(found.project, found.name, at or 0.0, 1)

        def changed(event: Event) -> bool:
            about = (event.project, event.service) == (found.project, found.name)
            in_time = at is None or event.at <= at
            return about and in_time and event.kind.startswith(SCALE)

        changes, _ = await client.last_events(tail, changed)
    if as_json:
        now = None if at else found
        output.print_json({"service": now, "decision": next(iter(decisions), None),
                           "decisions": changes})  # fmt: skip
        return output.OK
    _head(found, at)
    for decision in decisions:
        _decision(decision)
    if not decisions and not changes:
        output.say("nothing was decided yet: the number stands as the spec gives it")
    if changes:
        output.say("\nchanges, the last first:")
        for event in reversed(changes):
            output.say(f"  {output.clock(event.at)}  {event.kind}  {event.text}")
    return output.OK


def _head(found: ServiceStatus, at: float | None) -> None:
    key = f"{found.project}/{found.name}"
    if at is not None:
        output.say(f"{key} as of {output.clock(at)}")
        return
    output.say(
        f"{key}: {found.wanted} wanted, {found.running} running, {found.ready} ready "
        f"(between {found.minimum} and {found.maximum})"
    )
    if found.waiting:
        output.say(f"waits: {found.waiting}")
    if found.override is not None:
        until = f" until {output.clock(found.override_until)}" if found.override_until else ""
        output.say(
            f"set to {found.override} by hand{until}; `meshd scale {key} auto` takes it back"
        )
    output.say(
        f"now: {found.rps:.1f} requests/s, {found.in_flight:.1f} in flight, "
        f"p95 {output.seconds(found.p95) or 'unknown'}"
    )


def _decision(decision: ScaleDecision) -> None:
    was = "" if decision.previous == decision.desired else f", was {decision.previous}"
    title = f"{output.clock(decision.at)}  {decision.desired} replicas{was} ({decision.cause})"
    output.say(f"\n{title}: {decision.reason}")
    if decision.override is not None:
        output.say(f"  by hand     {decision.override}, which counts instead")
    ranked = sorted(decision.candidates.items(), key=lambda each: -each[1])
    for name, lines in (
        ("objectives", decision.objectives),
        ("signals", (_figures(decision.signals) or "none: no data, so the number is held",)),
        ("model", (_figures(decision.model),)),
        ("candidates", [f"{objective} wants {number}" for objective, number in ranked]),
        ("limits", decision.limits),
        ("rejected", decision.rejected),
    ):
        for number, line in enumerate(each for each in lines if each):
            output.say(f"  {name if not number else '':<11} {line}")


def _figures(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())
