"""`meshd proxy`: a stand-alone reverse proxy."""

import os
import sys
from typing import Any, NoReturn

import click
import msgspec

import proxy
from meshd.spec.errors import SpecError
from meshd.spec.model.proxy_settings import MissingExtra, require_otlp
from meshd.standalone.build import (
    ResolvedAddresses,
    UnknownHost,
    build_supervisor_config,
    resolve_host,
    resolve_hosts,
)
from meshd.standalone.settings import RawSettings, StandaloneSettings, read_settings
from proxy.wire.snapshot import Algorithm

_ALGORITHMS = list(Algorithm.__args__)  # type: ignore[attr-defined]


@click.command("proxy")
@click.option("--listen", multiple=True, metavar="ADDR",
              help="Accept here: HOST:PORT, [V6]:PORT or unix:PATH; port 0 takes a free one. "
              "Default 127.0.0.1:8080.")  # fmt: skip
@click.option("--to", multiple=True, metavar="HOST:PORT", help="Balance over these.")
@click.option("--workers", type=click.IntRange(1, 256), help="Worker processes; default 1.")
@click.option("--config", "file", type=click.Path(dir_okay=False), metavar="FILE",
              help="YAML with any of these settings and the policies of x-mesh; flags win. "
              "Read again at SIGHUP.")  # fmt: skip
@click.option("--admin", metavar="ADDR", help="Serve /metrics and /healthz here.")
@click.option("--pid-file", metavar="FILE", help="Write the process id here.")
@click.option("--health-path", metavar="PATH", help="Probe endpoints here; without, nowhere.")
@click.option("--health-interval", metavar="TIME", help="Between two probes; default 1s.")
@click.option("--balance", type=click.Choice(_ALGORITHMS), help="Default hot-cold.")
@click.option("--connect-timeout", metavar="TIME", help="Default 2s.")
@click.option("--first-byte-timeout", metavar="TIME", help="Default 60s.")
@click.option("--idle-timeout", metavar="TIME", help="Between two reads of a body; default 5m.")
@click.option("--request-timeout", metavar="TIME", help="Over a whole exchange; default none.")
@click.option("--retries", type=click.IntRange(0), help="Tries after the first; default 2.")
@click.option("--drain", metavar="TIME", help="For requests under way at the end; default 30s.")
@click.option("--trusted-proxy", multiple=True, metavar="CIDR",
              help="Believe forwarded headers from here.")  # fmt: skip
@click.option("--access-log", type=click.Choice(["off", "sampled", "on"]), help="Default off.")
@click.option("--access-log-format", type=click.Choice(["json", "combined"]), help="Default json.")
@click.option("--access-log-sample", type=click.FloatRange(0, 1), metavar="SHARE",
              help="Of the requests, when sampled; default 0.01.")  # fmt: skip
@click.option("--access-log-file", metavar="FILE", help="Default standard output.")
@click.option("--otlp", metavar="URL", help="Send spans here by OTLP/HTTP; needs meshd[otlp].")
@click.option("--otlp-sample", metavar="SHARE", help="Of the requests; default 1%.")
def command(file: str | None, **options: Any) -> None:
    """Serve as a reverse proxy until Ctrl-C, which lets requests under way finish.

    TIME is like 200ms, 5s or 1m30s. SIGHUP reads the file again and replaces the workers,
    SIGUSR2 goes on as the version that is installed by then; neither refuses a connection. A
    second SIGTERM or Ctrl-C ends at once. Exit codes: 0 ended in order, 1 in haste, 2 could
    not start.
    """
    if not getattr(proxy, "MESHD", False):
        _refuse(f"{proxy.__file__} is another package named 'proxy'; uninstall that one")
    flags = raw_flags(options)
    path = os.path.abspath(file) if file else ""
    try:
        settings = read_settings(path, flags)
        require_otlp(settings)
        resolved = resolve_hosts(settings, resolve_host)
    except (SpecError, UnknownHost, MissingExtra) as error:
        _refuse(str(error))
    _become_supervisor(settings, resolved, path, flags)


_PLACES = {
    "listen": ("listen",),
    "to": ("to",),
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
    "drain": ("drain",),
    "access_log": ("access_log", "mode"),
    "access_log_format": ("access_log", "format"),
    "access_log_sample": ("access_log", "sample"),
    "access_log_file": ("access_log", "path"),
    "otlp": ("otlp", "endpoint"),
    "otlp_sample": ("otlp", "sample"),
}
"""Where each flag stands in the file."""


def raw_flags(options: dict[str, Any]) -> RawSettings:
    """The flags that were given, in the shape of the file."""
    raw: RawSettings = {}
    for name, value in options.items():
        if value is None or value == ():
            continue
        *sections, last = _PLACES[name]
        place = raw
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = list(value) if isinstance(value, tuple) else value
    return raw


def _become_supervisor(
    settings: StandaloneSettings, resolved: ResolvedAddresses, file: str, flags: RawSettings
) -> NoReturn:
    """Turn into the supervisor, keeping the process id. The configuration lies in memory, as
    a file without a name."""
    config = build_supervisor_config(settings, resolved, file, flags)
    memory = os.memfd_create("meshd-proxy", 0)
    os.write(memory, msgspec.json.encode(config))
    argv = [sys.executable, "-P", "-m", "proxy", "--config", f"/dev/fd/{memory}"]
    os.execv(sys.executable, argv)  # noqa: S606 - ourselves


def _refuse(why: str) -> NoReturn:
    click.echo(f"meshd proxy: {why}", err=True)
    raise SystemExit(2)
