"""Talk to a daemon: find its socket, run a command against it, turn its errors into exit codes.

Every command that needs a daemon uses `connect` and `run_async`. The client is
`meshd.api.client.Client`; the options that choose a daemon are in `meshd.cli.options`.
"""

import asyncio
import functools
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from meshd.api.client import ApiFailure, Client, NoDaemon
from meshd.api.dto import ServiceStatus, Status
from meshd.cli import contexts, output
from meshd.model.errors import NotFound, Rejected
from meshd.spec.errors import suggest
from meshd.store import presence

INTERRUPTED = 128 + 2
"""Exit code after Ctrl-C, as shells report SIGINT."""


def default_state() -> Path:
    """Return the state directory of the chosen context, $MESHD_STATE, /var/lib/meshd for root, or a
    directory in the user's home."""
    chosen = contexts.chosen()
    if chosen is not None and chosen.state:
        return Path(chosen.state)
    given = os.environ.get("MESHD_STATE")
    if given:
        return Path(given)
    return Path("/var/lib/meshd") if os.geteuid() == 0 else Path.home() / ".local/state/meshd"


def connect(state: Path) -> Client:
    """Return a client for the daemon of that state directory, or for the one that the chosen
    context names if no state directory was given."""
    chosen = contexts.chosen()
    if chosen is not None and is_remote():
        return Client(contexts.remote(chosen))
    return Client(state / presence.API_SOCKET)


def is_remote() -> bool:
    """Whether commands talk to a daemon over TCP."""
    chosen = contexts.chosen()
    return chosen is not None and bool(chosen.url) and not _is_state_given()


def require_local(command: str) -> None:
    """Check that commands do not talk to a daemon over TCP. Raises click.UsageError."""
    chosen = contexts.chosen()
    if chosen is not None and is_remote():
        raise click.UsageError(
            f"`meshd {command}` works on the machine of the daemon only, and the context "
            f"{chosen.name!r} is {chosen.url}; use --context default, or --state"
        )


def _is_state_given() -> bool:
    """Whether --state was given to the current command."""
    current = click.get_current_context(silent=True)
    if current is None:
        return False
    return current.get_parameter_source("state") is ParameterSource.COMMANDLINE


def run_async(command: Callable[..., Coroutine[Any, Any, int | None]]) -> Callable[..., None]:
    """Turn an asynchronous command that returns an exit code into a plain one. An error of the
    daemon or of the connection becomes one line on standard error and an exit code."""

    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        try:
            code = asyncio.run(command(*arguments, **options))
        except NoDaemon as error:
            output.print_error(f"meshd: {error}")
            code = output.NO_DAEMON
        except (Rejected, NotFound, ApiFailure) as error:
            output.print_error(f"meshd: {error}")
            code = output.FAILED
        except KeyboardInterrupt:
            code = INTERRUPTED
        except BrokenPipeError:
            # The reader of our output has exited. Without this the interpreter would try to
            # flush the output again at exit, and print a traceback.
            _discard_stdout()
            code = output.OK
        except OSError as error:
            # Most likely the disk under our output is full; the unwritten rest is lost.
            _discard_stdout()
            output.print_error(f"meshd: {error}")
            code = output.FAILED
        raise SystemExit(code or output.OK)

    return run


def _discard_stdout() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def find_service(status: Status, name: str) -> ServiceStatus:
    """Return the service named `SERVICE`, or `PROJECT/SERVICE` if several projects have one.

    Raises NotFound; Rejected if the daemon stands by.
    """
    if status.standby:
        raise Rejected(f"{status.standby}; ask the meshd that leads")
    project, _, short = name.rpartition("/")
    matches = [s for s in status.services if s.name == short and project in ("", s.project)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        keys = ", ".join(f"{s.project}/{s.name}" for s in matches)
        raise NotFound(f"{name!r} is ambiguous: {keys}; use PROJECT/SERVICE")
    names = sorted({s.name for s in status.services})
    near = suggest(short, names)
    raise NotFound(f"no service {name!r}{near}; known services: {', '.join(names) or 'none'}")


def complete_service(
    context: click.Context, _: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return names of services for shell completion, if a daemon answers."""
    return _complete(context, incomplete, lambda status: [s.name for s in status.services])


def complete_service_or_replica(
    context: click.Context, _: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return names of services and replicas for shell completion, if a daemon answers."""
    return _complete(
        context,
        incomplete,
        lambda status: [
            name
            for service in status.services
            for name in (service.name, *(replica.name for replica in service.replicas))
        ],
    )


def complete_replica(
    context: click.Context, _: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return names of replicas for shell completion, if a daemon answers."""
    return _complete(
        context,
        incomplete,
        lambda status: [r.name for service in status.services for r in service.replicas],
    )


def _complete(
    context: click.Context, incomplete: str, names_of: Callable[[Status], list[str]]
) -> list[CompletionItem]:
    async def fetch() -> list[str]:
        async with connect(context.params.get("state") or default_state()) as client:
            return names_of(await client.status())

    try:
        names = asyncio.run(fetch())
    except (NoDaemon, ApiFailure, click.ClickException):
        return []
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]
