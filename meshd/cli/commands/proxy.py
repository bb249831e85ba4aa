"""`meshd proxy`: a stand-alone reverse proxy, without a control process.

The settings are read by `meshd.standalone`; this process then becomes the supervisor
(`python -m proxy`).
"""

import asyncio
import os
import sys
from typing import Any, NoReturn

import click
import msgspec

from meshd.cli import proxy_options
from meshd.spec.errors import SpecError
from meshd.spec.model.proxy_settings import MissingExtra, require_otlp
from meshd.standalone.build import (
    RESOLVE_INTERVAL,
    ResolvedAddresses,
    build_supervisor_config,
    list_services,
    resolve_host,
    resolve_hosts,
)
from meshd.standalone.listeners import find_problem
from meshd.standalone.memory import create_memory_file
from meshd.standalone.settings import RawSettings, StandaloneSettings, read_settings
from proxy.ipc.signals import hold_signals
from proxy.wire.snapshot import Algorithm

_ALGORITHMS = list(Algorithm.__args__)  # type: ignore[attr-defined]


@click.command("proxy", short_help="Run a stand-alone reverse proxy.")
@proxy_options.listen_option("127.0.0.1:8080")
@click.option(
    "--to",
    multiple=True,
    metavar="HOST:PORT",
    help="Endpoint to balance over: HOST:PORT, unix:PATH, or https://HOST with an optional port.",
)
@click.option(
    "--tcp",
    multiple=True,
    metavar="LISTEN=TARGET[,TARGET...]",
    help="Pass TCP connections to LISTEN on to one of the targets, as they are. Repeatable; needs "
    "no --to.",
)
@proxy_options.workers_option(None, "1")
@click.option(
    "--config",
    "file",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="YAML file with any of these settings and the policies of x-mesh. Options override it. "
    "SIGHUP reloads it.",
)
@click.option("--admin", metavar="ADDR", help="Serve /metrics and /healthz at this address.")
@click.option("--pid-file", metavar="FILE", help="Write the process id to this file.")
@click.option(
    "--health-path", metavar="PATH", help="Path to probe on each endpoint. Default: no probes."
)
@click.option("--health-interval", metavar="TIME", help="Time between two probes. Default: 1s.")
@click.option(
    "--balance",
    type=click.Choice(_ALGORITHMS),
    help="Load balancing algorithm. Default: hot-cold.",
)
@click.option(
    "--connect-timeout", metavar="TIME", help="Time to connect to an endpoint. Default: 2s."
)
@click.option(
    "--first-byte-timeout",
    metavar="TIME",
    help="Time until the first byte of a response. Default: 60s.",
)
@click.option(
    "--idle-timeout", metavar="TIME", help="Time between two reads of a body. Default: 5m."
)
@click.option(
    "--request-timeout", metavar="TIME", help="Time for a whole exchange. Default: no limit."
)
@click.option(
    "--retries",
    type=click.IntRange(0),
    metavar="N",
    help="Attempts after the first one. Default: 2.",
)
@click.option(
    "--drain", metavar="TIME", help="Time for open requests to finish at the end. Default: 30s."
)
@proxy_options.proxy_options(default_log_file="standard output")
def command(file: str | None, **options: Any) -> None:
    """Run a reverse proxy until Ctrl-C, which lets open requests finish.

    TIME is e.g. 200ms, 5s or 1m30s. SIGHUP reads the file and opens the log files again; SIGUSR2
    continues with the version that is installed now. Neither refuses a connection. A second
    SIGTERM or Ctrl-C ends the proxy at once. Exit codes: 0 ended in order, 1 ended at once, 2 could
    not start.
    """
    certificates = options.pop("tls_cert"), options.pop("tls_key")
    flags = raw_flags(options)
    if certificates != ((), ()):
        flags["tls"] = proxy_options.given_certificates(*certificates)
    path = os.path.abspath(file) if file else ""
    try:
        settings = read_settings(path, flags)
        require_otlp(settings)
    except (SpecError, MissingExtra) as error:
        _exit_with(str(error))
    problem = find_problem(settings, settings.listen)
    if problem is not None:
        _exit_with(problem)
    resolved, problems = asyncio.run(resolve_hosts(settings, resolve_host, {}))
    if not all(list_services(settings, resolved).values()):
        _exit_with("; ".join(problems.values()))
    for problem in problems.values():
        click.echo(f"meshd proxy: {problem}; asking again every {RESOLVE_INTERVAL:g} s", err=True)
    _become_supervisor(settings, resolved, path, flags)


_FIELDS = {
    "listen": ("listen",),
    "to": ("to",),
    "tcp": ("tcp",),
    "workers": ("workers",),
    "admin": ("admin",),
    "pid_file": ("pid_file",),
    "trusted_proxy": ("trusted_proxies",),
    "health_path": ("health", "path"),
    "health_interval": ("health", "interval"),
    "balance": ("balance", "algorithm"),
    "connect_timeout": ("timeouts", "connect"),
    "first_byte_timeout": ("timeouts", "first_byte"),
    "idle_timeout": ("timeouts", "idle"),
    "request_timeout": ("timeouts", "request"),
    "retries": ("retries", "attempts"),
    "drain": ("drain", "requests"),
    "access_log": ("access_log", "mode"),
    "access_log_format": ("access_log", "format"),
    "access_log_sample": ("access_log", "sample"),
    "access_log_file": ("access_log", "path"),
    "otlp": ("otlp", "endpoint"),
    "otlp_sample": ("otlp", "sample"),
}
"""Path in the file of the setting that each option overrides."""


def raw_flags(options: dict[str, Any]) -> RawSettings:
    """Return the given options as a tree with the structure of the file."""
    raw: RawSettings = {}
    for name, value in options.items():
        if value is None or value == ():
            continue
        *sections, last = _FIELDS[name]
        mapping = raw
        for section in sections:
            mapping = mapping.setdefault(section, {})
        mapping[last] = list(value) if isinstance(value, tuple) else value
    return raw


def _become_supervisor(
    settings: StandaloneSettings, resolved: ResolvedAddresses, file: str, flags: RawSettings
) -> NoReturn:
    """Replace this process by the supervisor; the process id stays the same. The configuration is
    passed in an anonymous memory file."""
    config = build_supervisor_config(settings, resolved, file, flags, create_memory_file())
    memory = os.memfd_create("meshd-proxy", 0)
    os.write(memory, msgspec.json.encode(config))
    argv = [sys.executable, "-P", "-m", "proxy", "--config", f"/dev/fd/{memory}"]
    hold_signals()  # until the supervisor has its handlers
    os.execv(sys.executable, argv)  # noqa: S606 - our own interpreter


def _exit_with(reason: str) -> NoReturn:
    click.echo(f"meshd proxy: {reason}", err=True)
    raise SystemExit(2)
