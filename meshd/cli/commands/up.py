"""`meshd up`: bring an application up, and a daemon for it where none runs."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import click

from meshd.api.client import wait_for_daemon
from meshd.cli import daemon_process, foreground, output, proxy_options, spec_options
from meshd.cli.session import connect, duration, state_option, talks
from meshd.spec.model import Project
from meshd.store import presence

LISTEN = "127.0.0.1:8080"
METRICS = "127.0.0.1:9900"


def workers_here() -> int:
    """A worker for each CPU we may use, four at most: the replicas need some as well."""
    return min(4, len(os.sched_getaffinity(0)))


@click.command("up", short_help="Bring an application up.")
@spec_options.spec_options
@click.option(
    "--runtime",
    type=click.Choice(["auto", "docker", "process"]),
    default="auto",
    show_default=True,
    help="What runs the replicas; auto says which it took, and why.",
)
@click.option("--listen", multiple=True, metavar="ADDR", help=f"Where clients come in; {LISTEN}.")
@click.option(
    "--metrics",
    default=METRICS,
    metavar="ADDR",
    show_default=True,
    help="/metrics, /healthz and /status, to read only.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    default=workers_here,
    show_default="one a CPU, at most 4",
    help="Processes of the proxy.",
)
@click.option(
    "--starts",
    type=click.IntRange(0, 1024),
    default=0,
    show_default="one a CPU, at least 2",
    help="Replicas that may start at once on a node; those that heal go first.",
)
@proxy_options.front_options
@click.option("-d", "--detach", is_flag=True, help="Return once everything is ready.")
@click.option(
    "--adopt",
    is_flag=True,
    help="Without a Compose file: only take in containers with mesh.* labels.",
)
@click.option(
    "--no-adopt",
    is_flag=True,
    help="Leave containers that something else started alone, whatever their labels say.",
)
@click.option(
    "--no-filter",
    is_flag=True,
    help="Docker: let containers of internal networks reach more of the host than the mesh.",
)
@spec_options.take_over_option
@click.option(
    "--timeout",
    "seconds",
    type=duration,
    default="2m",
    metavar="TIME",
    show_default=True,
    help="How long everything may take to become ready.",
)
@output.output_option
@state_option
@talks
async def command(
    files: tuple[Path, ...],
    project: str | None,
    profiles: tuple[str, ...],
    runtime: Literal["auto", "docker", "process"],
    listen: tuple[str, ...],
    metrics: str,
    workers: int,
    starts: int,
    detach: bool,
    adopt: bool,
    no_adopt: bool,
    no_filter: bool,
    take_over: bool,
    seconds: float,
    as_json: bool,
    state: Path,
    **given: Any,
) -> int:
    """Start what the Compose file says, show how it goes, then what happens, until Ctrl-C,
    which ends everything in order. With --detach it runs on; `meshd down` ends it."""
    if adopt and files:
        raise click.UsageError("--adopt goes without -f")
    if adopt and no_adopt:
        raise click.UsageError("--adopt and --no-adopt exclude each other")
    loaded = None if adopt else spec_options.load_all(files, project, profiles)
    spec = loaded.project if loaded else None
    chosen = proxy_options.chosen(given, loaded)
    try:
        daemon = None
        daemon_process.prepare_state(state)
        wish = daemon_process.Wish(
            state, runtime, listen or (LISTEN,), metrics, workers, starts, not no_adopt, chosen,
            not no_filter,
        )  # fmt: skip
        async with daemon_process.alone(state):
            if await joined(state, runtime, not no_adopt, not no_filter):
                proxy_options.compare(wish, listen)
            else:
                name = await chosen_runtime(runtime, spec)
                daemon = daemon_process.spawn(replace(wish, runtime=name))
                await daemon_process.wait_ready(daemon)
    except daemon_process.DaemonStartError as error:
        output.complain(f"meshd: {error}")
        return output.USAGE
    async with connect(state) as client:
        run = foreground.Run(client, daemon, spec, seconds, as_json, take_over)
        return await run.go(detach)


async def joined(state: Path, runtime: str, adopt: bool = True, filters: bool = True) -> bool:
    """Whether a daemon runs there already; one that is just coming back is waited for. Raises
    CannotStart when it is of another runtime than the one asked for, or adopts and is not to."""
    patience = daemon_process.START_SECONDS if daemon_process.running(state) else 0.0
    status = await wait_for_daemon(state / presence.API_SOCKET, patience)
    if status is None:
        if patience:
            raise daemon_process.DaemonStartError(
                f"a daemon runs in {state}, but does not answer; see its log"
            )
        return False
    if runtime not in ("auto", status.runtime):
        raise daemon_process.DaemonStartError(
            f"the daemon in {state} uses the {status.runtime} runtime, not {runtime}; end it "
            "with `meshd down --all`, or use another --state"
        )
    if status.adopts and not adopt:
        raise daemon_process.DaemonStartError(
            f"the daemon in {state} adopts what others started; end it with `meshd down --all` and "
            "start it with --no-adopt"
        )
    if status.filter in ("on", "") and not filters and status.runtime == "docker":
        output.complain(
            "warning: the daemon runs without --no-filter, which holds from its start: `meshd down "
            "--all`, then `meshd up`"
        )
    output.complain(f"{status.runtime} runtime: that of the daemon in {state}")
    return True


async def chosen_runtime(
    wanted: Literal["auto", "docker", "process"], spec: Project | None
) -> Literal["docker", "process"]:
    """The runtime to take, told in one line."""
    from meshd.runtime import select

    choice = await select.choose(wanted, [spec] if spec else [])
    output.complain(choice.reason)
    return choice.name
