"""The keeper as a process: its children end with it, and it bounds their output."""

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
    ReceivedEvents,
    keeper,
    process_runtime,
    replica_spec,
    service,
    start_and_wait,
    state_of,
)
from tests.support.waiting import wait_until

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
    """Whether a process has ended; a zombie counts as ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"


async def family(runtime: ProcessRuntime) -> tuple[int, int]:
    """Return the process of a replica and the process that it started."""
    replica = replica_spec(PROJECT, "family-1", service("", FAMILY))
    await start_and_wait(runtime, replica)
    (observed,) = await runtime.list()
    return int(observed.runtime_id), int((await runtime.logs(replica.name, 1))[0])


async def test_all_processes_of_a_replica_end_with_it(runtime: ProcessRuntime) -> None:
    parent, child = await family(runtime)
    os.kill(parent, signal.SIGKILL)
    await wait_until(lambda: gone(parent) and gone(child))


async def test_replicas_end_with_a_keeper_that_is_asked_to(tmp_path: Path) -> None:
    runtime = ProcessRuntime(tmp_path)
    with keeper(tmp_path) as process:
        await runtime.open()
        pids = await family(runtime)
        deaf = replica_spec(PROJECT, "deaf-1", service("", STUBBORN, "deaf"))
        await start_and_wait(runtime, deaf)
        began = time.monotonic()
        process.terminate()
        assert process.wait(30) == 0
        print(f"ended {time.monotonic() - began:.2f} s after TERM, one replica deaf")
        assert all(map(gone, pids))
        with pytest.raises(RuntimeUnavailable):
            await runtime.list()


async def test_replicas_end_with_a_killed_keeper(tmp_path: Path) -> None:
    """The next keeper ends the processes that a replica had started itself."""
    runtime = ProcessRuntime(tmp_path)
    with keeper(tmp_path) as process:
        await runtime.open()
        parent, child = await family(runtime)
        process.kill()
        process.wait()
        await wait_until(lambda: gone(parent))
        with pytest.raises(RuntimeUnavailable, match="no keeper answers"):
            await runtime.list()
    with keeper(tmp_path):
        await runtime.open()
        await wait_until(lambda: gone(child))
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
    await wait_until(lambda: gone(parent))
    await wait_until(lambda: not (tmp_path / "keeper.sock").exists())


async def test_a_directory_has_one_keeper(runtime: ProcessRuntime, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "meshd.runtime.process.keeper", "--state", str(tmp_path)]
    second = await asyncio.to_thread(
        subprocess.run, command, check=False, capture_output=True, text=True, timeout=30
    )
    assert second.returncode == 1
    assert "another keeper holds" in second.stderr
    assert await runtime.list() == ()


async def test_only_the_owner_may_use_the_socket(runtime: ProcessRuntime, tmp_path: Path) -> None:
    assert (tmp_path / "keeper.sock").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "logs").stat().st_mode & 0o777 == 0o700


async def test_environment_is_small_and_has_the_replicas_port(
    runtime: ProcessRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", "of the host")
    script = "import os; print(os.getcwd()); print(sorted(os.environ.items()), flush=True)"
    of = service("", script, environment={"COLOUR": "blue", "PORT": "1"}, working_dir="app")
    (tmp_path / "app").mkdir()
    for number in (1, 2):
        replica = replica_spec(
            PROJECT, f"env-{number}", of, environment={"COLOUR": "red"}, directory=str(tmp_path)
        )
        observed = await runtime.start(replica)
        await wait_until(lambda name=replica.name: ended(runtime, name))
        where, environment = await runtime.logs(replica.name, 2)
        assert where == str(tmp_path / "app")
        assert f"('PORT', '{observed.port}')" in environment
        assert "('COLOUR', 'red')" in environment
        assert "DATABASE_PASSWORD" not in environment
    ports = {replica.port for replica in await runtime.list()}
    assert all(1024 < port < 32768 for port in ports)


async def ended(runtime: ProcessRuntime, name: str) -> bool:
    return await state_of(runtime, name) is ReplicaState.EXITED


async def test_output_of_a_replica_is_bounded(runtime: ProcessRuntime, tmp_path: Path) -> None:
    script = "for i in range(120): print(str(i) * 60000)\nprint('last')"
    replica = replica_spec(PROJECT, "flood-1", service("", script))
    await runtime.start(replica)
    await wait_until(lambda: ended(runtime, replica.name))
    lines = await runtime.logs(replica.name, 100_000)
    assert lines[-1] == "last"
    assert len(lines) <= 2000
    assert max(map(len, lines)) <= 8192
    files = [file.stat().st_size for file in (tmp_path / "logs").iterdir()]
    assert len(files) == 2
    assert max(files) <= 5 * 2**20
    await runtime.remove(replica.name)
    assert list((tmp_path / "logs").iterdir()) == []


async def test_many_replicas_at_once(runtime: ProcessRuntime) -> None:
    """Twenty replicas started, killed and removed together: every event arrives, in order."""
    replicas = [replica_spec(PROJECT, f"many-{n}", service("", FAMILY)) for n in range(20)]
    async with ReceivedEvents(runtime) as heard:
        observed = await asyncio.gather(*map(runtime.start, replicas))
        assert len({one.port for one in observed}) == 20
        await asyncio.gather(*(runtime.stop(replica.name, 5) for replica in replicas))
        await asyncio.gather(*(runtime.remove(replica.name) for replica in replicas))
        await heard.wait(EventKind.REMOVED, replicas[-1].name)
        for replica in replicas:
            kinds = ["started", "stopping", "died", "removed"]
            await wait_until(lambda name=replica.name, k=kinds: heard.kinds(name) == k)
    assert await runtime.list() == ()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"command": ("no-such-program",)}, "program 'no-such-program' not found"),
        ({"command": ("/etc/passwd",)}, "/etc/passwd cannot be executed: Permission denied"),
        ({"command": ("true",), "working_dir": "/no/such/place"}, "/no/such/place"),
        ({"command": ("a\0b",)}, "cannot be executed: embedded null byte"),
    ],
)
async def test_a_failed_start_says_why(
    runtime: ProcessRuntime, fields: dict[str, object], reason: str
) -> None:
    broken = Service.model_validate({"name": "broken", **fields})
    with pytest.raises(StartFailed, match=reason):
        await runtime.start(replica_spec(PROJECT, "broken-1", broken))
    assert await runtime.list() == ()


async def test_a_path_as_name_is_rejected(runtime: ProcessRuntime) -> None:
    with pytest.raises(StartFailed, match="is not a valid name of a replica"):
        await runtime.start(replica_spec("../up", "1", service("", FAMILY)))


async def test_invalid_requests_on_the_socket_get_an_error(
    runtime: ProcessRuntime, tmp_path: Path
) -> None:
    for nonsense in (b"hello\n", b'{"type":"dance"}\n', b'{"type":"stop","name":3}\n', b"\n"):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "keeper.sock")
        writer.write(nonsense)
        assert b"invalid request: " in await reader.readline()
        writer.close()
        await writer.wait_closed()
    assert await runtime.list() == ()
    with pytest.raises(RuntimeFailure):
        await runtime.stop("missing", 1)
