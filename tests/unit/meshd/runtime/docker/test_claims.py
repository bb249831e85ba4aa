"""Two meshes that replace the same claim on one engine."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from meshd.model.runtime import Holder
from meshd.runtime.base import RuntimeFailure
from meshd.runtime.docker.claims import SETTLE_SECONDS, EngineClaims
from meshd.runtime.docker.engine import Engine
from tests.fakes import virtual

DEAD, FIRST, SECOND = Holder("d", "h", "/d"), Holder("a", "h", "/a"), Holder("b", "h", "/b")


class Missing(Exception):
    """The engine has no such volume."""


class Volume:
    """One volume as a mesh sees it; its removal arrives late."""

    def __init__(self, made: dict[str, Any], name: str, late: float) -> None:
        self._made = made
        self._name = name
        self._late = late

    async def show(self) -> dict[str, Any]:
        await virtual.elapse(0.01)
        if self._name not in self._made:
            raise Missing
        return dict(self._made[self._name])

    async def delete(self) -> None:
        await virtual.elapse(self._late)
        if self._made.pop(self._name, None) is None:
            raise Missing


class Volumes:
    """The volumes of an engine: `docker.volumes`."""

    def __init__(self, made: dict[str, Any], late: float) -> None:
        self._made = made
        self._late = late

    async def create(self, config: dict[str, Any]) -> None:
        await virtual.elapse(0.01)
        self._made.setdefault(config["Name"], config)

    async def get(self, name: str) -> Volume:
        await virtual.elapse(0.01)
        if name not in self._made:
            raise Missing
        return Volume(self._made, name, self._late)


class SlowEngine:
    """An engine as one mesh sees it."""

    def __init__(self, made: dict[str, Any], late: float) -> None:
        self.volumes = Volumes(made, late)

    @asynccontextmanager
    async def request(
        self, errors: Mapping[int, RuntimeFailure] | None = None
    ) -> AsyncIterator["SlowEngine"]:
        try:
            yield self
        except Missing as error:
            raise (errors or {})[404] from error


@pytest.mark.parametrize("late", [0.02, 0.1, 0.9 * SETTLE_SECONDS])
def test_of_two_meshes_that_replace_the_same_claim_one_gets_it(late: float) -> None:
    """The second one removes the claim of the first one by its name."""

    async def story() -> None:
        made: dict[str, Any] = {}
        first, second = (
            EngineClaims(cast("Engine", SlowEngine(made, each))) for each in (0.01, late)
        )
        assert await first.claim("shop", DEAD, None) == DEAD
        answers = await asyncio.gather(
            first.claim("shop", FIRST, DEAD), second.claim("shop", SECOND, DEAD)
        )
        assert answers[0] == answers[1]
        assert await first.claim("shop", FIRST, None) == answers[0]
        other = SECOND if answers[0] == FIRST else FIRST
        await first.unclaim("shop", other)
        assert len(made) == 1
        await first.unclaim("shop", answers[0])
        assert made == {}
        await first.unclaim("shop", answers[0])

    virtual.run(story())
