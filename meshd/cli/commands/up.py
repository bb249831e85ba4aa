"""`meshd up`: start an application, and a daemon if none runs.

The daemon is started by `meshd.cli.daemon_process`; what follows is in `meshd.cli.foreground`.
"""

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

import click
from click.core import ParameterSource

from meshd.api.tcp_address import TcpSettings
from meshd.cli import daemon_process, foreground, output, proxy_options, spec_options
from meshd.cli.api_options import api_options
from meshd.cli.options import detach_option, output_option, state_option, timeout_option
from meshd.cli.session import connect, require_local, run_async
from meshd.cli.stop_signals import StopRequested, StopSignals
from meshd.model.errors import BadAuthority
from meshd.model.node_proxy import NODE_PORT
from meshd.spec.model import Project
from meshd.spec.model.proxy_settings import find_unused_listeners
from meshd.standalone.listeners import find_problem
from meshd.ui.settings import PageSettings

LISTEN = "127.0.0.1:8080"
METRICS = "127.0.0.1:9900"
START_MARGIN: Final = 60.0
"""Seconds in addition to the longest start period, for images and for services that others wait
for."""
MAX_DEFAULT_WORKERS = 4
"""Workers by default on a large machine: the replicas need CPUs too."""


def default_workers() -> int:
    """Return the number of CPUs that this process may use, at most four."""
    return min(MAX_DEFAULT_WORKERS, len(os.sched_getaffinity(0)))


LEASE_NAME: Final = re.compile(r"[\w-]{1,40}", re.ASCII)
"""What the names of configs in a Swarm may have."""


def check_lease(_context: click.Context, _option: click.Parameter, name: str) -> str:
    """Return the name of a lease, which is part of names in the Swarm."""
    if name and not LEASE_NAME.fullmatch(name):
        raise click.BadParameter(f"{name!r} is not valid; expected letters, digits, - and _")
    return name


