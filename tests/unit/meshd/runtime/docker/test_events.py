"""Why a container was killed, from the engine's events and its inspection in any order, with a stub
of the engine."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from meshd.model.runtime import ReplicaState
from meshd.runtime.base import EventKind
from meshd.runtime.docker.engine import Engine
from meshd.runtime.docker.events import OUT_OF_MEMORY_PATIENCE, Sightings, replica_event
from meshd.spec import labels

ID = "c1"
MARKS = {labels.PROJECT: "shop", labels.SERVICE: "web", labels.MANAGED: "1"}
AT = 1_700_000_000


class StubEngine:
    """An engine with one container, and the events of it that a later question finds."""

    def __init__(self) -> None:
        self.late_events: list[dict[str, Any]] = []
        self.questions: list[tuple[dict[str, Any], float]] = []
        self.info: dict[str, Any] = {
            "Id": ID, "Name": "/web-1", "Created": "2026-01-01T00:00:00Z", "Image": "sha256:1",
            "Config": {"Labels": MARKS}, "HostConfig": {"Memory": 1 << 25},
            "NetworkSettings": {"Networks": {}},
            "State": {
                "Status": "running", "Running": True, "ExitCode": 0, "OOMKilled": False,
                "StartedAt": "2026-01-01T00:00:00Z", "FinishedAt": "0001-01-01T00:00:00Z",
            },
        }  # fmt: skip

    def end(self, out_of_memory: bool) -> None:
        """Record the container as killed."""
        self.info["State"] |= {
            "Status": "exited", "Running": False, "ExitCode": 137, "OOMKilled": out_of_memory
        }  # fmt: skip

    async def version(self, _: web.Request) -> web.Response:
        return web.json_response({"ApiVersion": "1.47", "MinAPIVersion": "1.24"})

    async def inspect(self, _: web.Request) -> web.Response:
        return web.json_response(self.info)

    async def events(self, request: web.Request) -> web.Response:
        query = request.query
        self.questions.append((json.loads(query["filters"]), float(query["until"]) - AT))
        return web.Response(text="".join(json.dumps(each) + "\n" for each in self.late_events))


@pytest.fixture
async def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StubEngine]:
    engine = StubEngine()
    app = web.Application()
    app.router.add_get("/version", engine.version)
    app.router.add_get("/{version}/events", engine.events)
    app.router.add_get("/{version}/containers/{name}/json", engine.inspect)
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


def event(action: str, **attributes: str) -> dict[str, Any]:
    actor = {"ID": ID, "Attributes": {"name": "web-1", **MARKS, **attributes}}
    return {"Type": "container", "Action": action, "Actor": actor, "timeNano": AT * 10**9}


OOM, DIE = event("oom"), event("die", exitCode="137")
KILL = event("kill", signal="9")


@pytest.mark.parametrize(
    ("flag", "memory", "stream", "late", "out_of_memory", "asks"),
    [
        (True, 1, [OOM, DIE], [], True, False),
        (True, 0, [DIE], [], True, False),
        (False, 1, [OOM, DIE], [], True, False),
        (False, 1, [DIE], [OOM], True, True),
        (False, 1, [DIE], [], False, True),
        (False, 0, [DIE], [OOM], False, False),
        (False, 1, [KILL, DIE], [OOM], False, False),
    ],
    ids=["both", "inspection", "event first", "event last", "neither", "no limit", "requested"],
)
async def test_memory_that_ran_out_is_known_in_any_order(
    stub: StubEngine,
    engine: Engine,
    flag: bool,
    memory: int,
    stream: list[dict[str, Any]],
    late: list[dict[str, Any]],
    out_of_memory: bool,
    asks: bool,
) -> None:
    stub.info["HostConfig"]["Memory"] = memory << 25
    sightings = Sightings()
    sightings.see(stub.info, "n", 1.0)
    stub.end(flag)
    stub.late_events = late
    seen = [await replica_event(engine, sightings, "n", each) for each in stream]
    died = seen[-1]
    assert died is not None
    assert died.replica is not None
    assert (died.kind, died.replica.state) == (EventKind.DIED, ReplicaState.EXITED)
    assert (died.replica.exit_code, died.replica.oom_killed) == (137, out_of_memory)
    filters = {"type": ["container"], "container": [ID], "event": ["oom"]}
    assert stub.questions == ([(filters, pytest.approx(OUT_OF_MEMORY_PATIENCE))] if asks else [])
    assert sightings.see(stub.info, "n", 2.0).oom_killed is out_of_memory, "a later listing"


async def test_a_new_start_forgets_that_memory_ran_out(stub: StubEngine, engine: Engine) -> None:
    sightings = Sightings()
    sightings.see(stub.info, "n", 1.0)
    for each in (OOM, event("start")):
        await replica_event(engine, sightings, "n", each)
    stub.end(out_of_memory=False)
    died = await replica_event(engine, sightings, "n", DIE)
    assert died is not None
    assert died.replica is not None
    assert not died.replica.oom_killed
