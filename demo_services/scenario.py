"""The demo: `make demo` starts the application and sends it the load of a lunch rush.

During the rush one replica of `restaurants` is killed, another one becomes slow, and a new version
of `tracking` is deployed. Exit codes: 0 if no request failed, the replica was replaced and the
rollout succeeded; 1 otherwise; 2 if the demo could not start. On a terminal the mesh keeps running
until Ctrl-C, unless `--once` is given.
"""

import argparse
import asyncio
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live

from demo_services import image, screen, tracing
from demo_services.actions import (
    Observations,
    describe_scaling,
    read_totals,
    run_actions,
    watch,
)
from demo_services.mesh import Mesh, MeshError

REFRESH_SECONDS = 0.5
"""Seconds between two refreshes of the display."""
LOCUST_END_SECONDS = 60
"""Seconds for locust to end after the rush: its last users finish their requests."""


def parse_arguments(given: list[str]) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="make demo ARGS=…", description=__doc__)
    parser.add_argument("--once", action="store_true", help="exit after the report")
    parser.add_argument("--runtime", choices=("auto", "docker", "process"), default="auto")
    parser.add_argument("--report", type=Path, help="write the report to this file as JSON")
    parser.add_argument("--seconds", type=float, default=90.0, help="duration (default: 90)")
    parser.add_argument(
        "--listen", default="", help="address of the proxy (default: 127.0.0.1:8080)"
    )
    parser.add_argument(
        "--otlp", default="", metavar="URL",
        help="send the spans of the proxy and of the services to this collector (OTLP over HTTP)",
    )  # fmt: skip
    return parser.parse_args(given)


def choose_runtime(requested: str) -> tuple[str, str]:
    """Return the runtime and the base image: Docker if the image can be built, otherwise local
    processes, after printing the reason. Raises MeshError if Docker was requested and the image
    cannot be built."""
    if requested == "process":
        return requested, ""
    try:
        print("demo: preparing the image of the application …", flush=True)
        return "docker", image.prepare()
    except image.ImageUnavailable as error:
        if requested == "docker":
            raise MeshError(f"cannot build the image of the demo: {error}") from error
        print(f"demo: using local processes, because {error}", flush=True)
        return "process", ""


def choose_address(requested: str) -> str:
    """Return the requested address, or port 8080 on loopback, or a free port if that is in use."""
    if requested:
        return requested
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", 8080))
        except OSError:
            probe.bind(("127.0.0.1", 0))
            print("demo: port 8080 is in use; using another port", flush=True)
        return f"127.0.0.1:{probe.getsockname()[1]}"


async def run_rush(mesh: Mesh, observations: Observations, folder: Path, seconds: float) -> None:
    """Run locust and the actions, and observe them. Raises MeshError if locust does not run."""
    report = folder / "lunch.json"
    with (folder / "locust.log").open("wb") as log:
        locust = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "locust", "-f", str(Path(__file__).with_name("locustfile.py")),
            "-H", f"http://{mesh.listen}", "--headless", "--only-summary",
            env={**os.environ, "LUNCH_SECONDS": str(seconds), "LUNCH_REPORT": str(report)},
            stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    watching = asyncio.create_task(watch(mesh, observations, report))
    try:
        await run_actions(mesh, observations, seconds)
        await asyncio.wait_for(locust.wait(), seconds + LOCUST_END_SECONDS)
        await asyncio.sleep(1.0)  # for the last events
    finally:
        if locust.returncode is None:
            locust.kill()
            await locust.wait()
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    observations.clients = read_totals(report)
    if not observations.clients:
        raise MeshError(f"locust sent no requests; its log: {read_tail(folder / 'locust.log')}")


def read_tail(log: Path) -> str:
    """Return the end of a log."""
    return log.read_text(errors="replace")[-2000:]


