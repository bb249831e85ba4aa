"""A manager of a Swarm with one node, `m1`, that keeps its objects in memory."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

NODE = {
    "ID": "id-m1",
    "Description": {"Hostname": "m1", "Resources": {"NanoCPUs": 4_000_000_000}},
    "Spec": {"Role": "manager", "Availability": "active"},
    "Status": {"State": "ready", "Addr": "10.0.0.1"},
}
CREATED = "2026-01-01T00:00:00Z"
NO_LEADER = (
    "rpc error: code = Unknown desc = The swarm does not have a leader. It's possible that too few "
    "managers are online."
)


async def _no_wait() -> None:
    """Answer at once."""


class StubSwarm:
    """`objects` by kind and id. The task of each service gets the state `task_state` at once.

    - `advertised`: the address with which the Swarm was started.
    - `ended`: names of services whose task has failed.
    - `failure`: the status and message that answer every request to the Swarm; None for the usual
      answers.
    - `before`: awaited before a request `METHOD kind` is answered.
    """

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, dict[str, Any]]] = {
            "services": {},
            "secrets": {},
            "networks": {},
            "nodes": {"id-m1": NODE},
        }
        self.task_state = "running"
        self.ended: set[str] = set()
        self.advertised: str | None = None
        self.failure: tuple[int, str] | None = None
        self.failures = 0
        self.before: dict[str, Callable[[], Awaitable[None]]] = {}
        self._ids = itertools.count(1)

    def names(self, kind: str) -> list[str]:
        """Return the names of the objects of a kind."""
        return sorted(each["Spec"]["Name"] for each in self.objects[kind].values())

    def application(self) -> web.Application:
        """Return the engine's API."""
        app = web.Application()
        app.router.add_get("/version", self._version)
        app.router.add_get("/{version}/info", self._info)
        app.router.add_get("/{version}/events", self._events)
        app.router.add_get("/{version}/tasks", self._tasks)
        app.router.add_get("/{version}/{kind}", self._list)
        app.router.add_get("/{version}/{kind}/{name}", self._inspect)
        app.router.add_post("/{version}/swarm/init", self._init)
        app.router.add_post("/{version}/{kind}/create", self._create)
        app.router.add_delete("/{version}/{kind}/{name}", self._delete)
        return app

    async def _version(self, _: web.Request) -> web.Response:
        return web.json_response({"ApiVersion": "1.41", "MinAPIVersion": "1.24"})

    async def _info(self, _: web.Request) -> web.Response:
        swarm = {
            "LocalNodeState": "active",
            "ControlAvailable": True,
            "NodeID": "id-m1",
            "NodeAddr": "10.0.0.1",
        }
        return web.json_response({"Name": "m1", "LoggingDriver": "json-file", "Swarm": swarm})

    async def _init(self, request: web.Request) -> web.Response:
        self.advertised = (await request.json()).get("AdvertiseAddr")
        return web.json_response("id-m1")

    async def _events(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        await asyncio.Event().wait()
        return answer

    async def _tasks(self, request: web.Request) -> web.Response:
        await self._check(request, "tasks")
        tasks = [self._task(each) for each in self.objects["services"].values()]
        wanted = json.loads(request.query.get("filters", "{}")).get("service")
        return web.json_response([t for t in tasks if not wanted or t["ServiceID"] in wanted])

    def _task(self, service: dict[str, Any]) -> dict[str, Any]:
        state = "failed" if service["Spec"]["Name"] in self.ended else self.task_state
        ended = state in ("failed", "rejected")
        return {
            "ID": f"task-of-{service['ID']}",
            "ServiceID": service["ID"],
            "NodeID": "id-m1",
            "Spec": service["Spec"]["TaskTemplate"],
            "DesiredState": "shutdown" if ended else "running",
            "CreatedAt": CREATED,
            "Status": {
                "State": state,
                "Timestamp": CREATED,
                "Err": "no such mount" if ended else "",
            },
        }

    async def _list(self, request: web.Request) -> web.Response:
        kind = request.match_info["kind"]
        await self._check(request, kind)
        wanted = json.loads(request.query.get("filters", "{}")).get("label", ())
        pairs = [each.split("=", 1) for each in wanted]
        found = [
            each
            for each in self.objects[kind].values()
            if all((each["Spec"].get("Labels") or {}).get(key) == value for key, value in pairs)
        ]
        return web.json_response(found)

    async def _inspect(self, request: web.Request) -> web.Response:
        kind = request.match_info["kind"]
        await self._check(request, kind)
        return web.json_response(self._find(kind, request.match_info["name"]))

    async def _create(self, request: web.Request) -> web.Response:
        kind = request.match_info["kind"]
        await self._check(request, kind)
        spec = await request.json()
        if spec["Name"] in self.names(kind):
            raise refusal(409, f"{spec['Name']} exists")
        made = f"{kind}-{next(self._ids)}"
        times = {"CreatedAt": CREATED, "UpdatedAt": CREATED, "Version": {"Index": 1}}
        for secret in self._secrets_of(spec):
            if secret not in self.objects["secrets"]:
                raise refusal(400, f"secret {secret} not found")
        self.objects[kind][made] = {"ID": made, "Spec": spec, **times}
        return web.json_response({"ID": made}, status=201)

    async def _delete(self, request: web.Request) -> web.Response:
        kind = request.match_info["kind"]
        await self._check(request, kind)
        found = self._find(kind, request.match_info["name"])
        services = self.objects["services"].values()
        if any(found["ID"] in self._secrets_of(each["Spec"]) for each in services):
            raise refusal(400, "secret is in use")
        del self.objects[kind][found["ID"]]
        return web.Response()

    def _secrets_of(self, spec: dict[str, Any]) -> list[str]:
        container = (spec.get("TaskTemplate") or {}).get("ContainerSpec") or {}
        return [each["SecretID"] for each in container.get("Secrets") or ()]

    def _find(self, kind: str, name: str) -> dict[str, Any]:
        for each in self.objects[kind].values():
            if name in (each["ID"], each["Spec"].get("Name")):
                return each
        raise refusal(404, f"{name} not found")

    async def _check(self, request: web.Request, kind: str) -> None:
        await self.before.get(f"{request.method} {kind}", _no_wait)()
        if self.failure is not None:
            self.failures += 1
            raise refusal(*self.failure)


def refusal(status: int, message: str) -> web.HTTPException:
    """Return an answer to raise in a handler."""

    class Refusal(web.HTTPException):
        status_code = status

    answer = Refusal(text=json.dumps({"message": message}))
    answer.headers["Content-Type"] = "application/json"  # as an engine: without an encoding
    return answer


@asynccontextmanager
async def serve_swarm(path: Path) -> AsyncIterator[StubSwarm]:
    """Serve a stub at a Unix socket."""
    swarm = StubSwarm()
    runner = web.AppRunner(swarm.application(), shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, str(path)).start()
    try:
        yield swarm
    finally:
        await runner.cleanup()
