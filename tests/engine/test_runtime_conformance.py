"""What every runtime must do: each test runs on each runtime."""

import asyncio
import os
import signal
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from meshd.model.output import ALL_LINES, OutputCursor, OutputLine, OutputQuery, UnreadLines
from meshd.model.runtime import ObservedReplica, ReplicaState
from meshd.runtime.base import (
    EventKind,
    ReplicaNotFound,
    ReplicaRunning,
    Runtime,
    StartFailed,
    Unsupported,
)
from meshd.spec.model import Service
from tests.fakes.replicas import (
    STUBBORN,
    ReceivedEvents,
    docker,
    docker_runtime,
    fetch,
    on_podman,
    process_runtime,
    replica_spec,
    service,
    start_and_wait,
    state_of,
    swarm_runtime,
    unique_project,
)
from tests.support.own_swarm import OwnNode, own_swarm
from tests.support.waiting import assert_prompt, wait_until

PROJECT = unique_project("conf")


@pytest.fixture(scope="module")
def manager() -> Iterator[OwnNode]:
    """Run a Swarm of one node for all tests here."""
    from tests.conftest import ENGINE_IMAGE

    with own_swarm(["m1"], ENGINE_IMAGE) as (node,):
        yield node


@pytest.fixture(
    params=[
        pytest.param("docker", marks=pytest.mark.engine),
        "process",
        pytest.param("swarm", marks=[pytest.mark.engine, pytest.mark.acceptance]),
    ]
)
async def runtime(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Runtime]:
    """Open a runtime; clean it up after the test."""
    if request.param == "swarm":
        node: OwnNode = request.getfixturevalue("manager")
        monkeypatch.setenv("DOCKER_HOST", node.host)
    opened = {
        "docker": lambda: docker_runtime(PROJECT),
        "process": lambda: process_runtime(tmp_path),
        "swarm": lambda: swarm_runtime(PROJECT),
    }
    async with opened[request.param]() as ready:
        yield ready


@pytest.fixture
def web(engine_image: str) -> Service:
    """Return a service whose replicas answer with $ANSWER."""
    return service(engine_image, environment={"ANSWER": "hello"})


async def test_started_replica_answers_on_its_address(runtime: Runtime, web: Service) -> None:
    replica = replica_spec(PROJECT, "web-1", web, environment={"ANSWER": "from the mesh"})
    await runtime.prepare(PROJECT, web)
    observed = await runtime.start(replica)
    assert (observed.name, observed.project, observed.service) == (replica.name, PROJECT, "web")
    assert (observed.revision, observed.managed) == ("rev1", True)
    assert observed.state is ReplicaState.RUNNING
    assert runtime.name == "swarm" or observed.host in observed.addresses  # else the node's
    await wait_until(lambda: runtime.logs(replica.name, 1))
    assert observed.host is not None
    assert await fetch(observed.host, observed.port) == "from the mesh"
    (listed,) = [r for r in await runtime.list() if r.name == replica.name]
    assert listed == observed


async def test_events_of_one_replica(runtime: Runtime, web: Service) -> None:
    replica = replica_spec(PROJECT, "web-1", web)
    async with ReceivedEvents(runtime) as heard:
        await start_and_wait(runtime, replica)
        await runtime.stop(replica.name, 5)
        await runtime.remove(replica.name)
        died = await heard.wait(EventKind.DIED, replica.name)
        await heard.wait(EventKind.REMOVED, replica.name)
        # A stop signal that is caught ends the replica: no second one was needed.
        stopping = [] if on_podman(runtime) else ["stopping"]
        assert heard.kinds(replica.name) == ["started", *stopping, "died", "removed"]
        begun = await heard.wait(EventKind.STARTED, replica.name)
    assert begun.replica is not None
    assert begun.replica.host is not None
    assert died.replica is not None
    assert (died.replica.state, died.replica.exit_code) == (ReplicaState.EXITED, 7)
    assert abs(died.at - time.time()) < 30
    assert await state_of(runtime, replica.name) is None