async def show(observations: Observations, seconds: float) -> None:
    """Show the live display on a terminal, or print new lines if the output is not a terminal."""
    console = Console()
    printed = 0
    if not console.is_terminal:
        while True:
            for line in observations.lines[printed:]:
                print(line, flush=True)
            printed = len(observations.lines)
            await asyncio.sleep(REFRESH_SECONDS)
    with Live(console=console, auto_refresh=False) as live:
        while True:
            fraction = (time.monotonic() - observations.started) / seconds
            # The same fractions as in `locustfile.LunchRush`.
            phase = "quiet" if fraction < 0.22 else "rush" if fraction < 0.6 else "quiet again"
            live.update(
                screen.live_display(
                    observations.services, phase, observations.clients, observations.lines
                ),
                refresh=True,
            )
            await asyncio.sleep(REFRESH_SECONDS)


def figures(observations: Observations, seconds: float) -> dict[str, Any]:
    """Return the figures of the report, as `--report` writes them. `seconds`: its length."""
    clients = observations.clients
    return {
        "served": clients["served"],
        "failed": clients["failed"],
        "retried": sum(s["retries_total"] for s in observations.services.values()),
        "p50_ms": clients["p50_ms"],
        "p95_ms": clients["p95_ms"],
        "p99_ms": clients["p99_ms"],
        "heal_seconds": observations.heal_seconds,
        "rollout": observations.rollout,
        "scaled": describe_scaling(observations, seconds),
        "scaling": observations.replicas_ready,
        "errors": clients["errors"],
    }


async def run(options: argparse.Namespace, folder: Path) -> int:
    """Run the whole demo and return the exit code."""
    runtime, base = choose_runtime(options.runtime)
    address = choose_address(options.listen)
    data = folder / "data"
    data.mkdir()
    environment = {"DEMO_FAULTS": "1", "DEMO_IMAGE": image.IMAGE}
    environment |= {"DEMO_DATA": str(data)} if runtime == "process" else {"DEMO_BASE": base}
    if options.otlp:
        environment[tracing.ENDPOINT] = options.otlp
    async with Mesh(folder / "state", runtime, address, environment, options.otlp) as mesh:
        await mesh.up()
        try:
            observations = Observations(started=time.monotonic())
            display = asyncio.create_task(show(observations, options.seconds))
            try:
                await run_rush(mesh, observations, folder, options.seconds)
                await asyncio.sleep(REFRESH_SECONDS + 0.1)  # for the last refresh
            finally:
                display.cancel()
                await asyncio.gather(display, return_exceptions=True)
            result = figures(observations, options.seconds)
            print(screen.format_report(result), flush=True)
            if options.report:
                options.report.write_text(json.dumps(result, indent=2) + "\n")
            if not options.once and sys.stdout.isatty():
                print(f"\nthe mesh keeps running at http://{address} until Ctrl-C; watch it with")
                print(f"  .venv/bin/meshd top --state {folder / 'state'}")
                print(f"  .venv/bin/meshd ui --state {folder / 'state'}")
                await wait_for_signal()
        finally:
            print("demo: stopping everything …", flush=True)
            await mesh.down()
            # A loop that is being closed cannot handle another Ctrl-C.
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])
    healed = observations.heal_seconds is not None
    return 0 if healed and observations.rolled_out and not result["failed"] else 1


async def wait_for_signal() -> None:
    """Wait for Ctrl-C or SIGTERM."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()


def clean_up(folder: Path) -> None:
    """Delete the files of the demo, unless its mesh still runs: it needs its state to end."""
    state = folder / "state"
    if any(state.glob("*.sock")):
        print(f"demo: the mesh still runs; stop it with `meshd down --all --state {state}`")
    else:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    """Run the command; see the module for the exit codes."""
    options = parse_arguments(sys.argv[1:])
    folder = Path(tempfile.mkdtemp(prefix="meshd-demo-"))
    try:
        return asyncio.run(run(options, folder))
    except MeshError as error:
        print(f"demo: could not start: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    finally:
        clean_up(folder)


if __name__ == "__main__":
    sys.exit(main())
