"""`meshd exec` in containers: exit codes, input and output, a terminal, refusals."""

import asyncio
import os
import pty
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.replicas import unique_project
from tests.support.mesh import TestMesh

pytestmark = pytest.mark.engine
PROJECT = unique_project("exec")


@pytest.fixture
async def mesh(tmp_path: Path, engine_image: str) -> AsyncIterator[TestMesh]:
    made = TestMesh(tmp_path, "docker")
    try:
        done = await made.up(
            f"name: {PROJECT}\nservices:\n  box:\n    image: {engine_image}\n    init: true\n"
            "    command: [sleep, '600']\n    stop_grace_period: 1s\n"
        )
        assert done.code == 0, done.out + done.err
        yield made
    finally:
        await made.end()


def command(mesh: TestMesh, *words: str) -> list[str]:
    return [sys.executable, "-m", "meshd", "exec", "--state", str(mesh.state), *words]


def run(mesh: TestMesh, *words: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(  # noqa: PLW1510 (the exit code is what is tested)
        command(mesh, *words), input=given, capture_output=True, timeout=60
    )


def run_on_a_terminal(mesh: TestMesh, *words: str) -> tuple[int, bytes]:
    """Run a command on a terminal and type a line; return its exit code and what it showed."""
    process, terminal = pty.fork()
    if not process:
        os.execvp(sys.executable, command(mesh, *words))
    os.write(terminal, b"typed\n")
    shown = b""
    try:
        while data := os.read(terminal, 1024):
            shown += data
    except OSError:  # the other side of the terminal is closed
        pass
    _, status = os.waitpid(process, 0)
    os.close(terminal)
    return os.waitstatus_to_exitcode(status), shown


async def test_input_output_and_exit_code_pass_through(mesh: TestMesh) -> None:
    script = "cat; echo $A >&2; pwd; exit 7"
    options = ("-e", "A=b", "-w", "/tmp", "box", "--", "sh", "-c", script)
    done = await asyncio.to_thread(run, mesh, *options, given=b"x" * 300_000 + b"\n")
    assert done.returncode == 7, done.stderr
    assert (done.stdout, done.stderr) == (b"x" * 300_000 + b"\n/tmp\n", b"b\n")
    missing = await asyncio.to_thread(run, mesh, "box", "nonsense")
    assert missing.returncode in (126, 127)
    unknown = await asyncio.to_thread(run, mesh, "nonsense", "true")
    assert (unknown.returncode, b"no service 'nonsense'" in unknown.stderr) == (1, True)
    assert (await asyncio.to_thread(run, mesh, "box")).returncode == 2
    code, shown = await asyncio.to_thread(
        run_on_a_terminal, mesh, "box", "sh", "-c", "test -t 0 && read a && echo got $a; exit 3"
    )
    assert code == 3
    assert b"got typed" in shown
