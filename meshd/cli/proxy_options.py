"""Options about the proxy as a whole: access log, trusted proxies, tracing.

`meshd up` and `meshd proxy` share them. For `meshd up` they override the Compose file's top-level
`x-mesh`, and take effect only when the daemon starts: `warn_if_different` compares them with the
options of a daemon that already runs.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
from pydantic import ValidationError

from meshd.cli import daemon_process, output
from meshd.model.node_proxy import PEER_PORT
from meshd.spec.model.proxy_settings import MissingExtra, ProxySettings, require_otlp
from meshd.standalone.listeners import resolve_files

if TYPE_CHECKING:
    from meshd.spec.compose import LoadedProject

C = TypeVar("C", bound=Callable[..., Any])
_RESTART: Final = "restart it to change that: `meshd down --all`, then `meshd up`"
_LOG_FIELDS: Final = {
    "access_log": "mode",
    "access_log_format": "format",
    "access_log_file": "path",
    "access_log_sample": "sample",
}
"""Field of `AccessLogSettings` that each option sets."""


def listen_option(default: str) -> Callable[[C], C]:
    """`--listen ADDR`, repeatable, as `listen`; empty if not given."""
    return click.option(
        "--listen",
        multiple=True,
        metavar="ADDR",
        help="Accept clients at this address: HOST:PORT, [IPV6]:PORT or unix:PATH; port 0 picks a "
        f"free port. Default: {default}.",
    )


def peer_listen_option(command: C) -> C:
    """`--peer-listen ADDR`, as `peer_listen`."""
    return click.option(
        "--peer-listen",
        metavar="ADDR",
        default=f"0.0.0.0:{PEER_PORT}",
        show_default=True,
        help="Swarm only: accept the proxies of other nodes at this HOST:PORT, by TLS with "
        "certificates of this mesh.",
    )(command)


def workers_option(default: Callable[[], int] | None, shown: str) -> Callable[[C], C]:
    """`--workers N`, as `workers`."""
    return click.option(
        "--workers",
        type=click.IntRange(1, 256),
        metavar="N",
        default=default,
        show_default=shown,
        help="Worker processes of the proxy.",
    )


def proxy_options(default_log_file: str) -> Callable[[C], C]:
    """`--trusted-proxy`, the options of the access log, and those of tracing. All are None or
    empty if not given, so that a file's settings apply."""
    options = (
        click.option(
            "--tls-cert",
            multiple=True,
            metavar="FILE",
            help="Serve HTTPS with this certificate (PEM, followed by its chain). Several are "
            "chosen by the client's server name.",
        ),
        click.option(
            "--tls-key",
            multiple=True,
            metavar="FILE",
            help="Private key of a --tls-cert, in the same order. Default: in its file.",
        ),
        click.option(
            "--trusted-proxy",
            multiple=True,
            metavar="CIDR",
            help="Trust the forwarded headers (X-Forwarded-For, ...) of clients in this network; "
            "unix:PATH for those of a Unix socket.",
        ),
        click.option(
            "--access-log",
            type=click.Choice(["off", "sampled", "on"]),
            help="Write one line per request, or per sampled request. Default: off.",
        ),
        click.option(
            "--access-log-format",
            type=click.Choice(["json", "combined"]),
            help="Format of the lines. Default: json.",
        ),
        click.option(
            "--access-log-sample",
            type=click.FloatRange(0, 1),
            metavar="FRACTION",
            help="Fraction of the requests that `sampled` logs. Default: 0.01.",
        ),
        click.option(
            "--access-log-file",
            metavar="FILE",
            help=f"File of the access log. Default: {default_log_file}.",
        ),
        click.option(
            "--otlp",
            metavar="URL",
            help="Send trace spans to this OTLP/HTTP endpoint. Needs meshd[otlp].",
        ),
        click.option(
            "--otlp-sample", metavar="SHARE", help="Share of the requests to trace. Default: 1%."
        ),
    )

    def add(command: C) -> C:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def given_certificates(certs: Sequence[str], keys: Sequence[str]) -> dict[str, Any]:
    """Return the TLS settings of --tls-cert and --tls-key. Raises click.UsageError."""
    if keys and len(keys) != len(certs):
        raise click.UsageError(
            f"--tls-key: {len(keys)} keys for {len(certs)} certificates; expected one for each "
            "--tls-cert, or none"
        )
    files = zip(certs, keys or [""] * len(certs), strict=True)
    paths = [
        {"cert": os.path.abspath(cert), "key": os.path.abspath(key) if key else ""}
        for cert, key in files
    ]
    return {"cert": "", "key": "", "certificates": paths}


