"""`meshd record`: save and show the last requests that the proxy workers remember."""

import asyncio
from pathlib import Path
from typing import Final

import click

from meshd.api.client import Client
from meshd.api.handlers import MAX_FLIGHTS
from meshd.cli import output
from meshd.cli.commands.tap import make_filter, printable, request_filters, timing
from meshd.cli.options import output_option, service_argument, state_option
from meshd.cli.session import connect, find_service, run_async
from proxy.observe.flight import Flight, RecordInfo

COLUMNS = ("id", "time", "service", "size", "reason")
FLIGHT_COLUMNS = (
    "time", "status", "total", "timing", "request", "service", "endpoint", "chosen", "retries",
    "trace", "failure",
)  # fmt: skip
SAVE_SECONDS: Final = 2.5
"""Seconds after which all workers have saved: they look for an order once a second."""


@click.group("record", short_help="Save and show the last requests (flight recorder).")
def command() -> None:
    """Save and show the last requests that the proxy workers remember.

    Each worker remembers about 3,000 requests: all of them while there are few, the slowest and the
    failed ones of many. The daemon saves them by itself when a service misses its latency
    objective, at most once in five minutes, and keeps the last 20 records.
    """


@command.command("save", short_help="Save the last requests now.")
@service_argument(required=False)
@output_option
@state_option
@run_async
async def save(service: str | None, as_json: bool, state: Path) -> int:
    """Save the last requests of SERVICE, or of all services, and print the id of the record."""
    async with connect(state) as client:
        found = find_service(await client.status(), service) if service else None
        made = await client.save_record(*((found.project, found.name) if found else ("", "")))
        await asyncio.sleep(SAVE_SECONDS)
        record = await _find(client, made.id) or made
    if as_json:
        output.print_json(record)
    elif record.workers:
        output.print_line(record.id)
    else:
        output.print_error(f"record {record.id} is empty: the workers remember no such requests")
    return output.OK


@command.command("list", short_help="List the saved records.")
@output_option
@state_option
@run_async
async def list_records(as_json: bool, state: Path) -> int:
    """List the saved records, newest first."""
    async with connect(state) as client:
        found = await client.records()
    if as_json:
        output.print_json(found)
    else:
        output.print_table(COLUMNS, [record_row(record) for record in found])
    return output.OK


@command.command("show", short_help="Show the requests of a record.")
@click.argument("id")
@request_filters
@click.option(
    "-n", "--tail", default=200, show_default=True, type=click.IntRange(1, MAX_FLIGHTS),
    help="Number of requests to show.", metavar="N",
)  # fmt: skip
@output_option
@state_option
@run_async
async def show(
    id: str, path: str, status: str, slower: float, tail: int, as_json: bool, state: Path
) -> int:
    """Show the last requests of record ID, oldest first: how their time splits, and why the proxy
    chose the endpoint."""
    wanted = make_filter("", path, status, slower)
    async with connect(state) as client:
        found = await client.record(id, wanted, tail)
    if as_json:
        output.print_json(found)
    else:
        output.print_table(FLIGHT_COLUMNS, [flight_row(flight) for flight in found])
    return output.OK


async def _find(client: Client, id: str) -> RecordInfo | None:
    return next((record for record in await client.records() if record.id == id), None)


def record_row(record: RecordInfo) -> list[str]:
    """Return a record as a row of the table."""
    return [
        record.id,
        output.format_time(record.at),
        record.service or "all",
        f"{record.bytes / 1024:.0f} KiB",
        record.reason,
    ]


def flight_row(flight: Flight) -> list[str]:
    """Return a request as a row of the table."""
    entry = flight.request
    failure = entry.failure + (f": {entry.detail}" if entry.detail else "")
    row = [
        output.format_time(entry.time),
        str(entry.status),
        output.format_seconds(entry.total),
        timing(entry),
        f"{entry.method} {entry.host}{entry.target}",
        entry.service or "-",
        entry.endpoint or "-",
        describe_choice(flight),
        str(entry.retries or ""),
        entry.trace_id,
        failure,
    ]
    return [printable(text) for text in row]


def describe_choice(flight: Flight) -> str:
    """Return why the endpoint of a request was chosen."""
    load = f"{flight.load} in flight there" if flight.load else "idle"
    match flight.choice:
        case "only":
            text = f"only endpoint, {load}"
        case "sticky":
            text = f"sticky cookie, of {flight.candidates}, {load}"
        case "least-loaded":
            text = f"fewest requests of {flight.candidates}, others saturated, {load}"
        case "hedge":
            text = f"second attempt was faster, {load}"
        case "balanced":
            text = f"{flight.algorithm or 'balanced'} of {flight.candidates}, {load}"
        case _:
            text = "no endpoint answered"
    if flight.tried:
        text += f", after {', '.join(flight.tried)} failed"
    return text
