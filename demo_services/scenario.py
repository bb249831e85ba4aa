"""The demo: `make demo` brings the application up and puts it through a lunch rush.

In the rush one replica of `restaurants` is killed, another is made slow, and `tracking` is
replaced by a new version. Ends with 0 only if no client request failed and the mesh healed
and rolled out, 1 otherwise, 2 if it could not start. With a terminal the mesh stays up until
Ctrl-C, unless `--once` is given.
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

from demo_services import image, screen
from demo_services.mesh import CannotStart, Mesh
from demo_services.story import Story, act, totals, watch


def arguments(given: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make demo ARGS=…", description=__doc__)
    parser.add_argument("--once", action="store_true", help="end after the report")
    parser.add_argument("--runtime", choices=("auto", "docker", "process"), default="auto")
    parser.add_argument("--report", type=Path, help="write the figures to this file as JSON")
    parser.add_argument("--seconds", type=float, default=90.0, help="length of the rush (90)")
    parser.add_argument("--listen", default="", help="the proxy's address (127.0.0.1:8080)")
    return parser.parse_args(given)


def choose_runtime(wanted: str) -> tuple[str, str]:
    """Docker where its image can be made, else local processes, and says why; the runtime and
    the base image. Raises CannotStart when Docker was asked for and cannot be had."""
    if wanted == "process":
        return wanted, ""
    try:
        print("demo: preparing the application's image …", flush=True)
        return "docker", image.prepare()
    except image.NoImage as error:
        if wanted == "docker":
            raise CannotStart(f"the demo's image cannot be built: {error}") from error
        print(f"demo: running as local processes, since {error}", flush=True)
        return "process", ""


def choose_address(wanted: str) -> str:
    """`wanted`, or port 8080 of loopback, or a free one where that is taken."""
    if wanted:
        return wanted
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", 8080))
        except OSError:
            probe.bind(("127.0.0.1", 0))
            print("demo: port 8080 is taken; another one is used", flush=True)
        return f"127.0.0.1:{probe.getsockname()[1]}"


async def rush(mesh: Mesh, story: Story, folder: Path, seconds: float) -> None:
    """Locust's lunch rush with the acts in it. Raises CannotStart when locust cannot run."""
    lunch = folder / "lunch.json"
    with (folder / "locust.log").open("wb") as log:
        locust = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "locust", "-f", str(Path(__file__).with_name("locustfile.py")),
            "-H", f"http://{mesh.listen}", "--headless", "--only-summary",
            env={**os.environ, "LUNCH_SECONDS": str(seconds), "LUNCH_REPORT": str(lunch)},
            stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    watching = asyncio.create_task(watch(mesh, story, lunch))
    try:
        await act(mesh, story, seconds)
        await asyncio.wait_for(locust.wait(), seconds + 60)
        await asyncio.sleep(1.0)
    finally:
        if locust.returncode is None:
            locust.kill()
            await locust.wait()
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    story.clients = totals(lunch)
    if not story.clients:
        raise CannotStart(f"locust measured nothing; it said: {tail(folder / 'locust.log')}")


def tail(log: Path) -> str:
    """The end of a log."""
    return log.read_text(errors="replace")[-2000:]


async def show(story: Story, seconds: float) -> None:
    """Draw the live table on a terminal, or print each new line where there is none."""
    console = Console()
    printed = 0
    if not console.is_terminal:
        while True:
            for line in story.happened[printed:]:
                print(line, flush=True)
            printed = len(story.happened)
            await asyncio.sleep(0.5)
    with Live(console=console, auto_refresh=False) as live:
        while True:
            part = (time.monotonic() - story.started) / seconds
            name = "quiet" if part < 0.22 else "lunch rush" if part < 0.67 else "quiet again"
            live.update(
                screen.screen(story.services, name, story.clients, story.happened), refresh=True
            )
            await asyncio.sleep(0.5)


def figures(story: Story) -> dict[str, Any]:
    """The report as data."""
    clients = story.clients
    return {
        "served": clients["served"],
        "failed": clients["failed"],
        "retried": sum(s["retries_total"] for s in story.services.values()),
        "p50_ms": clients["p50_ms"],
        "p95_ms": clients["p95_ms"],
        "p99_ms": clients["p99_ms"],
        "heal_seconds": story.heal_seconds,
        "rollout": story.rollout,
        "scaling": story.scaling,
        "errors": clients["errors"],
    }


async def play(options: argparse.Namespace, folder: Path) -> int:
    """The whole demo; the exit code."""
    runtime, base = choose_runtime(options.runtime)
    address = choose_address(options.listen)
    data = folder / "data"
    data.mkdir()
    environment = {"DEMO_FAULTS": "1", "DEMO_IMAGE": image.IMAGE}
    environment |= {"DEMO_DATA": str(data)} if runtime == "process" else {"DEMO_BASE": base}
    async with Mesh(folder / "state", runtime, address, environment) as mesh:
        await mesh.up()
        try:
            story = Story(started=time.monotonic())
            drawing = asyncio.create_task(show(story, options.seconds))
            try:
                await rush(mesh, story, folder, options.seconds)
                await asyncio.sleep(0.6)
            finally:
                drawing.cancel()
                await asyncio.gather(drawing, return_exceptions=True)
            result = figures(story)
            print(screen.report(result), flush=True)
            if options.report:
                options.report.write_text(json.dumps(result, indent=2) + "\n")
            if not options.once and sys.stdout.isatty():
                print(f"\nthe mesh stays up at http://{address} (Ctrl-C ends it); look at it with")
                print(f"  .venv/bin/meshd top --state {folder / 'state'}")
                await interrupted()
        finally:
            print("demo: taking everything down …", flush=True)
            await mesh.down()
    return 1 if result["failed"] or not story.rolled_out or story.heal_seconds is None else 0


async def interrupted() -> None:
    """Wait for Ctrl-C or SIGTERM."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()


def clean_up(folder: Path) -> None:
    """Remove what the demo wrote, unless its mesh is still up: that needs its state to end."""
    state = folder / "state"
    if any(state.glob("*.sock")):
        print(f"demo: the mesh is still up; end it with `meshd down --all --state {state}`")
    else:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    """The command. 0: no client request failed; 1: one did; 2: it could not start."""
    options = arguments(sys.argv[1:])
    folder = Path(tempfile.mkdtemp(prefix="meshd-demo-"))
    try:
        return asyncio.run(play(options, folder))
    except CannotStart as error:
        print(f"demo: could not start: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    finally:
        clean_up(folder)


if __name__ == "__main__":
    sys.exit(main())