def merge(given: Mapping[str, Any], loaded: "LoadedProject | None") -> ProxySettings:
    """Return the settings of the Compose file with the given options on top.

    Raises click.UsageError, naming the option.
    """
    settings = ProxySettings()
    if loaded:
        settings = resolve_files(loaded.proxy_settings, Path(loaded.project.source).parent)
    raw = settings.model_dump()
    log = raw["access_log"]
    if log["path"] and loaded:
        log["path"] = str(Path(loaded.project.source).parent / log["path"])
    for option, field in _LOG_FIELDS.items():
        if given[option] is not None:
            log[field] = given[option]
    if given["tls_cert"] or given["tls_key"]:
        own = given_certificates(given["tls_cert"], given["tls_key"])
        raw["tls"] = {**(raw["tls"] or {}), **own}
    if given["access_log_file"]:
        log["path"] = os.path.abspath(given["access_log_file"])
    if given["trusted_proxy"]:
        raw["trusted_proxies"] = given["trusted_proxy"]
    if given["otlp"]:
        raw["otlp"] = {**(raw["otlp"] or {}), "endpoint": given["otlp"]}
    if given["otlp_sample"]:
        raw["otlp"] = {**(raw["otlp"] or {}), "sample": given["otlp_sample"]}
    try:
        settings = ProxySettings.model_validate(raw)
        require_otlp(settings)
    except ValidationError as error:
        first = error.errors()[0]
        option = _option_of(first["loc"])
        text = str(first["msg"]).removeprefix("Value error, ")
        raise click.UsageError(f"{option}: {text}") from error
    except MissingExtra as error:
        raise click.UsageError(str(error)) from error
    return settings


def _option_of(location: tuple[int | str, ...]) -> str:
    """Return the option that set the field at `location` in `ProxySettings`."""
    if location[0] == "tls":
        return "--tls-cert"
    if location[0] == "trusted_proxies":
        return "--trusted-proxy"
    return "--otlp-sample" if location[-1] == "sample" else "--otlp"


def warn_if_different(
    options: daemon_process.DaemonOptions, listen: tuple[str, ...] = (), metrics: str = ""
) -> None:
    """Print a warning for each option that the running daemon was not started with. `listen` are
    the addresses given by --listen, and `metrics` that of --metrics; empty: not compared."""
    serves = daemon_process.metrics_address(options.state)
    if metrics and serves and metrics != serves:
        output.print_error(
            f"warning: the daemon serves metrics at {serves}, not at {metrics}; {_RESTART}"
        )
    current = daemon_process.listen_addresses(options.state)
    if listen and current and set(listen) != set(current):
        output.print_error(
            f"warning: the daemon listens on {', '.join(current)}, not on {', '.join(listen)}; "
            + _RESTART
        )
    if options.api is not None and not daemon_process.has_api_settings(options):
        output.print_error(
            f"warning: the daemon runs with different settings for the API over TCP; {_RESTART}"
        )
    is_ui_given = options.ui is None or options.ui.strict
    if is_ui_given and not daemon_process.has_ui_settings(options):
        output.print_error(
            f"warning: the daemon runs with different settings for the web page; {_RESTART}"
        )
    if options.proxy != ProxySettings() and not daemon_process.has_proxy_settings(options):
        output.print_error(
            "warning: the daemon runs with different settings for the access log, trusted proxies "
            f"or tracing; {_RESTART}"
        )
