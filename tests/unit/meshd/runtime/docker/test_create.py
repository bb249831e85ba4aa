"""Creating containers: names, platforms, API versions and peers, with a stub of the engine."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from meshd.model.runtime import ReplicaSpec
from meshd.runtime.base import StartFailed
from meshd.runtime.docker.container import create_request
from meshd.runtime.docker.create import create, find_peers
from meshd.runtime.docker.engine import Engine
from meshd.spec.model import EngineOptions, Healthcheck, Service


class StubEngine:
    """An engine whose containers are their labels by name. It records what it is asked to do."""

    def __init__(self) -> None:
        self.containers: dict[str, dict[str, str]] = {}
        self.calls: list[tuple[str, str, str]] = []

    async def version(self, _: web.Request) -> web.Response:
        return web.json_response({"ApiVersion": "1.47", "MinAPIVersion": "1.24"})

    async def list(self, _: web.Request) -> web.Response:
        found = [
            {"Id": f"id-{name}", "Created": created, "Labels": labels}
            for created, (name, labels) in enumerate(self.containers.items())
        ]
        return web.json_response(found)

    async def inspect(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in self.containers:
            return web.json_response({"message": "no such container"}, status=404)
        labels = self.containers[name]
        state = {"Status": "running", "Running": True}
        return web.json_response({"Id": f"id-{name}", "Config": {"Labels": labels}, "State": state})

    async def rename(self, request: web.Request) -> web.Response:
        old, new = request.match_info["id"].removeprefix("id-"), request.query["name"]
        self.containers[new] = self.containers.pop(old)
        self.calls.append(("rename", old, new))
        return web.Response()

    async def create(self, request: web.Request) -> web.Response:
        name, version = request.query["name"], request.match_info["version"]
        if name in self.containers:
            return web.json_response({"message": "in use"}, status=409)
        config: dict[str, Any] = json.loads(await request.text())
        self.containers[name] = config["Labels"]
        self.calls.append(("create", name, f"{version} {request.query.get('platform', '')}"))
        return web.json_response({"Id": f"id-{name}"})


@pytest.fixture
async def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StubEngine]:
    engine = StubEngine()
    app = web.Application()
    app.router.add_get("/version", engine.version)
    app.router.add_get("/{version}/containers/json", engine.list)
    app.router.add_get("/{version}/containers/{name}/json", engine.inspect)
    app.router.add_post("/{version}/containers/create", engine.create)
    app.router.add_post("/{version}/containers/{id}/rename", engine.rename)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "engine.sock")).start()
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/engine.sock")
    yield engine
    await runner.cleanup()


@pytest.fixture
async def engine(stub: StubEngine) -> AsyncIterator[Engine]:
    ready = Engine()
    await ready.open()
    yield ready
    await ready.close()


async def start(engine: Engine, name: str, service: Service, project: str = "shop") -> str:
    replica = ReplicaSpec(name, project, service, "r")
    return await create(engine, name, create_request(replica, "json-file"))


NAMED = Service(
    name="db", image="i", plain=True, networks=("n",), options=EngineOptions(container_name="box")
)


async def test_a_successor_takes_the_name_of_its_predecessor(
    stub: StubEngine, engine: Engine
) -> None:
    await start(engine, "shop-db-1", NAMED)
    await start(engine, "shop-db-2", NAMED)
    assert stub.calls == [
        ("create", "box", "v1.41 "),
        ("rename", "box", "shop-db-1"),
        ("create", "box", "v1.41 "),
    ]


async def test_the_name_of_another_service_is_not_taken(stub: StubEngine, engine: Engine) -> None:
    await start(engine, "other-db-1", NAMED, project="other")
    with pytest.raises(StartFailed, match="a container named box already exists; remove it first"):
        await start(engine, "shop-db-1", NAMED)
    stub.containers["box"] = {}
    with pytest.raises(StartFailed, match="a container named box already exists"):
        await start(engine, "shop-db-1", NAMED)


async def test_the_platform_and_the_api_version_of_a_request(
    stub: StubEngine, engine: Engine
) -> None:
    options = EngineOptions(platform="linux/arm64")
    service = Service(name="web", image="i", plain=True, networks=("n",), options=options)
    await start(engine, "shop-web-1", service)
    newer = service.model_copy(update={"healthcheck": Healthcheck(start_interval=1)})
    await start(engine, "shop-web-2", newer)
    assert [call[2] for call in stub.calls] == ["v1.41 linux/arm64", "v1.44 linux/arm64"]


async def test_the_newest_container_of_a_service_is_its_peer(
    stub: StubEngine, engine: Engine
) -> None:
    for name in ("shop-db-1", "shop-db-2"):
        await start(engine, name, NAMED.model_copy(update={"options": EngineOptions()}))
    await start(engine, "shop-web-1", Service(name="web", image="i"))
    stub.containers["job"] = {**stub.containers["shop-db-2"], "mesh.job": "j"}
    found = await find_peers(engine, "shop", {"db", "none"})
    assert found == {"db": "id-shop-db-2"}
