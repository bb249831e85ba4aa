"""The runtime on an engine that answers as Podman 4.3 does."""

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from meshd.runtime.base import ReplicaRunning, RuntimeFailure, RuntimeUnavailable
from meshd.runtime.docker.create import inspect
from meshd.runtime.docker.runtime import DockerRuntime
from meshd.spec import labels


class StubPodman:
    """One container, `web`, with its state. It records the requests that change it."""

    def __init__(self) -> None:
        self.status = "running"
        self.calls: list[str] = []
        self.failing_lists = 0
        self.on_list: Callable[[], object] = bool

    async def version(self, _: web.Request) -> web.Response:
        return self._untyped({"ApiVersion": "1.41", "MinAPIVersion": "1.24"})

    async def inspect(self, _: web.Request) -> web.Response:
        running = self.status in ("running", "paused")
        state = {"Status": self.status, "Running": running, "Paused": self.status == "paused"}
        return web.json_response({"Id": "id-web", "State": state})

    async def list(self, _: web.Request) -> web.Response:
        if self.failing_lists:
            self.failing_lists -= 1
            return self._refuse("container 12ab does not exist in database")
        self.on_list()
        return web.json_response([])

    async def stats(self, _: web.Request) -> web.Response:
        cpu = {"cpu_usage": {"total_usage": 2_000_000_000}}
        return self._untyped({"cpu_stats": cpu, "memory_stats": {"usage": 4096}})

    async def remove(self, _: web.Request) -> web.Response:
        if self.status != "exited":
            return self._refuse(f"cannot remove container as it is {self.status}")
        return self._refuse("device is busy")

    async def stop(self, _: web.Request) -> web.Response:
        if self.status == "paused":
            return self._refuse("container is running or paused, refusing to clean up")
        if self.status == "stuck":
            return self._refuse("the process does not end")
        self.calls.append("stop")
        self.status = "exited"
        return web.Response(status=204)

    async def unpause(self, _: web.Request) -> web.Response:
        self.calls.append("unpause")
        self.status = "running"
        return web.Response(status=204)

    def _untyped(self, answer: dict[str, Any]) -> web.Response:
        return web.Response(body=json.dumps(answer).encode(), headers={"Content-Type": ""})

    def _refuse(self, message: str) -> web.Response:
        return web.json_response({"message": message}, status=500)


@pytest.fixture
async def podman(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StubPodman]:
    engine = StubPodman()
    app = web.Application()
    app.router.add_get("/version", engine.version)
    app.router.add_get("/{version}/containers/json", engine.list)
    app.router.add_get("/{version}/containers/web/json", engine.inspect)
    app.router.add_get("/{version}/containers/web/stats", engine.stats)
    app.router.add_delete("/{version}/containers/web", engine.remove)
    app.router.add_post("/{version}/containers/web/stop", engine.stop)
    app.router.add_post("/{version}/containers/web/unpause", engine.unpause)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "engine.sock")).start()
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/engine.sock")
    yield engine
    await runner.cleanup()


@pytest.fixture
async def runtime(podman: StubPodman) -> AsyncIterator[DockerRuntime]:
    ready = DockerRuntime()
    await ready._engine.open()
    yield ready
    await ready.close()


async def test_answers_need_no_content_type(runtime: DockerRuntime) -> None:
    usage = (await runtime.usage(["web"]))["web"]
    assert (usage.cpu_seconds, usage.memory) == (2.0, 4096)


@pytest.mark.parametrize("status", ["running", "paused", "stopping"])
async def test_a_running_container_is_named_as_the_reason(
    runtime: DockerRuntime, podman: StubPodman, status: str
) -> None:
    podman.status = status
    with pytest.raises(ReplicaRunning, match="web is running"):
        await runtime.remove("web")


async def test_other_reasons_are_passed_on(runtime: DockerRuntime, podman: StubPodman) -> None:
    podman.status = "exited"
    with pytest.raises(RuntimeFailure, match="device is busy") as raised:
        await runtime.remove("web")
    assert not isinstance(raised.value, ReplicaRunning | RuntimeUnavailable)
    podman.status = "stuck"
    with pytest.raises(RuntimeFailure, match="does not end"):
        await runtime.stop("web", 1)


async def test_a_paused_container_is_resumed_to_be_stopped(
    runtime: DockerRuntime, podman: StubPodman
) -> None:
    podman.status = "paused"
    await runtime.stop("web", 1)
    assert podman.calls == ["unpause", "stop"]


async def test_a_container_removed_during_a_listing_is_no_outage(
    runtime: DockerRuntime, podman: StubPodman
) -> None:
    podman.failing_lists = 1
    assert await runtime.list() == []
    podman.failing_lists = 2
    with pytest.raises(RuntimeFailure, match="does not exist"):
        await runtime.list()


async def test_a_container_that_starts_during_a_listing_is_not_forgotten(
    runtime: DockerRuntime, podman: StubPodman
) -> None:
    """The file gives it a name, so the engine does not know it by that of the replica."""
    begun = "2026-01-01T00:00:00Z"
    marks = {
        labels.PROJECT: "shop", labels.SERVICE: "web", labels.REPLICA: "shop-web-a",
        labels.CONTAINER_NAME: "given",
    }  # fmt: skip
    info = {
        "Id": "c1", "Name": "/given", "Created": begun, "Image": "sha256:1",
        "Config": {"Labels": marks}, "HostConfig": {}, "NetworkSettings": {"Networks": {}},
        "State": {
            "Status": "running", "Running": True, "ExitCode": 0,
            "StartedAt": begun, "FinishedAt": "0001-01-01T00:00:00Z",
        },
    }  # fmt: skip
    podman.on_list = lambda: runtime._sightings.see(info, "n", 1.0)
    assert await runtime.list() == []
    assert runtime._id("shop-web-a") == "c1"
    podman.on_list = bool
    assert await runtime.list() == []
    assert runtime._id("shop-web-a") == "shop-web-a"


async def test_a_container_that_stops_still_runs(
    runtime: DockerRuntime, podman: StubPodman
) -> None:
    podman.status = "stopping"
    assert (await inspect(runtime._engine, "web"))["State"]["Running"]
