"""The keeper as a process: what dies with it, what it holds, what it bounds."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from meshd.model.runtime import ReplicaState
from meshd.runtime.base import EventKind, RuntimeFailure, RuntimeUnavailable, StartFailed
from meshd.runtime.process.runtime import ProcessRuntime
from meshd.spec.model import Service
from tests.fakes.replicas import (
    STUBBORN,
    Heard,
    eventually,
    keeper,
    process_runtime,
    service,
    spec,
    started,
    state_of,
)

PROJECT = "rt-keeper"
FAMILY = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[ProcessRuntime]:
    async with process_runtime(tmp_path) as ready:
        yield ready


def gone(pid: int) -> bool:
    """Whether a process has ended; a zombie has."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"


async def family(runtime: ProcessRuntime) -> tuple[int, int]:
    """The process of a replica, and the one it started."""
    replica = spec(PROJECT, "family-1", service("", FAMILY))
    await started(runtime, replica)
    (observed,) = await runtime.list()
    return int(observed.runtime_id), int((await runtime.logs(replica.name, 1))[0])


async def test_all_processes_of_a_replica_end_with_it(runtime: ProcessRuntime) -> None:
    parent, child = await family(runtime)
    os.kill(parent, signal.SIGKILL)
    await eventually(lambda: gone(parent) and gone(child))


async def test_replicas_end_with_a_keeper_that_is_asked_to(tmp_path: Path) -> None:
    runtime = ProcessRuntime(tmp_path)
    with keeper(tmp_path) as process:
        await runtime.open()
        pids = await family(runtime)
        deaf = spec(PROJECT, "deaf-1", service("", STUBBORN, "deaf"))
        await started(runtime, deaf)
        began = time.monotonic()
        process.terminate()
        assert process.wait(30) == 0
        print(f"ended {time.monotonic() - began:.2f} s after TERM, one replica deaf")
        assert all(map(gone, pids))
        with pytest.raises(RuntimeUnavailable):
            await runtime.list()


async def test_replicas_end_with_a_killed_keeper(tmp_path: Path) -> None:
    """What a replica had started itself is ended by the next keeper."""
    runtime = ProcessRuntime(tmp_path)
    with keeper(tmp_path) as process:
        await runtime.open()
        parent, child = await family(runtime)
        process.kill()
        process.wait()
        await eventually(lambda: gone(parent))
        with pytest.raises(RuntimeUnavailable, match="no keeper answers"):
            await runtime.list()
    with keeper(tmp_path):
        await runtime.open()
        await eventually(lambda: gone(child))
        assert await runtime.list() == ()


async def test_keeper_ends_with_what_started_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "meshd.runtime.process.keeper", "--state", str(tmp_path)]
    script = f"import subprocess, time; subprocess.Popen({command!r}); time.sleep(600)"
    starter = subprocess.Popen([sys.executable, "-c", script])
    runtime = ProcessRuntime(tmp_path)
    await runtime.open()
    parent, _ = await family(runtime)
    starter.kill()
    starter.wait()
    await eventually(lambda: gone(parent))
    await eventually(lambda: not (tmp_path / "keeper.sock").exists())


async def test_one_keeper_a_directory(runtime: ProcessRuntime, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "meshd.runtime.process.keeper", "--state", str(tmp_path)]
    second = await asyncio.to_thread(
        subprocess.run, command, check=False, capture_output=True, text=True, timeout=30
    )
    assert second.returncode == 1
    assert "another keeper holds" in second.stderr
    assert await runtime.list() == ()


async def test_socket_is_its_owners_alone(runtime: ProcessRuntime, tmp_path: Path) -> None:
    assert (tmp_path / "keeper.sock").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "logs").stat().st_mode & 0o777 == 0o700


