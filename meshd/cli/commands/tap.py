"""`meshd tap`: watch live requests with their timing."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from meshd.cli import output
from meshd.cli.options import DURATION, output_option, service_argument, state_option
from meshd.cli.session import connect, find_service, is_remote, run_async
from meshd.telemetry.tap_watcher import Watcher
from proxy.observe.access_log import Entry
from proxy.observe.tap import Matcher, TapFilter, TapLine

C = TypeVar("C", bound=Callable[..., Any])


def request_filters(command: C) -> C:
    """Add the options that choose requests: `path`, `status`, `slower`."""
    slower = click.option(
        "--slower-than",
        "slower",
        type=DURATION,
        default="0s",
        help="Only requests that took at least this long, e.g. 200ms.",
    )
    status = click.option(
        "--status", metavar="CODE", default="", help="Only this status, e.g. 404 or 5xx."
    )
    path = click.option(
        "--path", metavar="REGEX", default="", help="Only requests whose target matches."
    )
    return path(status(slower(command)))


def make_filter(service: str, path: str, status: str, slower: float) -> TapFilter:
    """Return the filter of these options. Raises click.UsageError if one is not valid."""
    wanted = TapFilter(service, path, status, slower)
    try:
        Matcher(wanted)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    return wanted


@click.command("tap", short_help="Watch live requests with their timing.")
@service_argument(required=False)
@request_filters
@click.option("-n", "--count", type=click.IntRange(1), help="End after N requests.", metavar="N")
@output_option
@state_option
@run_async
async def command(
    service: str | None,
    path: str,
    status: str,
    slower: float,
    count: int | None,
    as_json: bool,
    state: Path,
) -> int:
    """Watch requests of SERVICE, or of all services, as they end, until Ctrl-C.

    Each line splits the time of a request: in the queue, for a connection, until the first byte,
    and for the body. Each worker sends at most 200 requests a second; the number of those that were
    left out is shown. It costs the proxy nothing while no one watches.
    """
    try:
        async with connect(state) as client:
            found = find_service(await client.status(), service) if service else None
            key = f"{found.project}/{found.name}" if found else ""
            wanted = make_filter(key, path, status, slower)
            if is_remote():
                await _show(client.tap(wanted), count, as_json)
        if not is_remote():
            with Watcher(state, wanted) as watcher:
                await _show(watcher.lines(), count, as_json)
    except asyncio.CancelledError:
        pass  # Ctrl-C ends the display; it is not an error.
    return output.OK


async def _show(lines: AsyncGenerator[TapLine], count: int | None, as_json: bool) -> None:
    """Print requests until there were `count`."""
    shown = 0
    async with contextlib.aclosing(lines):
        async for line in lines:
            _print(line, as_json)
            shown += 1
            if count is not None and shown >= count:
                break


def _print(line: TapLine, as_json: bool) -> None:
    if as_json:
        output.print_json_line(line)
        return
    if line.lost:
        output.print_error(f"({line.lost} more)")
    output.print_line(format_request(line.request))


def format_request(entry: Entry) -> str:
    """Return a request as one line."""
    colour = "red" if entry.status >= 500 else "yellow" if entry.status >= 400 else "green"
    first = [
        output.format_time(entry.time),
        click.style(str(entry.status), fg=colour),
        f"{output.format_seconds(entry.total):>8}",
    ]
    rest = [
        f"{entry.method} {entry.host}{entry.target}",
        f"[{timing(entry)}]",
        entry.endpoint or entry.service or "-",
        entry.client or "-",
    ]
    if entry.retries:
        rest.append(f"retries {entry.retries}")
    if entry.failure:
        rest.append(entry.failure + (f": {entry.detail}" if entry.detail else ""))
    if entry.trace_id:
        rest.append(f"trace {entry.trace_id}")
    return "  ".join([*first, *map(printable, rest)])


def printable(text: str) -> str:
    """Return text without control characters: clients choose most of it, and a terminal acts on
    them."""
    return text.translate(_CONTROL)


def timing(entry: Entry) -> str:
    """Return how the time of a request splits, without the parts that took none."""
    split = (
        ("queue", entry.queue),
        ("connect", entry.connect),
        ("first byte", max(0.0, entry.first_byte - entry.connect)),
        ("body", entry.body),
    )
    return (
        ", ".join(
            f"{name} {output.format_seconds(seconds)}" for name, seconds in split if seconds >= 1e-5
        )
        or "at once"
    )


_CONTROL = dict.fromkeys((*range(32), *range(127, 160)), "�")
