"""The runtime on a Swarm in memory: one that refuses requests, and its secrets."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from meshd.discovery.watch import RuntimeWatcher
from meshd.model.runtime import ReplicaSpec
from meshd.runtime.base import EventKind, RuntimeFailure, RuntimeUnavailable, StartFailed
from meshd.runtime.swarm.runtime import SwarmRuntime
from meshd.spec.model import Mount, Service
from tests.support.stub_swarm import NO_LEADER, StubSwarm, refusal, serve_swarm
from tests.support.waiting import wait_until


@pytest.fixture
async def swarm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StubSwarm]:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/engine.sock")
    async with serve_swarm(tmp_path / "engine.sock") as stub:
        yield stub


@pytest.fixture
async def runtime(swarm: StubSwarm) -> AsyncIterator[SwarmRuntime]:
    ready = SwarmRuntime()
    await ready.open()
    yield ready
    await ready.close()


@pytest.mark.parametrize(
    "failure", [(500, NO_LEADER), (503, "no manager answers"), (500, "raft: stopped")]
)
async def test_the_watch_outlasts_a_swarm_that_refuses_to_list(
    swarm: StubSwarm, runtime: SwarmRuntime, failure: tuple[int, str]
) -> None:
    changes = 0

    def count() -> None:
        nonlocal changes
        changes += 1

    watcher = RuntimeWatcher(runtime, count, resync=0.1)
    watching = asyncio.create_task(watcher.run())
    await watcher.ready()
    swarm.failure = failure
    await wait_until(lambda: watcher.problem is not None and swarm.failures > 2)
    swarm.failure = None
    await wait_until(lambda: watcher.problem is None)
    assert not watching.done()
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


async def test_a_refused_listing_cuts_the_events(swarm: StubSwarm, runtime: SwarmRuntime) -> None:
    kinds = []
    async for event in runtime.watch():
        kinds.append(event.kind)
        swarm.failure = (500, NO_LEADER) if event.kind is EventKind.RESYNC else None
        if len(kinds) == 3:
            break
    assert kinds == [EventKind.RESYNC, EventKind.CUT, EventKind.RESYNC]


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        ((500, NO_LEADER), RuntimeUnavailable),
        ((503, "no manager answers"), RuntimeUnavailable),
        ((500, "name must be valid"), RuntimeFailure),
    ],
)
async def test_a_swarm_without_a_leader_is_unavailable(
    swarm: StubSwarm,
    runtime: SwarmRuntime,
    failure: tuple[int, str],
    expected: type[RuntimeFailure],
) -> None:
    """So that nothing counts a start that failed then as a fault of the revision."""
    swarm.failure = failure
    with pytest.raises(RuntimeFailure) as raised:
        await runtime.list()
    assert type(raised.value) is expected
    assert failure[1] in str(raised.value)


def replica(number: int, *mounts: Mount) -> ReplicaSpec:
    """A replica of revision r1 of shop/web, on the node of the Swarm."""
    service = Service(
        name="web", image="web:1", image_id="ab" * 32, plain=True, networks=(), volumes=mounts
    )
    return ReplicaSpec(f"shop-web-{number}", "shop", service, "r1", node="m1")


def token_of(folder: Path) -> Mount:
    return Mount(type="bind", target="/run/token", source=str(folder / "token"), version="1a2b")


async def test_a_secret_outlives_the_file_that_it_was_made_of(
    swarm: StubSwarm, runtime: SwarmRuntime, tmp_path: Path
) -> None:
    """The leader that starts the next replica may be on another host."""
    token = token_of(tmp_path)
    Path(token.source).write_bytes(b"secret")
    await runtime.start(replica(1, token))
    Path(token.source).unlink()
    await runtime.start(replica(2, token))
    assert len(swarm.objects["services"]) == 2
    assert len(swarm.objects["secrets"]) == 1
    other = token.model_copy(update={"target": "/run/other"})
    with pytest.raises(StartFailed, match="token cannot be read: No such file"):
        await runtime.start(replica(3, other))


async def test_replicas_that_start_together_have_one_secret(
    swarm: StubSwarm, runtime: SwarmRuntime
) -> None:
    config = Mount(type="file", target="/etc/app.conf", content="a=1", mode=0o444)
    await asyncio.gather(*(runtime.start(replica(number, config)) for number in range(3)))
    assert len(swarm.objects["services"]) == 3
    assert len(swarm.objects["secrets"]) == 1


CONFIG = Mount(type="file", target="/etc/app.conf", content="a=1", mode=0o444)


async def test_the_secrets_of_a_revision_that_does_not_start_are_removed(
    swarm: StubSwarm, runtime: SwarmRuntime
) -> None:
    swarm.task_state = "rejected"
    with pytest.raises(StartFailed, match="no such mount"):
        await runtime.start(replica(1, CONFIG))
    assert swarm.objects["services"] == swarm.objects["secrets"] == {}

    async def refuse() -> None:
        raise refusal(400, "port is taken")

    swarm.before["POST services"] = refuse
    with pytest.raises(StartFailed, match=r"^replica shop-web-1: port is taken$"):
        await runtime.start(replica(1, CONFIG))
    assert swarm.objects["secrets"] == {}


async def test_a_secret_that_another_replica_has_is_kept(
    swarm: StubSwarm, runtime: SwarmRuntime
) -> None:
    await runtime.start(replica(1, CONFIG))
    swarm.ended.add("shop-web-2")
    with pytest.raises(StartFailed):
        await runtime.start(replica(2, CONFIG))
    assert swarm.names("services") == ["shop-web-1"]
    assert len(swarm.objects["secrets"]) == 1
    swarm.ended.add("shop-web-1")
    await runtime.remove("shop-web-1")
    assert swarm.objects["secrets"] == {}


async def test_a_start_keeps_its_secret_while_another_replica_is_removed(
    swarm: StubSwarm, runtime: SwarmRuntime
) -> None:
    await runtime.start(replica(1, CONFIG))
    swarm.ended.add("shop-web-1")
    removals = []

    async def remove_the_other() -> None:
        removals.append(asyncio.ensure_future(runtime.remove("shop-web-1")))
        await asyncio.wait(removals, timeout=0.3)

    swarm.before["POST services"] = remove_the_other
    await runtime.start(replica(2, CONFIG))
    await asyncio.gather(*removals)
    assert swarm.names("services") == ["shop-web-2"]
    assert len(swarm.objects["secrets"]) == 1


async def test_a_start_that_is_cancelled_leaves_no_secret(
    swarm: StubSwarm, runtime: SwarmRuntime
) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        begun.set()
        await ended.wait()

    swarm.before["POST services"] = wait
    starting = asyncio.ensure_future(runtime.start(replica(1, CONFIG)))
    await begun.wait()
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    assert swarm.objects["secrets"] == {}
    ended.set()
