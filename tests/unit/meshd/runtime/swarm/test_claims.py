"""Names of claims, and two meshes that replace the same one."""

import asyncio
from typing import Any, cast

from meshd.model.runtime import Holder
from meshd.runtime.swarm.api import Gone, NameTaken, SwarmApi
from meshd.runtime.swarm.claims import NAME_LENGTH, SwarmClaims, config_of
from tests.fakes import virtual

DEAD, FIRST, SECOND = Holder("d", "h", "/d"), Holder("a", "h", "/a"), Holder("b", "h", "/b")


class Configs:
    """The configs of a Swarm, by id."""

    def __init__(self) -> None:
        self.made: dict[str, Any] = {}
        self.count = 0


class SlowApi:
    """The configs as one mesh sees them; its removals arrive late."""

    def __init__(self, configs: Configs, late: float) -> None:
        self._configs = configs
        self._late = late

    async def inspect(self, _: str, name: str) -> dict[str, Any]:
        await virtual.elapse(0.01)
        for id, body in self._configs.made.items():
            if name in (id, body["Name"]):
                return {"ID": id, "Spec": body}
        raise Gone(name)

    async def create(self, _: str, body: dict[str, Any]) -> str:
        await virtual.elapse(0.01)
        if any(each["Name"] == body["Name"] for each in self._configs.made.values()):
            raise NameTaken(body["Name"])
        self._configs.count += 1
        self._configs.made[f"id{self._configs.count}"] = body
        return f"id{self._configs.count}"

    async def delete(self, _: str, name: str) -> None:
        await virtual.elapse(self._late)
        for id, body in self._configs.made.items():
            if name in (id, body["Name"]):
                del self._configs.made[id]
                return
        raise Gone(name)


def test_a_long_name_of_a_project_has_its_own_claim() -> None:
    assert config_of("shop") == "meshd.claim.shop"
    long = [config_of("p" * 60 + end) for end in ("a", "b")]
    assert len(set(long)) == 2
    assert all(len(name) <= NAME_LENGTH for name in long)


def test_of_two_meshes_that_replace_the_same_claim_one_gets_it() -> None:
    async def story() -> None:
        configs = Configs()
        first, second = (
            SwarmClaims(cast("SwarmApi", SlowApi(configs, late))) for late in (0.01, 5.0)
        )
        assert await first.claim("shop", DEAD, None) == DEAD
        answers = await asyncio.gather(
            first.claim("shop", FIRST, DEAD), second.claim("shop", SECOND, DEAD)
        )
        assert answers == [FIRST, FIRST]
        await second.unclaim("shop", SECOND)
        assert await second.claim("shop", SECOND, None) == FIRST
        await first.unclaim("shop", FIRST)
        await first.unclaim("shop", FIRST)
        assert await second.claim("shop", SECOND, None) == SECOND

    virtual.run(story())
