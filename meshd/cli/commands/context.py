"""`meshd context`: manage the daemons that `meshd --context NAME` talks to."""

import ipaddress
import os
import re
from pathlib import Path
from typing import TextIO
from urllib.parse import urlsplit

import click
import msgspec

from meshd.cli import contexts, output
from meshd.cli.contexts import DEFAULT, DaemonContext
from meshd.cli.options import output_option

COLUMNS = ("context", "", "daemon", "sign-in")
_FILE = click.Path(exists=True, dir_okay=False)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


@click.group("context", short_help="Manage the daemons that commands talk to.")
def command() -> None:
    """Manage named daemons, like `docker context`.

    `meshd --context NAME COMMAND` talks to that daemon; `meshd context use NAME` makes it the
    default. The context `default` is the daemon of this machine.
    """


@command.command("create", short_help="Add a daemon.")
@click.argument("name")
@click.option("--url", metavar="URL", help="Where it is reached: https://HOST:PORT.")
@click.option(
    "--token-file",
    type=click.File("r"),
    help="File with the token that `meshd token create` printed; - for standard input.",
)
@click.option(
    "--ca",
    type=_FILE,
    metavar="FILE",
    help="Authorities of its certificate (PEM). Default: those of the system.",
)
@click.option(
    "--cert",
    type=_FILE,
    metavar="FILE",
    help="Own certificate (PEM), to sign in with instead of a token.",
)
@click.option(
    "--key", type=_FILE, metavar="FILE", help="Private key of --cert. Default: in its file."
)
@click.option(
    "--state",
    type=click.Path(file_okay=False, resolve_path=True, path_type=Path),
    metavar="DIR",
    help="State directory of a daemon on this machine.",
)
def create(
    name: str,
    url: str | None,
    token_file: TextIO | None,
    ca: str | None,
    cert: str | None,
    key: str | None,
    state: Path | None,
) -> None:
    """Add the context NAME: a daemon on this machine (--state) or over TCP (--url)."""
    if not _NAME.fullmatch(name):
        raise click.UsageError(f"{name!r} is not a valid name; expected e.g. prod")
    stored = contexts.read()
    if name == DEFAULT or any(each.name == name for each in stored.contexts):
        raise click.UsageError(f"the context {name!r} exists; `meshd context rm` removes it")
    if (url is None) == (state is None):
        raise click.UsageError("either --url or --state is needed")
    token = token_file.read().strip() if token_file is not None else ""
    if url is not None:
        problem = url_problem(url)
        if problem:
            raise click.UsageError(f"--url {url}: {problem}")
        if token_file is not None and not token:
            raise click.UsageError("--token-file: the file is empty")
        if not token and not cert:
            raise click.UsageError("--url needs --token-file or --cert to sign in with")
    elif token or ca or cert or key:
        raise click.UsageError("--token-file, --ca, --cert and --key go with --url")
    made = DaemonContext(
        name, str(state or ""), url or "", token, _absolute(ca), _absolute(cert), _absolute(key)
    )
    contexts.write(msgspec.structs.replace(stored, contexts=(*stored.contexts, made)))
    output.print_line(
        f"{name}: {made.url or made.state}; `meshd context use {name}` makes it the default"
    )


def _absolute(path: str | None) -> str:
    return os.path.abspath(path) if path else ""


def url_problem(url: str) -> str:
    """Return why a URL cannot be that of a daemon; empty if it can."""
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except ValueError as error:
        return str(error)
    rest = parts.path.strip("/") or parts.query or parts.fragment or parts.username
    if parts.scheme not in ("http", "https") or not host or not port or rest:
        return "expected https://HOST:PORT"
    if parts.scheme == "http" and not _is_loopback(host):
        return "a token must not be sent in clear text; expected https://HOST:PORT"
    return ""


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@command.command("ls", short_help="List the contexts.")
@output_option
def list_contexts(as_json: bool) -> None:
    """List the contexts; `*` marks the default one."""
    stored = contexts.read()
    found = [DaemonContext(DEFAULT), *stored.contexts]
    if as_json:
        output.print_json(
            [
                {
                    "name": each.name,
                    "current": each.name == stored.current,
                    "state": each.state,
                    "url": each.url,
                    "sign_in": _sign_in(each),
                }
                for each in found
            ]
        )
        return
    output.print_table(
        COLUMNS,
        [
            [
                each.name,
                "*" if each.name == stored.current else "",
                each.url or each.state or "this machine",
                _sign_in(each),
            ]
            for each in found
        ],
    )


def _sign_in(context: DaemonContext) -> str:
    if context.token:
        return "token"
    return "certificate" if context.certificate else ""


@command.command("use", short_help="Choose the default context.")
@click.argument("name")
def use(name: str) -> None:
    """Make NAME the context of commands without --context."""
    stored = contexts.read()
    _find(stored, name)
    contexts.write(msgspec.structs.replace(stored, current=name))
    output.print_line(f"commands without --context now use {name}")


@command.command("rm", short_help="Remove a context.")
@click.argument("name")
def remove(name: str) -> None:
    """Remove the context NAME. The daemon and its token stay as they are."""
    stored = contexts.read()
    if name == DEFAULT:
        raise click.UsageError("the context 'default' cannot be removed")
    found = _find(stored, name)
    left = tuple(each for each in stored.contexts if each is not found)
    current = DEFAULT if stored.current == name else stored.current
    contexts.write(contexts.ContextFile(current, left))
    output.print_line(f"{name}: removed")


def _find(stored: contexts.ContextFile, name: str) -> DaemonContext:
    for each in (DaemonContext(DEFAULT), *stored.contexts):
        if each.name == name:
            return each
    known = ", ".join([DEFAULT, *(each.name for each in stored.contexts)])
    raise click.UsageError(f"no context {name!r}; known contexts: {known}")
