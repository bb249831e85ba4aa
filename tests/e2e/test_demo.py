"""The demo's scenario, shortened. It exits with 0 only if no client request failed."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.mesh import CommandResult

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]


async def demo(*arguments: str, folder: Path) -> CommandResult:
    """Run the scenario with its temporary files in `folder`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "demo_services.scenario", *arguments,
        env={**os.environ, "TMPDIR": str(folder)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(170):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)  # it takes its mesh down then
            await process.communicate()
    return CommandResult(process.returncode or 0, out.decode(), err.decode())


@pytest.fixture
async def folder() -> AsyncIterator[Path]:
    # A short path: the mesh's sockets are below it.
    with tempfile.TemporaryDirectory(prefix="md-", dir="/tmp") as made:
        yield Path(made)


@pytest.mark.parametrize(
    ("runtime", "seconds"),
    [("process", 30), pytest.param("docker", 40, marks=pytest.mark.engine)],
)
async def test_the_lunch_rush(
    folder: Path, runtime: str, seconds: int, free_port: int, engine_image: str
) -> None:
    report = folder / "report.json"
    done = await demo(
        "--once", "--runtime", runtime, "--seconds", str(seconds), "--report", str(report),
        "--listen", f"127.0.0.1:{free_port}", folder=folder,
    )  # fmt: skip
    said = done.out + done.err
    assert done.code == 0, said
    figures = json.loads(report.read_text())
    most = {
        name: (points[0], max(points))
        for name, points in ((n, counts(p)) for n, p in figures["scaling"].items())
    }
    print(
        f"{runtime}: {figures['served']} served, {figures['retried']} retried, healed after "
        f"{figures['heal_seconds']:.1f} s, p95 {figures['p95_ms']} ms, scaling {most}"
    )
    assert figures["served"] > 10 * seconds
    assert figures["failed"] == 0
    assert figures["rollout"].startswith("tracking v1 → v2 under load in ")
    assert 0 < figures["heal_seconds"] < 5 * 5
    for service in ("orders", "payments"):
        first, top = most[service]
        assert top > first, f"{service} did not scale up: {figures['scaled']}"
        assert f"{service} {figures['scaled'][service]}" in done.out
    if runtime == "docker":
        listed = subprocess.run(["docker", "volume", "ls", "-q"], capture_output=True, check=True)
        assert b"food_data" not in listed.stdout.split()
    assert list(folder.glob("meshd-demo-*")) == []


def counts(points: list[list[float]]) -> list[float]:
    """Return the numbers of replicas in a timeline of [seconds, number]."""
    return [number for _, number in points]


async def test_a_port_in_use_exits_with_2(folder: Path, free_port: int) -> None:
    with socket.create_server(("127.0.0.1", free_port)):
        done = await demo(
            "--once", "--runtime", "process", "--listen", f"127.0.0.1:{free_port}", folder=folder
        )
    assert done.code == 2, done.out + done.err
    assert str(free_port) in done.err + done.out
    assert "in use" in done.err + done.out
    assert "Traceback" not in done.err + done.out