async def test_environment_is_small_and_port_is_the_replicas_own(
    runtime: ProcessRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", "of the host")
    script = "import os; print(os.getcwd()); print(sorted(os.environ.items()), flush=True)"
    of = service("", script, environment={"COLOUR": "blue", "PORT": "1"}, working_dir="app")
    (tmp_path / "app").mkdir()
    for number in (1, 2):
        replica = spec(
            PROJECT, f"env-{number}", of, environment={"COLOUR": "red"}, directory=str(tmp_path)
        )
        observed = await runtime.start(replica)
        await eventually(lambda name=replica.name: ended(runtime, name))
        where, environment = await runtime.logs(replica.name, 2)
        assert where == str(tmp_path / "app")
        assert f"('PORT', '{observed.port}')" in environment
        assert "('COLOUR', 'red')" in environment
        assert "DATABASE_PASSWORD" not in environment
    ports = {replica.port for replica in await runtime.list()}
    assert all(1024 < port < 32768 for port in ports)


async def ended(runtime: ProcessRuntime, name: str) -> bool:
    return await state_of(runtime, name) is ReplicaState.EXITED


async def test_flood_of_output_stays_bounded(runtime: ProcessRuntime, tmp_path: Path) -> None:
    script = "for i in range(120): print(str(i) * 60000)\nprint('last')"
    replica = spec(PROJECT, "flood-1", service("", script))
    await runtime.start(replica)
    await eventually(lambda: ended(runtime, replica.name))
    lines = await runtime.logs(replica.name, 100_000)
    assert lines[-1] == "last"
    assert len(lines) <= 2000
    assert max(map(len, lines)) <= 8192
    files = [file.stat().st_size for file in (tmp_path / "logs").iterdir()]
    assert len(files) == 2
    assert max(files) <= 5 * 2**20
    await runtime.remove(replica.name)
    assert list((tmp_path / "logs").iterdir()) == []


async def test_many_lives_at_once(runtime: ProcessRuntime) -> None:
    """Twenty replicas started, killed and removed together: every event is told, in order."""
    replicas = [spec(PROJECT, f"many-{n}", service("", FAMILY)) for n in range(20)]
    async with Heard(runtime) as heard:
        observed = await asyncio.gather(*map(runtime.start, replicas))
        assert len({one.port for one in observed}) == 20
        await asyncio.gather(*(runtime.stop(replica.name, 5) for replica in replicas))
        await asyncio.gather(*(runtime.remove(replica.name) for replica in replicas))
        await heard.wait(EventKind.REMOVED, replicas[-1].name)
        for replica in replicas:
            kinds = ["started", "stopping", "died", "removed"]
            await eventually(lambda name=replica.name, k=kinds: heard.kinds(name) == k)
    assert await runtime.list() == ()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"command": ("no-such-program",)}, "there is no program 'no-such-program'"),
        ({"command": ("/etc/passwd",)}, "may not be run"),
        ({"command": ("true",), "working_dir": "/no/such/place"}, "/no/such/place"),
        ({"command": ("a\0b",)}, "cannot be run"),
    ],
)
async def test_what_cannot_start_says_why(
    runtime: ProcessRuntime, fields: dict[str, object], reason: str
) -> None:
    broken = Service.model_validate({"name": "broken", **fields})
    with pytest.raises(StartFailed, match=reason):
        await runtime.start(spec(PROJECT, "broken-1", broken))
    assert await runtime.list() == ()


async def test_name_that_is_a_path_is_refused(runtime: ProcessRuntime) -> None:
    with pytest.raises(StartFailed, match="cannot be the name"):
        await runtime.start(spec("../up", "1", service("", FAMILY)))


async def test_nonsense_on_the_socket_is_answered(runtime: ProcessRuntime, tmp_path: Path) -> None:
    for nonsense in (b"hello\n", b'{"type":"dance"}\n', b'{"type":"stop","name":3}\n', b"\n"):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "keeper.sock")
        writer.write(nonsense)
        assert b"not understood" in await reader.readline()
        writer.close()
        await writer.wait_closed()
    assert await runtime.list() == ()
    with pytest.raises(RuntimeFailure):
        await runtime.stop("nobody", 1)