@click.command("up", short_help="Start an application.")
@spec_options.spec_options
@click.option(
    "--runtime",
    type=click.Choice(["auto", "docker", "process", "swarm"]),
    default="auto",
    show_default=True,
    help="Where replicas run: in containers, as local processes, or on the nodes of a Swarm with a "
    "manager on this host. auto: containers if possible; prints its choice and the reason.",
)
@proxy_options.listen_option(LISTEN)
@click.option(
    "--metrics",
    default=METRICS,
    metavar="ADDR",
    show_default=True,
    help="Address of /metrics, /healthz and /status.",
)
@proxy_options.workers_option(default_workers, "one per CPU, at most 4")
@click.option(
    "--starts",
    "start_limit",
    type=click.IntRange(0, 1024),
    metavar="N",
    default=0,
    show_default="one per CPU, at least 2",
    help="Replicas that may start at once on a node. Replacements for failed replicas go first.",
)
@proxy_options.proxy_options(default_log_file="access.log in the state directory")
@api_options
@detach_option("Return when everything is ready, and leave the daemon running.")
@click.option(
    "--adopt",
    is_flag=True,
    help="Start without a Compose file, and only adopt containers with mesh.* labels.",
)
@click.option(
    "--no-adopt",
    is_flag=True,
    help="Do not adopt containers that something else started, whatever their labels.",
)
@click.option(
    "--no-filter",
    is_flag=True,
    help="Docker only: do not limit what containers of internal networks reach on the host.",
)
@click.option(
    "--lease",
    metavar="NAME",
    default="",
    callback=check_lease,
    help="Swarm only: of the daemons on several managers with this name, one leads and the others "
    "stand by; one of them takes over in seconds when it ends.",
)
@click.option(
    "--node-listen",
    metavar="ADDR",
    default="",
    help="Swarm only: feed the proxies of other nodes (`meshd node join`) at this HOST:PORT, by "
    f"TLS with certificates of this mesh. Default: 0.0.0.0:{NODE_PORT}.",
)
@click.option(
    "--authority-file",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, resolve_path=True),
    help="Swarm only: the certificate authority of the mesh, made by `meshd node authority`, such "
    "as a Docker secret. Default: it is made at the first start and kept in the state.",
)
@proxy_options.peer_listen_option
@click.option(
    "--allow-clear-text",
    is_flag=True,
    help="Swarm only: also use nodes without a proxy (`meshd node join`); requests to replicas "
    "there, and their calls, are not encrypted.",
)
@click.option(
    "--no-record",
    is_flag=True,
    help="Do not remember the last requests in the proxy workers for `meshd record`.",
)
@spec_options.take_over_option
@timeout_option("2m", "Time for everything to become ready.")
@output_option
@state_option
@run_async
async def command(
    files: tuple[Path, ...],
    project: str | None,
    profiles: tuple[str, ...],
    runtime: Literal["auto", "docker", "process", "swarm"],
    listen: tuple[str, ...],
    metrics: str,
    workers: int,
    start_limit: int,
    detach: bool,
    adopt: bool,
    no_adopt: bool,
    no_filter: bool,
    lease: str,
    node_listen: str,
    authority_file: str | None,
    peer_listen: str,
    allow_clear_text: bool,
    no_record: bool,
    take_over: bool,
    seconds: float,
    as_json: bool,
    state: Path,
    api: TcpSettings | None,
    ui: PageSettings | None,
    **given: Any,
) -> int:
    """Start the services of a Compose file, and a daemon if none runs; then show events.

    Ctrl-C stops the services and the daemon in order. With --detach they keep running; `meshd
    down` stops them. If a daemon runs already, the services are deployed to it, and Ctrl-C
    leaves them running; so do they with --lease, where another daemon leads on.
    """
    require_local("up")
    given_metrics = metrics if is_given("metrics") else ""
    if adopt and files:
        raise click.UsageError("--adopt and -f exclude each other")
    if adopt and no_adopt:
        raise click.UsageError("--adopt and --no-adopt exclude each other")
    loaded = None if adopt else spec_options.load(files, project, profiles)
    spec = loaded.project if loaded else None
    if spec is not None and not is_given("seconds"):
        seconds = max(seconds, START_MARGIN + longest_start(spec))
    settings = proxy_options.merge(given, loaded)
    for unused in find_unused_listeners(settings, listen or (LISTEN,)):
        raise click.UsageError(
            f"x-mesh.listeners: {unused} is not an address of --listen; add --listen {unused}"
        )
    addresses = listen or default_listen(spec)
    problem = find_problem(settings, addresses)
    if problem is not None:
        raise click.UsageError(problem)
    with StopSignals() as signals:
        try:
            daemon = None
            daemon_process.prepare_state(state)
            options = daemon_process.DaemonOptions(
                state=state,
                runtime=runtime,
                listen=addresses,
                metrics=metrics,
                workers=workers,
                start_limit=start_limit,
                adopt=not no_adopt,
                proxy=settings,
                filter_host=not no_filter,
                record=not no_record,
                api=api,
                ui=ui,
                lease=lease,
                node_listen=node_listen or (f"0.0.0.0:{NODE_PORT}" if runtime == "swarm" else ""),
                authority_file=authority_file or "",
                peer_listen=peer_listen,
                allow_clear_text=allow_clear_text,
            )
            async with daemon_process.start_lock(state):
                if await check_running(options):
                    proxy_options.warn_if_different(options, listen, given_metrics)
                else:
                    name = await choose_runtime(runtime, spec)
                    check_swarm_options(name, lease, node_listen)
                    if authority_file:
                        check_authority(authority_file)
                    daemon = await foreground.start_daemon(replace(options, runtime=name), signals)
        except daemon_process.DaemonStartError as error:
            output.print_error(f"meshd: {error}")
            return output.USAGE
        except StopRequested:
            return signals.exit_code
        async with connect(state) as client:
            run = foreground.ForegroundRun(
                signals, client, daemon, spec, seconds, as_json, take_over, lease
            )
            code = await run.run(detach)
            if adopt and detach and code == output.OK:
                count = sum(each.state == "adopted" for each in (await client.status()).projects)
                output.print_error(
                    f"adopting containers with mesh.* labels ({count} projects so far); `meshd ps` "
                    "lists them, `meshd down --all` ends the daemon"
                )
            return code


