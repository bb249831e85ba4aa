"""The executor prepares a revision again if its image was removed since it was prepared, and starts
replicas in place of failed ones without delay."""

import asyncio
from typing import Any

import msgspec
import pytest

from meshd.model.operation import ForgetProject, PrepareService, StartReplica, Urgency
from meshd.model.runtime import ReplicaSpec
from meshd.reconcile.execute.executor import CONCURRENT_STARTS, Executor
from meshd.runtime.base import ImageMissing
from meshd.spec.model import Service
from tests.support.waiting import wait_until

WEB = Service(name="web", image="registry.example/web:1")
START = StartReplica(
    name="shop-web-1", project="shop", service="web", revision="r1", cause="1 desired"
)


class PrunedRuntime:
    """A runtime whose image is on it only after `prepare`; nothing else is real."""

    def __init__(self, obtainable: bool) -> None:
        self.obtainable = obtainable
        self.present = False
        self.calls: list[str] = []

    async def prepare(self, project: str, service: Service, networks: object) -> None:
        self.calls.append("prepare")
        if not self.obtainable:
            raise ImageMissing("the registry does not have it")
        self.present = True

    async def teardown(self, project: str) -> None:
        self.calls.append("teardown")

    async def start(self, replica: ReplicaSpec) -> str:
        self.calls.append("start")
        if not self.present:
            raise ImageMissing("it is not on the engine")
        return replica.name


class KnownSpec:
    """Knows the spec of one service."""

    def service(self, _: object) -> tuple[Service, tuple[()]]:
        return WEB, ()

    def replica(self, start: StartReplica) -> ReplicaSpec:
        return ReplicaSpec(start.name, start.project, WEB, start.revision, clone_of=start.clone_of)


class NoGateways:
    async def discover(self, *_: object) -> None: ...
    def forget(self, project: str) -> None: ...


def executor_of(runtime: PrunedRuntime) -> Executor:
    parts: tuple[Any, ...] = (runtime, KnownSpec(), NoGateways())
    return Executor(*parts, on_done=lambda _: None, keep_output=lambda _, __: None)


async def test_a_start_pulls_an_image_that_was_removed_after_it_was_prepared() -> None:
    runtime = PrunedRuntime(obtainable=True)
    executor = executor_of(runtime)
    await executor.perform(PrepareService(project="shop", spec=WEB, revision="r1", cause="deploy"))
    runtime.present = False
    result = await executor.perform(START)
    assert result.replica == "shop-web-1"
    assert runtime.calls == ["prepare", "start", "prepare", "start"]
    assert executor.prepared == {("shop/web", "r1")}


async def test_an_image_that_cannot_be_pulled_again_is_reported() -> None:
    runtime = PrunedRuntime(obtainable=False)
    executor = executor_of(runtime)
    with pytest.raises(ImageMissing, match="the registry does not have it"):
        await executor.perform(START)
    assert executor.prepared == frozenset()


async def test_a_project_that_was_taken_down_is_prepared_again() -> None:
    runtime = PrunedRuntime(obtainable=True)
    executor = executor_of(runtime)
    shop = PrepareService(project="shop", spec=WEB, revision="r1", cause="deploy")
    other = PrepareService(project="shop2", spec=WEB, revision="r1", cause="deploy")
    for operation in (shop, other, ForgetProject(project="shop", cause="down"), other, shop):
        await executor.perform(operation)
    assert runtime.calls == ["prepare", "prepare", "teardown", "prepare"]


async def test_a_copy_of_an_adopted_container_is_not_prepared() -> None:
    runtime = PrunedRuntime(obtainable=True)
    executor = executor_of(runtime)
    copy = StartReplica(
        name="shop-web-2", project="shop", service="web", revision="r1", cause="2 desired",
        clone_of="shop_web_1",
    )  # fmt: skip
    with pytest.raises(ImageMissing, match="not on the engine"):
        await executor.perform(copy)
    assert runtime.calls == ["start"]


class SlowRuntime(PrunedRuntime):
    """A runtime whose starts end when they are allowed to."""

    def __init__(self) -> None:
        super().__init__(obtainable=True)
        self.allowed = asyncio.Event()
        self.begun: list[str] = []

    async def start(self, replica: ReplicaSpec) -> str:
        self.begun.append(replica.name)
        await self.allowed.wait()
        return replica.name


async def test_a_start_in_place_of_a_failed_replica_does_not_wait_for_growth() -> None:
    runtime = SlowRuntime()
    executor = executor_of(runtime)
    names = [f"grow-{number}" for number in range(CONCURRENT_STARTS + 3)]
    for name in names:
        executor.begin(msgspec.structs.replace(START, name=name))
    executor.begin(msgspec.structs.replace(START, name="heal", urgency=Urgency.HEAL))
    await wait_until(lambda: "heal" in runtime.begun, 5.0, "the start of heal")
    assert runtime.begun == [*names[:CONCURRENT_STARTS], "heal"]
    await executor.close()
