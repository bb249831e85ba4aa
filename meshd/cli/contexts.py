"""Contexts: named daemons that the command line talks to, like those of `docker context`.

`meshd.cli.session` asks which one is chosen; `meshd context` changes them. They are in
`contexts.json` in the user's configuration folder, mode 0600, because it holds tokens. The context
`default` always exists: the daemon of this machine's state directory.
"""

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Final

import click
import msgspec

from meshd.api.client import RemoteDaemon
from meshd.model.base import Value

DEFAULT: Final = "default"
META_KEY: Final = "meshd.context"
"""Where `meshd.cli.main` leaves the value of --context, in the metadata of click."""


class DaemonContext(Value, frozen=True):
    """A named daemon: `state` is its state directory on this machine, or `url` with the other
    fields is where it is reached over TCP (see `RemoteDaemon`)."""

    name: str
    state: str = ""
    url: str = ""
    token: str = ""
    ca: str = ""
    certificate: str = ""
    key: str = ""


class ContextFile(Value, frozen=True):
    """All contexts but `default`, and the name of the one that is used if none is named."""

    current: str = DEFAULT
    contexts: tuple[DaemonContext, ...] = ()


def config_file() -> Path:
    """Return the file of the contexts."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "meshd" / "contexts.json"


def read() -> ContextFile:
    """Return the stored contexts. Raises click.ClickException if the file cannot be read."""
    path = config_file()
    try:
        return msgspec.json.decode(path.read_bytes(), type=ContextFile)
    except FileNotFoundError:
        return ContextFile()
    except (OSError, msgspec.MsgspecError) as error:
        raise click.ClickException(f"{path} cannot be read: {error}") from error


def write(found: ContextFile) -> None:
    """Replace the stored contexts. Raises click.ClickException."""
    path = config_file()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A file of `tempfile` has the mode 0600 from the beginning.
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
            os.replace(name, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
            raise
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error}") from error


def chosen() -> DaemonContext | None:
    """Return the context of --context, $MESHD_CONTEXT or `meshd context use`; None for `default`.

    Raises click.UsageError if there is none of that name.
    """
    current = click.get_current_context(silent=True)
    given = current.meta.get(META_KEY) if current is not None else None
    stored = read()
    name = given or stored.current
    if name == DEFAULT:
        return None
    for context in stored.contexts:
        if context.name == name:
            return context
    known = ", ".join([DEFAULT, *(each.name for each in stored.contexts)])
    raise click.UsageError(f"no context {name!r}; known contexts: {known}")


def remote(context: DaemonContext) -> RemoteDaemon:
    """Return where the daemon of a context with a URL is reached."""
    return RemoteDaemon(context.url, context.token, context.ca, context.certificate, context.key)
