"""Programs that end with their caller: a small script takes the place of each."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import pytest

from meshd.runtime import child_process
from meshd.runtime.docker import iptables
from meshd.runtime.docker.images import auth, buildx
from meshd.runtime.docker.images.buildx import BuildCommand
from proxy.supervisor import upgrade
from tests.support.waiting import wait_until

LINES = "while :; do echo a line of output; done"
DEAF = "trap '' TERM; while :; do echo a line of output; done"


def install(folder: Path, name: str, script: str) -> Path:
    """Make a program that writes its process id to the file `pid`, and runs a script."""
    path = folder / name
    path.write_text(
        f"#!/bin/sh\necho $$ > {folder}/new && mv {folder}/new {folder}/pid\n{script}\n"
    )
    path.chmod(0o755)
    return path


async def started(folder: Path) -> int:
    """Wait for the program; return its process id."""
    await wait_until((folder / "pid").exists)
    return int((folder / "pid").read_text())


def exists(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


@pytest.mark.parametrize(
    ("script", "patience", "code"),
    [
        ("exec sleep 300", 0.0, -9),
        ("exec sleep 300", 30.0, -15),
        (LINES, 0.0, -9),
        (LINES, 30.0, -15),
        (DEAF, 0.2, -9),
        ("exit 3", 30.0, 3),
    ],
)
async def test_a_program_ends(tmp_path: Path, script: str, patience: float, code: int) -> None:
    """Also one whose output is not read: its pipe is full then."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        install(tmp_path, "program", script), stdin=pipe, stdout=pipe, stderr=pipe, limit=100
    )
    await started(tmp_path)
    assert process.stdout is not None
    if "echo" in script:
        await process.stdout.readline()
    if script == "exit 3":
        await process.wait()
    async with asyncio.timeout(60):
        await child_process.end(process, patience)
    assert process.returncode == code


async def test_a_program_whose_pipe_another_one_holds_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_process, "PIPE_SECONDS", 0.1)
    script = f"sleep 300 &\necho $! > {tmp_path}/other\necho ready\nexec sleep 300"
    process = await asyncio.create_subprocess_exec(
        install(tmp_path, "program", script), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    await process.stdout.readline()
    try:
        async with asyncio.timeout(60):
            await child_process.end(process)
        assert process.returncode == -9
    finally:
        os.kill(int((tmp_path / "other").read_text()), signal.SIGKILL)


async def read(lines: AsyncIterator[str]) -> None:
    async for _ in lines:
        pass


CALLS: dict[str, tuple[str, Any]] = {
    "auth": ("docker-credential-box", lambda at: auth._from_helper("box", "r.example", at.parent)),
    "build": ("docker", lambda _: read(buildx.run(BuildCommand((), {}, "")))),
    "version": ("docker", lambda _: buildx.is_installed()),
    "firewall": ("iptables-restore", lambda at: iptables._run(at.name)),
    "upgrade": ("meshd", lambda _: upgrade.check_installed_version("")),
}


@pytest.mark.parametrize("script", ["exec sleep 300", LINES])
@pytest.mark.parametrize("name", CALLS)
async def test_a_program_ends_with_a_caller_that_is_cancelled(
    name: str, script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, call = CALLS[name]
    path = install(tmp_path, program, script)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(upgrade, "_argv", lambda _: [str(path)])
    work: Coroutine[Any, Any, object] = call(path)
    task = asyncio.create_task(work)
    pid = await started(tmp_path)
    task.cancel()
    await asyncio.wait({task}, timeout=60)
    assert task.cancelled()
    assert not exists(pid)


async def test_a_build_that_is_given_up_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has written more than a pipe holds."""
    monkeypatch.setattr(buildx, "BINARY", str(install(tmp_path, "docker", LINES)))
    monkeypatch.setattr(buildx, "LINE_BYTES", 100)
    lines = buildx.run(BuildCommand((), {}, ""))
    pid = await started(tmp_path) if await anext(lines, None) else 0
    async with asyncio.timeout(60):
        await lines.aclose()  # type: ignore[attr-defined]
    assert pid
    assert not exists(pid)