async def test_killed_replica_is_observed_dead(runtime: Runtime, web: Service) -> None:
    replica = replica_spec(PROJECT, "web-1", web)
    async with ReceivedEvents(runtime) as heard:
        await start_and_wait(runtime, replica)
        (listed,) = [r for r in await runtime.list() if r.name == replica.name]
        pid = listed.runtime_id
        if runtime.name == "docker":
            pid = docker("inspect", "-f", "{{.State.Pid}}", replica.name)
        elif runtime.name == "swarm":
            status = "{{.Status.ContainerStatus.PID}}"
            pid = docker("inspect", "--type", "task", "-f", status, listed.runtime_id)
        os.kill(int(pid), signal.SIGKILL)
        died = await heard.wait(EventKind.DIED, replica.name)
    assert died.replica is not None
    assert died.replica.exit_code == 137
    (ended,) = [r for r in await runtime.list() if r.name == replica.name]
    assert (ended.state, ended.exit_code) == (ReplicaState.EXITED, 137)
    assert ended.finished_at >= ended.started_at > 0
    assert "listening" in (await runtime.logs(replica.name, 5))[0]


async def test_a_replica_that_ignores_sigterm_is_killed_after_its_grace_period(
    runtime: Runtime, engine_image: str
) -> None:
    deaf = service(engine_image, STUBBORN, "deaf", stop_grace_period=2)
    replica = replica_spec(PROJECT, "deaf-1", deaf)
    await start_and_wait(runtime, replica)
    async with ReceivedEvents(runtime) as heard:
        began = time.monotonic()
        stopping = asyncio.create_task(runtime.stop(replica.name, 2))
        if not on_podman(runtime):
            await heard.wait(EventKind.STOPPING, replica.name)
            assert await state_of(runtime, replica.name) is ReplicaState.STOPPING

        async def stops() -> bool:
            return await state_of(runtime, replica.name) is ReplicaState.STOPPING

        await wait_until(stops)
        await stopping
        took = time.monotonic() - began
    print(f"stopped after {took:.2f} s of 2 s grace")
    assert 1.9 < took < 10
    assert await state_of(runtime, replica.name) is ReplicaState.EXITED


async def test_name_is_taken_until_it_is_removed(runtime: Runtime, web: Service) -> None:
    replica = replica_spec(PROJECT, "web-1", web)
    await start_and_wait(runtime, replica)
    with pytest.raises(StartFailed, match=replica.name):
        await runtime.start(replica)
    with pytest.raises(ReplicaRunning):
        await runtime.remove(replica.name)
    assert await state_of(runtime, replica.name) is ReplicaState.RUNNING
    await runtime.stop(replica.name, 5)
    await runtime.stop(replica.name, 5)  # the dead may be stopped again
    with pytest.raises(StartFailed, match=replica.name):
        await runtime.start(replica)
    await runtime.remove(replica.name)
    await start_and_wait(runtime, replica)


async def test_two_starts_of_one_name_at_once(runtime: Runtime, web: Service) -> None:
    replica = replica_spec(PROJECT, "web-1", web)
    await runtime.prepare(PROJECT, web)
    both = await asyncio.gather(
        runtime.start(replica), runtime.start(replica), return_exceptions=True
    )
    assert sorted(type(result).__name__ for result in both) == ["ObservedReplica", "StartFailed"]
    assert await state_of(runtime, replica.name) is ReplicaState.RUNNING


async def test_an_unknown_replica_is_not_found(runtime: Runtime) -> None:
    name = f"{PROJECT}-missing"
    for asked in (
        runtime.stop(name, 1),
        runtime.remove(name),
        runtime.pause(name),
        runtime.unpause(name),
        runtime.logs(name, 5),
    ):
        with pytest.raises(ReplicaNotFound, match=name):
            await asked
    with pytest.raises(ReplicaNotFound, match=name):
        _ = [line async for line in runtime.follow(name, OutputQuery(0))]


async def test_a_failed_start_leaves_nothing(runtime: Runtime, engine_image: str) -> None:
    broken = Service(name="broken", image=engine_image, command=("no-such-program",))
    replica = replica_spec(PROJECT, "broken-1", broken)
    await runtime.prepare(PROJECT, broken)
    with pytest.raises(StartFailed, match="no-such-program"):
        await runtime.start(replica)
    assert await state_of(runtime, replica.name) is None


