"""The options of `meshd up` for the proxy as a whole, laid over the Compose file's own.

They hold for the daemon from its start; a command that joins one which runs can only tell that
it asks for something else.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
from pydantic import ValidationError

from meshd.cli import daemon_process, output
from meshd.spec.model.proxy_settings import MissingExtra, ProxySettings, require_otlp

if TYPE_CHECKING:
    from meshd.spec.compose import LoadedProject

C = TypeVar("C", bound=Callable[..., Any])
_LOG: Final = {
    "access_log": "mode",
    "access_log_format": "format",
    "access_log_file": "path",
    "access_log_sample": "sample",
}
"""Which part of the access log each option sets."""


def front_options(command: C) -> C:
    """`--trusted-proxy` and those of the access log."""
    for option in (
        click.option("--otlp-sample", metavar="SHARE", help="Of the requests; default 1%."),
        click.option("--otlp", metavar="URL",
                     help="Send spans here by OTLP/HTTP; needs meshd[otlp]."),
        click.option("--access-log-sample", type=click.FloatRange(0, 1), metavar="SHARE",
                     help="Of the requests, when sampled; default 0.01."),
        click.option("--access-log-file", metavar="FILE",
                     help="Default access.log in the state directory."),
        click.option("--access-log-format", type=click.Choice(["json", "combined"]),
                     help="Default json."),
        click.option("--access-log", type=click.Choice(["off", "sampled", "on"]),
                     help="A line a request; default off."),
        click.option("--trusted-proxy", multiple=True, metavar="CIDR",
                     help="Believe forwarded headers from here."),
    ):  # fmt: skip
        command = option(command)
    return command


def chosen(given: Mapping[str, Any], loaded: "LoadedProject | None") -> ProxySettings:
    """What the options say, over what the file says at its top under `x-mesh`."""
    raw = loaded.proxy_settings.model_dump() if loaded else ProxySettings().model_dump()
    log = raw["access_log"]
    if log["path"] and loaded:
        log["path"] = str(Path(loaded.project.source).parent / log["path"])
    for option, part in _LOG.items():
        if given[option] is not None:
            log[part] = given[option]
    if given["access_log_file"]:
        log["path"] = os.path.abspath(given["access_log_file"])
    if given["trusted_proxy"]:
        raw["trusted_proxies"] = given["trusted_proxy"]
    if given["otlp"]:
        raw["otlp"] = {**(raw["otlp"] or {}), "endpoint": given["otlp"]}
    if given["otlp_sample"]:
        raw["otlp"] = {**(raw["otlp"] or {}), "sample": given["otlp_sample"]}
    try:
        found = ProxySettings.model_validate(raw)
        require_otlp(found)
    except ValidationError as error:
        first = error.errors()[0]
        option = "--trusted-proxy" if first["loc"][0] == "trusted_proxies" else "--otlp"
        text = str(first["msg"]).removeprefix("Value error, ")
        raise click.UsageError(f"{option}: {text}") from error
    except MissingExtra as error:
        raise click.UsageError(str(error)) from error
    return found


def compare(wish: daemon_process.Wish, listen: tuple[str, ...] = ()) -> None:
    """Tells where something is asked for that the daemon which runs was not started with;
    `listen` is what --listen gave."""
    there = daemon_process.listens_on(wish.state)
    if listen and there and set(listen) != set(there):
        output.complain(
            f"warning: the daemon listens on {', '.join(there)}, not on {', '.join(listen)}, which "
            "holds from its start: `meshd down --all`, then `meshd up`"
        )
    if wish.front != ProxySettings() and not daemon_process.runs_with(wish):
        output.complain(
            "warning: the daemon runs with another access log, trusted proxies or spans than asked "
            "for here; they hold from its start: `meshd down --all`, then `meshd up`"
        )