def check_swarm_options(runtime: str, lease: str, node_listen: str) -> None:
    """Check that options of the Swarm runtime are given with it. Raises DaemonStartError."""
    if lease and runtime != "swarm":
        raise daemon_process.DaemonStartError(
            f"--lease needs --runtime swarm; the {runtime} runtime keeps no lease"
        )
    if node_listen and runtime != "swarm":
        output.print_error(
            "warning: --node-listen is for --runtime swarm; other nodes cannot reach replicas of "
            f"the {runtime} runtime"
        )


def check_authority(file: str) -> None:
    """Check the file of --authority-file. Raises DaemonStartError."""
    from meshd.node_proxy.authority import read_authority_file  # its libraries take 10 MiB

    try:
        read_authority_file(file)
    except BadAuthority as error:
        raise daemon_process.DaemonStartError(f"--authority-file: {error}") from error


def default_listen(spec: Project | None) -> tuple[str, ...]:
    """Return where the proxy listens for routes without --listen: the default address, or a free
    port if the file publishes that port itself."""
    host, _, port = LISTEN.rpartition(":")
    taken = {each.published for service in spec.services for each in service.ports} if spec else ()
    if port not in taken:
        return (LISTEN,)
    output.print_error(
        f"the file publishes port {port}, so the proxy listens for routes on a free port; "
        "--listen sets another address"
    )
    return (f"{host}:0",)


def is_given(option: str) -> bool:
    """Whether the option of the current command was given, not left at its default."""
    source = click.get_current_context().get_parameter_source(option)
    return source is not ParameterSource.DEFAULT


def longest_start(spec: Project) -> float:
    """Return the longest time in seconds that a service may take to become healthy."""
    return max(
        (max(s.probe.start_timeout, s.healthcheck.start_period) for s in spec.services
         if s.healthcheck is not None),
        default=0.0,
    )  # fmt: skip


async def check_running(options: daemon_process.DaemonOptions) -> bool:
    """Whether a daemon of that state directory runs; if it is just starting, wait for it, and if
    it is ending, for its end.

    Raises DaemonStartError if it has another runtime, or adopts containers although it must not.
    """
    state = options.state
    status = await daemon_process.find_running(state)
    if status is None:
        return False
    if options.runtime not in ("auto", status.runtime):
        raise daemon_process.DaemonStartError(
            f"the daemon in {state} uses the {status.runtime} runtime, not {options.runtime}; stop "
            "it with `meshd down --all`, or use a different --state"
        )
    if status.adopts and not options.adopt:
        raise daemon_process.DaemonStartError(
            f"the daemon in {state} adopts containers that something else started; stop it with "
            "`meshd down --all`, then start it with --no-adopt"
        )
    if status.filter in ("on", "") and not options.filter_host and status.runtime == "docker":
        output.print_error(
            "warning: the daemon runs without --no-filter; restart it to change that: `meshd down "
            "--all`, then `meshd up`"
        )
    output.print_error(f"{status.runtime} runtime: using the daemon that runs in {state}")
    return True


async def choose_runtime(
    requested: Literal["auto", "docker", "process", "swarm"], spec: Project | None
) -> Literal["docker", "process", "swarm"]:
    """Return the runtime to use, after printing the choice and its reason.

    Raises DaemonStartError.
    """
    from meshd.runtime import select
    from meshd.runtime.base import RuntimeFailure

    try:
        choice = await select.choose(requested, [spec] if spec else [])
    except RuntimeFailure as error:
        raise daemon_process.DaemonStartError(str(error)) from error
    output.print_error(choice.reason)
    return choice.name
