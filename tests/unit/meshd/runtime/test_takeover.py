"""A Swarm that takes over what an engine runs: which side gets what."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

from meshd.model.runtime import Holder, ObservedReplica, ReplicaSpec, ReplicaState
from meshd.runtime.base import EventKind, RuntimeEvent
from meshd.runtime.takeover import TakeoverRuntime
from meshd.spec.model import Service

OURS = Holder("a", "h", "/s")


class Side:
    """One runtime, with its calls in order."""

    own_node = "m1"

    def __init__(self, *names: str) -> None:
        self.seen = [replica(name) for name in names]
        self.calls: list[tuple[object, ...]] = []
        self.held = {"shop": OURS}

    async def list(self) -> Sequence[ObservedReplica]:
        return self.seen

    async def jobs(self) -> Sequence[ObservedReplica]:
        return ()

    async def claims(self) -> dict[str, Holder]:
        return self.held

    async def prepare(self, project: str, service: Service, _: object = ()) -> None:
        self.calls.append(("prepare", service.name))

    async def start(self, spec: ReplicaSpec) -> ObservedReplica:
        self.seen.append(replica(spec.name))
        self.calls.append(("start", spec.name))
        return self.seen[-1]

    async def remove(self, name: str) -> None:
        self.seen = [each for each in self.seen if each.name != name]
        self.calls.append(("remove", name))

    async def teardown(self, project: str) -> None:
        self.calls.append(("teardown", project))

    async def unclaim(self, project: str, holder: Holder) -> None:
        assert holder == OURS
        del self.held[project]

    async def network_names(self, name: str) -> dict[str, Sequence[str]]:
        return {"shop_default": ("alias",), f"shop.{name[:-2]}": ()}

    async def connect(self, name: str, network: str, names: Sequence[str]) -> None:
        self.calls.append(("connect", name, network, tuple(names)))

    async def overlay_of(self, network: str) -> str:
        return "shop_default__swarm" if network == "shop_default" else ""

    async def watch(self) -> AsyncIterator[RuntimeEvent]:
        yield RuntimeEvent(EventKind.RESYNC)
        for each in self.seen:
            yield RuntimeEvent(EventKind.CHANGED, each.name, replica=each)


def replica(name: str) -> ObservedReplica:
    return ObservedReplica(
        name, name, "shop", name[:-2], "r1", ReplicaState.RUNNING, managed=True, node="elsewhere"
    )


def spec(name: str) -> ReplicaSpec:
    return ReplicaSpec(name, "shop", Service(name=name[:-2], image="x"), "r1")


def both(swarm: Side, docker: Side, *staying: str) -> TakeoverRuntime:
    one: Any = swarm
    other: Any = docker
    return TakeoverRuntime(one, other, staying)


async def test_new_replicas_start_in_the_swarm_unless_their_service_stays() -> None:
    """Also: containers join the overlays, under the name of their service too."""
    swarm, docker = Side(), Side("web-1", "db-1")
    runtime = both(swarm, docker, "shop/db")
    assert {each.name: each.node for each in await runtime.list()} == {"web-1": "m1", "db-1": "m1"}
    await runtime.prepare("shop", spec("web-2").service)
    assert swarm.calls == [("prepare", "web")]
    joined = [
        ("connect", name, "shop_default__swarm", (name[:-2], "alias")) for name in ("web-1", "db-1")
    ]
    assert docker.calls == joined
    await runtime.start(spec("web-2"))
    started = await runtime.start(replace(spec("db-2"), node="m1"))
    assert swarm.calls[1:] == [("start", "web-2")]
    assert docker.calls[2] == ("start", "db-2")
    assert docker.calls[3][:2] == ("connect", "db-2")
    assert started.node == "m1"
    assert runtime.on_engine == {"web-1", "db-1", "db-2"}


async def test_with_its_last_container_a_project_leaves_the_engine() -> None:
    swarm, docker = Side("web-2"), Side("web-1")
    runtime = both(swarm, docker)
    await runtime.list()
    await runtime.remove("web-2")
    assert swarm.calls == [("remove", "web-2")]
    assert docker.calls == []
    await runtime.remove("web-1")
    assert docker.calls == [("remove", "web-1"), ("teardown", "shop")]
    assert docker.held == {}


async def test_a_project_with_a_service_that_stays_keeps_its_networks() -> None:
    docker = Side("web-1")
    runtime = both(Side(), docker, "shop/db")
    await runtime.list()
    await runtime.remove("web-1")
    assert docker.calls == [("remove", "web-1")]
    assert docker.held == {"shop": OURS}


async def test_events_of_both_sides_are_reported() -> None:
    runtime = both(Side("web-2"), Side("web-1"))
    events = runtime.watch()
    found = [await anext(events) for _ in range(4)]
    await events.aclose()  # type: ignore[attr-defined]
    nodes = {each.name: each.replica.node for each in found if each.replica is not None}
    assert nodes == {"web-1": "m1", "web-2": "elsewhere"}
    assert sum(each.kind is EventKind.RESYNC for each in found) == 2
