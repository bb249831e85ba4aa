"""What every command that talks to a daemon shares: which daemon, and what its errors mean."""

import asyncio
import functools
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from click.shell_completion import CompletionItem

from meshd.api.client import ApiFailure, Client, NoDaemon
from meshd.api.dto import ServiceStatus, Status
from meshd.cli import output
from meshd.model.errors import NotFound, Rejected
from meshd.spec import units
from meshd.store import presence

C = TypeVar("C", bound=Callable[..., Any])
YEAR: Final = 365 * 86400.0
"""Seconds; the longest that a duration given to a command makes sense for."""


def default_state() -> Path:
    """$MESHD_STATE, else /var/lib/meshd for root, else a folder in the user's own home."""
    given = os.environ.get("MESHD_STATE")
    if given:
        return Path(given)
    return Path("/var/lib/meshd") if os.geteuid() == 0 else Path.home() / ".local/state/meshd"


def state_option(command: C) -> C:
    """`--state DIR`, as `state`."""
    return click.option(
        "--state",
        type=click.Path(file_okay=False, resolve_path=True, path_type=Path),
        default=default_state,
        show_default="$MESHD_STATE, /var/lib/meshd for root, ~/.local/state/meshd",
        help="The daemon's state directory.",
    )(command)


def connect(state: Path) -> Client:
    """The daemon of that state directory."""
    return Client(state / presence.API_SOCKET)


def talks(command: Callable[..., Coroutine[Any, Any, int | None]]) -> Callable[..., None]:
    """Makes a plain command of an asynchronous one that returns an exit code. What goes wrong
    between here and the daemon becomes one line on standard error and its exit code."""

    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        try:
            code = asyncio.run(command(*arguments, **options))
        except NoDaemon as error:
            output.complain(f"meshd: {error}")
            code = output.NO_DAEMON
        except (Rejected, NotFound, ApiFailure) as error:
            output.complain(f"meshd: {error}")
            code = output.FAILED
        except KeyboardInterrupt:
            code = 128 + 2
        except BrokenPipeError:
            # Whoever read our output has gone; the interpreter must not try to flush it again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = output.OK
        except OSError as error:
            # A full disk under our output, most of all: what is left of it is given up.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            output.complain(f"meshd: {error}")
            code = output.FAILED
        raise SystemExit(code or output.OK)

    return run


def find_service(status: Status, name: str) -> ServiceStatus:
    """The service called `SERVICE`, or `PROJECT/SERVICE` where the former is not enough.
    Raises NoSuchThing."""
    project, _, short = name.rpartition("/")
    found = [s for s in status.services if s.name == short and project in ("", s.project)]
    if len(found) == 1:
        return found[0]
    if found:
        keys = ", ".join(f"{s.project}/{s.name}" for s in found)
        raise NotFound(f"{name!r} may be any of {keys}; name the project too")
    known = ", ".join(sorted({s.name for s in status.services})) or "none"
    raise NotFound(f"no service {name!r}; there is {known}")


def duration(text: str) -> float:
    """Seconds, from `10m`, `1h30m`, `90s` or a plain number. Raises click.BadParameter."""
    try:
        return units.parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def span(text: str) -> float:
    """A duration above zero, a year at most. Raises click.BadParameter."""
    found = duration(text)
    if not 0 < found <= YEAR:
        raise click.BadParameter(f"{text!r} is out of range; expected more than 0 and at most 365d")
    return found


def complete_service(
    context: click.Context, _: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Names of services for the shell, when a daemon answers."""
    return [
        CompletionItem(name)
        for name in _names(context, lambda status: [s.name for s in status.services])
        if name.startswith(incomplete)
    ]


def complete_replica(
    context: click.Context, _: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Names of replicas for the shell, when a daemon answers."""
    return [
        CompletionItem(name)
        for name in _names(context, lambda s: [r.name for e in s.services for r in e.replicas])
        if name.startswith(incomplete)
    ]


def _names(context: click.Context, pick: Callable[[Status], list[str]]) -> list[str]:
    async def ask() -> list[str]:
        async with connect(context.params.get("state") or default_state()) as client:
            return pick(await client.status())

    try:
        return asyncio.run(ask())
    except (NoDaemon, ApiFailure):
        return []