async def test_a_paused_replica_resumes_and_stops(runtime: Runtime, web: Service) -> None:
    replica = replica_spec(PROJECT, "web-1", web)
    if not runtime.capabilities.pause:
        await start_and_wait(runtime, replica)
        for refused in (runtime.pause(replica.name), runtime.unpause(replica.name)):
            with pytest.raises(Unsupported, match=replica.name):
                await refused
        return
    async with ReceivedEvents(runtime) as heard:
        await start_and_wait(runtime, replica)
        await runtime.pause(replica.name)
        await runtime.pause(replica.name)
        assert await state_of(runtime, replica.name) is ReplicaState.PAUSED
        await runtime.unpause(replica.name)
        assert await state_of(runtime, replica.name) is ReplicaState.RUNNING
        await runtime.pause(replica.name)
        await runtime.stop(replica.name, 5)
        await heard.wait(EventKind.DIED, replica.name)
        await heard.wait(EventKind.UNPAUSED, replica.name)
        await heard.wait(EventKind.PAUSED, replica.name, 2)
    with pytest.raises(ReplicaNotFound):
        await runtime.pause(replica.name)


async def test_output_is_returned_and_followed(runtime: Runtime, engine_image: str) -> None:
    script = """
import sys, time
for i in range(50): print("line", i, flush=True)
print("to stderr", file=sys.stderr, flush=True)
time.sleep(3)  # until both streams are open
print("later", flush=True)
print("unfinished", end="", flush=True)
"""
    replica = replica_spec(PROJECT, "talker-1", service(engine_image, script, "talker"))
    await start_and_wait(runtime, replica)
    early = runtime.follow(replica.name, OutputQuery(ALL_LINES))
    async with asyncio.TaskGroup() as group:
        all_lines = group.create_task(texts(early))
        new_lines = group.create_task(texts(runtime.follow(replica.name, OutputQuery(0))))
    followed = all_lines.result()
    assert "later" in new_lines.result()
    # Podman joins an unfinished line to the one before it.
    joined = ["laterunfinished"] if on_podman(runtime) else ["later", "unfinished"]
    found = list(await runtime.logs(replica.name, 1000))
    # Two pipes have no order between them.
    found_out = [line for line in found if line != "to stderr"]
    assert found_out == [*(f"line {i}" for i in range(50)), *joined]
    assert len(found) == len(found_out) + 1
    lines = list(await runtime.logs(replica.name, 4))
    assert lines == found[-4:]
    timed = await runtime.timed_logs(replica.name, OutputQuery(3))
    assert [line.text for line in timed] == lines[-3:]
    assert all(abs(line.at - time.time()) < 120 for line in timed)
    assert await runtime.timed_logs(replica.name, OutputQuery(3, until=timed[0].at - 60)) == []
    later = OutputQuery(9, since=time.time() + 60)
    assert await runtime.timed_logs(replica.name, later) == []
    written = sorted([*(f"line {i}" for i in range(50)), "to stderr", "later", "unfinished"])
    assert sorted(followed) == written
    # A stream of the ended replica is what is kept of it, from a time on without what is before.
    ended = [line async for line in runtime.follow(replica.name, OutputQuery(ALL_LINES))]
    assert sorted(line.text for line in ended) == written
    last = next(line for line in ended if line.text == "later")
    since = OutputQuery(ALL_LINES, since=last.at)
    again = [line async for line in runtime.follow(replica.name, since)]
    assert again == [line for line in ended if line.at >= last.at]
    assert len(again) < len(written) or on_podman(runtime)  # whose times are whole seconds


async def test_a_stream_continues_where_another_one_stopped(
    runtime: Runtime, engine_image: str
) -> None:
    """Streams are cut and begun again while the replica writes: each line comes once."""
    script = """
import time
for i in range(400):
    print("x" * 40000 if i == 200 else f"line {i}", flush=True)
    if i % 20 == 0: time.sleep(0.05)
time.sleep(5)
"""
    replica = replica_spec(PROJECT, "talker-1", service(engine_image, script, "talker"))
    await start_and_wait(runtime, replica)
    cursor, found = OutputCursor(), list[str]()
    async with asyncio.timeout(60):
        while "line 399" not in found:
            query = OutputQuery(ALL_LINES, since=cursor.at)
            unread, cut = UnreadLines(cursor), len(found) + 37
            async with aclosing(runtime.follow(replica.name, query)) as lines:  # type: ignore[type-var]
                async for line in lines:
                    if unread.includes(line):
                        cursor = cursor.after(line)
                        found.append(line.text)
                    if len(found) == cut or line.text == "line 399":
                        break
    long = [line for line in found if line.startswith("x")]
    assert "".join(long) == "x" * 40000
    others = [line for line in found if not line.startswith("x")]
    assert others == [f"line {i}" for i in range(400) if i != 200]


