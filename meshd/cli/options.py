"""Options, arguments and parameter types that several commands share, each declared once.

Used by the modules in `meshd.cli.commands`. Options about a Compose file are in `spec_options`,
options about the proxy in `proxy_options`.
"""

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from meshd.cli import output
from meshd.cli.session import complete_service, default_state
from meshd.spec import units

C = TypeVar("C", bound=Callable[..., Any])
YEAR: Final = 365 * 86400.0
"""Seconds; the longest duration that an option accepts, so that no date overflows."""


class Duration(click.ParamType[float]):
    """Seconds, from `200ms`, `10m`, `1h30m` or a plain number. `positive`: more than 0 and at most
    a year."""

    name = "time"

    def __init__(self, positive: bool = False) -> None:
        self._positive = positive

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        try:
            seconds = units.parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if self._positive and not 0 < seconds <= YEAR:
            self.fail(
                f"{value!r} is out of range; expected more than 0 and at most 365d", param, ctx
            )
        return seconds


class Timestamp(click.ParamType[float]):
    """Unix time, from `14:30` (the last one: today, or yesterday if it is later than now),
    `2026-01-31 14:30:05`, or `10m` (ten minutes ago)."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        found = parse_timestamp(str(value), time.time())
        if found <= 0:
            self.fail(
                f"{value!r} is not a valid time; expected e.g. 14:30, 2026-01-31T14:30:05, "
                "or 10m (ago)",
                param,
                ctx,
            )
        return found


def parse_timestamp(text: str, now: float) -> float:
    """Return the Unix time, or a value of at most 0 if the text is not a time after 1970. `now` is
    a Unix time."""
    for pattern in ("%H:%M", "%H:%M:%S"):
        try:
            at = datetime.strptime(text, pattern).time()  # noqa: DTZ007 - local time
        except ValueError:
            continue
        today = datetime.fromtimestamp(now).astimezone().date()
        days = (today, today - timedelta(days=1))
        found = [datetime.combine(day, at).timestamp() for day in days]
        return found[0] if found[0] <= now else found[1]
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        pass
    try:
        return now - units.parse_duration(text)
    except ValueError:
        return 0.0


DURATION: Final = Duration()
POSITIVE_DURATION: Final = Duration(positive=True)
TIMESTAMP: Final = Timestamp()


def state_option(command: C) -> C:
    """`--state DIR`, as `state`."""
    return click.option(
        "--state",
        type=click.Path(file_okay=False, resolve_path=True, path_type=Path),
        metavar="DIR",
        default=default_state,
        show_default="$MESHD_STATE, /var/lib/meshd for root, ~/.local/state/meshd",
        help="State directory of the daemon.",
    )(command)


def output_option(command: C) -> C:
    """`-o json` or `-o yaml`, as `as_json`: `output` knows which one."""
    return click.option(
        "-o",
        "--output",
        "as_json",
        type=click.Choice(["table", "json", "yaml"]),
        default="table",
        show_default=True,
        callback=_choose_format,
        help="Print a table, or JSON or YAML for programs.",
    )(command)


def _choose_format(_context: click.Context, _option: click.Parameter, value: str) -> bool:
    """Return whether a program reads the output."""
    output.choose_format(value)
    return value in ("json", "yaml")


def wide_output_option(command: C) -> C:
    """The same with `-o wide`, which `output.is_wide` tells apart."""
    return click.option(
        "-o",
        "--output",
        "as_json",
        type=click.Choice(["table", "wide", "json", "yaml"]),
        default="table",
        show_default=True,
        callback=_choose_format,
        help="Print a table, one with more columns, or JSON or YAML for programs.",
    )(command)


def watch_option(command: C) -> C:
    """`--watch` and `--interval`, as `watch` and `interval`."""
    command = click.option(
        "--interval",
        type=DURATION,
        default="2s",
        show_default=True,
        help="Time between two updates of --watch.",
    )(command)
    return click.option("-w", "--watch", is_flag=True, help="Show changes until Ctrl-C.")(command)


def service_argument(required: bool = True) -> Callable[[C], C]:
    """`SERVICE`, as `service`."""
    return click.argument("service", required=required, shell_complete=complete_service)


def project_option(help: str) -> Callable[[C], C]:
    """`--project NAME`, as `project`."""
    return click.option("--project", metavar="NAME", help=help)


def timeout_option(default: str, help: str) -> Callable[[C], C]:
    """`--timeout TIME`, as `seconds`."""
    return click.option(
        "--timeout", "seconds", type=DURATION, default=default, show_default=True, help=help
    )


def detach_option(help: str) -> Callable[[C], C]:
    """`-d`, as `detach`."""
    return click.option("-d", "--detach", is_flag=True, help=help)


def follow_option(help: str) -> Callable[[C], C]:
    """`-f`, as `follow`."""
    return click.option("-f", "--follow", is_flag=True, help=help)


def tail_option(default: int, maximum: int, help: str, minimum: int = 1) -> Callable[[C], C]:
    """`-n NUMBER`, as `tail`."""
    return click.option(
        "-n",
        "--tail",
        type=click.IntRange(minimum, maximum),
        metavar="N",
        default=default,
        show_default=True,
        help=help,
    )
