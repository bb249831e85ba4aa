"""`meshd explain`: say why a service has the number of replicas that it has.

Prints the latest decision of the autoscaler with its inputs, and the changes before it.
"""

from pathlib import Path

import click

from meshd.api.client import Client
from meshd.api.dto import ServiceStatus
from meshd.cli import output
from meshd.cli.options import (
    TIMESTAMP,
    output_option,
    service_argument,
    state_option,
    tail_option,
)
from meshd.cli.session import connect, find_service, run_async
from meshd.model.errors import NotFound
from meshd.model.event import SCALE, Event
from meshd.model.history import HistoryPoint
from meshd.model.scaling import ScaleDecision

STARTING_NAMED = 3
"""Replicas that are not ready yet whose reason is printed; the others mostly have the same."""
PLACES_NAMED = 20
"""Replicas of which it is printed why they are on their nodes."""
LABEL_WIDTH = 11
"""Width of the labels of a decision's details; `objectives` and `candidates` are the longest."""


@click.command("explain", short_help="Say why a service has its number of replicas.")
@service_argument()
@click.option(
    "--at",
    type=TIMESTAMP,
    help="Explain the number at this time: 14:30, 2026-01-31T14:30:05, or 10m (ago).",
)
@tail_option(10, 1000, "Number of past changes to show.")
@output_option
@state_option
@run_async
async def command(service: str, at: float | None, tail: int, as_json: bool, state: Path) -> int:
    """Say why SERVICE has (or had) its number of replicas.

    Shows the objectives, the signals that the autoscaler saw, what it has learned about the
    service, the numbers that it considered, the limits that applied, and the changes before.
    """
    async with connect(state) as client:
        found = find_service(await client.status(), service)
        decisions = await client.decisions(found.project, found.name, at or 0.0, 1)

        def is_change(event: Event) -> bool:
            about_service = (event.project, event.service) == (found.project, found.name)
            in_time = at is None or event.at <= at
            return about_service and in_time and event.kind.startswith(SCALE)

        then = await _load_then(client, found, at) if at is not None else None
        changes, _ = await client.last_events(tail, is_change)
    if as_json:
        output.print_json(
            {
                "service": None if at else found,
                "then": then,
                "decision": next(iter(decisions), None),
                "decisions": changes,
            }
        )
        return output.OK
    for line in summary_lines(found, at):
        output.print_line(line)
    if then is not None:
        output.print_line(load_line(then))
    for decision in decisions:
        output.print_line("")
        for line in decision_lines(decision):
            output.print_line(line)
    if not decisions and not changes:
        output.print_line(no_decision_line(found, at))
    if changes:
        output.print_line("\nChanges, newest first:")
        for event in reversed(changes):
            output.print_line(f"  {output.format_time(event.at)}  {event.kind}  {event.text}")
    return output.OK


async def _load_then(client: Client, service: ServiceStatus, at: float) -> HistoryPoint | None:
    """Return the load of the service at that time; None if it is not known."""
    try:
        found = await client.history_at(at)
    except NotFound:
        return None  # a daemon of an earlier version
    key = f"{service.project}/{service.name}"
    return next((each.point for each in found.services if each.service == key), None)


def load_line(point: HistoryPoint) -> str:
    """Return the size and load of a service in the past as a sentence."""
    return (
        f"It had {_replicas(point.ready)} ready of {point.desired}. Load over {point.step} s: "
        f"{point.rps:.1f} requests/s, {point.errors:.1f} errors/s, {point.in_flight:.1f} in "
        f"flight, p95 {output.format_seconds(point.p95) or 'unknown'}, {point.cores:.2f} cores."
    )


def summary_lines(service: ServiceStatus, at: float | None) -> list[str]:
    """Return the state of the service in sentences; with `at`, only its name and that time."""
    key = f"{service.project}/{service.name}"
    if at is not None:
        return [f"{key} at {output.format_time(at)}:"]
    fixed = service.minimum == service.maximum
    bounds = "" if fixed else f" (between {service.minimum} and {service.maximum})"
    lines = [
        f"{key} should have {_replicas(service.desired)}{bounds}. "
        f"{service.running} running, {service.ready} ready."
    ]
    if service.state in ("completed", "failed"):
        ended = [r for r in service.replicas if r.phase == service.state]
        detail = f" ({ended[-1].reason})" if ended else ""
        lines.append(
            f"It has {service.state}{detail}. Its restart policy does not restart it; it runs "
            + ("again when its revision changes." if service.completed else "again when deployed.")
        )
    if service.waiting:
        lines.append(f"Waiting: {service.waiting}")
    starting = [r for r in service.replicas if r.phase in ("starting", "probing") and r.reason]
    lines += [f"{r.name} is not ready: {r.reason}" for r in starting[:STARTING_NAMED]]
    if service.override is not None:
        until = (
            f" until {output.format_time(service.override_until)}" if service.override_until else ""
        )
        lines.append(
            f"The number was set to {service.override} by hand{until}; `meshd scale {key} auto` "
            "gives control back to the autoscaler."
        )
    lines.append(
        f"Current load: {service.rps:.1f} requests/s, {service.in_flight:.1f} in flight"
        + (f" (open connections: {service.streams})" if service.streams else "")
        + f", p95 {output.format_seconds(service.p95) or 'unknown'}."
    )
    return lines + place_lines(service)


def place_lines(service: ServiceStatus) -> list[str]:
    """Return why replicas are on their nodes; no line where no node was to be chosen."""
    placed = [each for each in service.replicas if each.placed]
    lines = [f"{each.name} is on {each.node}: {each.placed}" for each in placed[:PLACES_NAMED]]
    if len(placed) > PLACES_NAMED:
        lines.append(f"… and {len(placed) - PLACES_NAMED} more; `-o json` has all of them.")
    return lines


def no_decision_line(service: ServiceStatus, at: float | None) -> str:
    """Return the explanation for a service without decisions or changes."""
    if service.minimum == service.maximum:
        return "The spec sets the number; the autoscaler does not change it."
    if at is not None:
        return "The autoscaler had not decided anything by then."
    return "The autoscaler has not decided anything yet; the spec sets the number."


def decision_lines(decision: ScaleDecision) -> list[str]:
    """Return a decision as a sentence, and its details as labelled lines."""
    when = output.format_time(decision.at)
    if decision.override is not None:
        change = f"would have set {_replicas(decision.desired)}"
    elif decision.previous == decision.desired:
        change = f"kept {_replicas(decision.desired)}"
    else:
        change = f"changed from {decision.previous} to {_replicas(decision.desired)}"
    lines = [f"At {when} the autoscaler {change} ({decision.cause}): {decision.reason}"]
    if decision.override is not None:
        lines.append(f"  {'by hand':<{LABEL_WIDTH}} {decision.override}, which held instead")
    ranked = sorted(decision.candidates.items(), key=lambda each: -each[1])
    for label, details in (
        ("objectives", decision.objectives),
        ("signals", (_figures(decision.signals) or "none: without data the number is kept",)),
        ("model", (_figures(decision.model),)),
        ("candidates", [f"{objective} needs {number}" for objective, number in ranked]),
        ("limits", decision.limits),
        ("rejected", decision.rejected),
    ):
        for number, line in enumerate(each for each in details if each):
            lines.append(f"  {label if not number else '':<{LABEL_WIDTH}} {line}")
    return lines


def _replicas(number: int) -> str:
    return f"{number} replica" if number == 1 else f"{number} replicas"


def _figures(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())
