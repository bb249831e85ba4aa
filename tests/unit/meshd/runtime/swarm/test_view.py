"""Whether a killed task of this node ran out of memory, which the Swarm does not say."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from meshd.runtime.docker.engine import Engine
from meshd.runtime.swarm.api import SwarmApi
from meshd.runtime.swarm.observe import container_of
from meshd.runtime.swarm.view import SwarmView
from tests.unit.meshd.runtime.swarm.test_observe import RECORDED, service, task

ENDED = task("out of memory")
ENDED["ServiceID"] = service()["ID"]


class OneTask:
    """A Swarm with one service, whose task was killed."""

    async def list(self, kind: str, filters: object = None) -> Sequence[dict[str, Any]]:
        return {"services": [service()], "tasks": [ENDED], "nodes": [RECORDED["node"]]}[kind]


class OneContainer:
    """The engine of the task's node. `flag`: what the inspection says; `event`: whether the engine
    reported that memory ran out."""

    def __init__(self, flag: bool, event: bool) -> None:
        self.flag, self.event = flag, event
        self.asked: list[tuple[str, str, float]] = []

    @asynccontextmanager
    async def request(self, *_: object, **__: object) -> AsyncIterator[Any]:
        containers = SimpleNamespace(container=lambda _: self)
        yield SimpleNamespace(containers=containers)

    async def show(self) -> dict[str, Any]:
        state = {"Status": "exited", "OOMKilled": self.flag, "Running": False}
        return {"State": state | {"FinishedAt": "2026-01-01T00:00:00Z"}}

    async def events_of(
        self, container: str, action: str, since: float, until: float
    ) -> Sequence[dict[str, Any]]:
        self.asked.append((container, action, round(until - since, 3)))
        return [{"Action": action}] if self.event else []


@pytest.mark.parametrize(
    ("flag", "event", "out_of_memory"),
    [(True, False, True), (False, True, True), (False, False, False)],
    ids=["inspection", "event", "neither"],
)
async def test_memory_that_ran_out_is_known_from_either(
    flag: bool, event: bool, out_of_memory: bool
) -> None:
    engine = OneContainer(flag, event)
    view = SwarmView(cast("Engine", engine), cast("SwarmApi", OneTask()))
    view.node_id = ENDED["NodeID"]
    for _ in range(2):
        (seen,) = await view.all()
        assert (seen.exit_code, seen.oom_killed) == (137, out_of_memory)
    assert engine.asked == ([] if flag else [(container_of(ENDED), "oom", 0.6)]), "once"