async def texts(lines: AsyncIterator[OutputLine]) -> list[str]:
    return [line.text async for line in lines]


async def test_a_job_is_not_a_replica_and_leaves_output_and_exit_code(
    runtime: Runtime, engine_image: str
) -> None:
    script = "for i in range(1500): print(i)\nraise SystemExit(3)"
    job = replica_spec(PROJECT, "once-1", service(engine_image, script, "once"), job=True)
    await runtime.prepare(PROJECT, job.service)
    async with ReceivedEvents(runtime) as heard:
        await runtime.start(job)
        lines = await texts(runtime.follow(job.name, OutputQuery(ALL_LINES)))
        assert lines == [str(i) for i in range(1500)]

        async def ended() -> bool:
            (seen,) = await jobs_of(runtime)
            return seen.state is ReplicaState.EXITED

        await wait_until(ended)
        (seen,) = await jobs_of(runtime)
        assert (seen.name, seen.service, seen.exit_code) == (job.name, "once", 3)
        assert list(await runtime.logs(job.name, 2)) == ["1498", "1499"]
        assert not [r for r in await runtime.list() if r.project == PROJECT]
        await runtime.remove(job.name)
    assert await jobs_of(runtime) == []
    assert heard.kinds(job.name) == []


async def jobs_of(runtime: Runtime) -> list[ObservedReplica]:
    return [seen for seen in await runtime.jobs() if seen.project == PROJECT]


async def test_a_second_client_sees_running_replicas(
    runtime: Runtime, web: Service, tmp_path: Path
) -> None:
    replica = replica_spec(PROJECT, "web-1", web)
    await start_and_wait(runtime, replica)
    before = await runtime.list()
    await runtime.close()
    await runtime.open()
    assert await runtime.list() == before
    async with ReceivedEvents(runtime) as heard:
        await runtime.stop(replica.name, 5)
        await heard.wait(EventKind.DIED, replica.name)


async def test_nodes_report_their_resources(runtime: Runtime) -> None:
    (node,) = await runtime.nodes()
    assert node.name
    assert node.cpus >= 1
    assert node.memory > 2**27


async def test_events_arrive_at_once(runtime: Runtime, web: Service) -> None:
    """A start is reported within 100 ms of the runtime's own time for it."""
    late = []
    async with ReceivedEvents(runtime) as heard:
        for number in range(3):
            replica = replica_spec(PROJECT, f"web-{number}", web)
            await start_and_wait(runtime, replica)
            await runtime.stop(replica.name, 5)
            await heard.wait(EventKind.DIED, replica.name)
        late = [came - event.at for came, event in heard.events if event.name]
    print(f"{runtime.name}: events reported after {max(late) * 1000:.1f} ms at most, "
          f"half of them within {statistics.median(late) * 1000:.1f} ms")  # fmt: skip
    # A Swarm reports no events of tasks; they are listed, and a node reports to a manager first.
    assert_prompt(late, 1.0 if runtime.name == "swarm" else 0.1)


async def test_usage_of_running_replicas(runtime: Runtime, web: Service) -> None:
    replica = replica_spec(PROJECT, "web-1", web)
    await start_and_wait(runtime, replica)
    first = (await runtime.usage([replica.name, "no-such-replica"]))[replica.name]
    assert first.memory > 1 << 20
    observed = await runtime.list()
    (seen,) = [r for r in observed if r.name == replica.name]
    for _ in range(20):
        assert await fetch(str(seen.host), seen.port) == "hello"
    (later,) = (await runtime.usage([replica.name])).values()
    assert later.cpu_seconds >= first.cpu_seconds > 0.0
    assert later.at > first.at
    await runtime.stop(replica.name, 5)
    assert await runtime.usage([replica.name]) == {}
