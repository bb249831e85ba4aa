"""Overlay networks: which are created, and which differ from the file."""

from typing import Any

import pytest

from meshd.runtime.base import StartFailed, Unsupported
from meshd.runtime.swarm.api import Gone
from meshd.runtime.swarm.networks import OverlayNetworks
from meshd.spec.model import Network, Service

PLAIN = Service(name="db", image="x", plain=True, networks=("default",))
MANAGED = Service(name="web", image="x", networks=("default",))


class NetworksInMemory:
    """The networks of a Swarm by name, as its API describes them."""

    def __init__(self, **networks: dict[str, Any]) -> None:
        self.networks = networks

    async def inspect(self, kind: str, name: str) -> dict[str, Any]:
        assert kind == "networks"
        if name not in self.networks:
            raise Gone(name)
        return self.networks[name]

    async def create(self, kind: str, body: dict[str, Any], **_: object) -> str:
        assert kind == "networks"
        self.networks[body["Name"]] = {**body, "Scope": "swarm", "IPAM": {}}
        return str(body["Name"])


def networks(api: NetworksInMemory) -> OverlayNetworks:
    return OverlayNetworks(api)  # type: ignore[arg-type]


async def test_a_network_is_an_attachable_overlay() -> None:
    api = NetworksInMemory()
    for _ in range(2):
        await networks(api).ensure("shop", PLAIN, [Network(name="default")])
    made = api.networks["shop_default"]
    assert (made["Driver"], made["Attachable"], made["Internal"]) == ("overlay", True, False)
    assert made["Labels"] == {"mesh.managed": "1", "mesh.project": "shop"}


async def test_a_network_that_the_swarm_still_sets_up_is_used() -> None:
    new = {"Driver": "", "Internal": False, "IPAM": {"Config": None}}
    await networks(NetworksInMemory(shop_default=new)).ensure("shop", PLAIN, ())


async def test_a_network_of_another_kind_is_refused() -> None:
    bridge = {"Driver": "bridge", "Internal": False, "IPAM": {}}
    with pytest.raises(StartFailed, match="its driver is bridge instead of overlay"):
        await networks(NetworksInMemory(shop_default=bridge)).ensure("shop", PLAIN, ())
    macvlan = Network(name="default", driver="macvlan")
    with pytest.raises(Unsupported, match="driver macvlan does not reach over nodes"):
        await networks(NetworksInMemory()).ensure("shop", PLAIN, [macvlan])


async def test_external_networks_must_be_those_of_the_swarm() -> None:
    external = Network(name="default", external=True)
    with pytest.raises(StartFailed, match="docker network create --driver overlay --attachable"):
        await networks(NetworksInMemory()).ensure("shop", PLAIN, [external])
    local = {"Driver": "bridge", "Scope": "local"}
    with pytest.raises(StartFailed, match="exists on one node only"):
        await networks(NetworksInMemory(shop_default=local)).ensure("shop", PLAIN, [external])


async def test_the_mesh_must_reach_its_replicas() -> None:
    internal = [Network(name="default", internal=True)]
    with pytest.raises(Unsupported, match="all its networks are internal"):
        await networks(NetworksInMemory()).ensure("shop", MANAGED, internal)
    await networks(NetworksInMemory()).ensure("shop", PLAIN, internal)


async def test_an_overlay_next_to_a_network_of_the_engine_keeps_its_name() -> None:
    """The engine accepts no second network of a name, and its own one may be removed later."""
    labels = {"mesh.managed": "1", "mesh.project": "shop"}
    bridge = {"Driver": "bridge", "Scope": "local", "Internal": False, "Labels": labels}
    api = NetworksInMemory(shop_default=bridge)
    found = {"default": "shop_default__swarm"}
    for _ in range(2):
        await networks(api).ensure("shop", PLAIN, ())
        assert await networks(api).find_names("shop", PLAIN) == found
    assert api.networks["shop_default__swarm"]["Driver"] == "overlay"
    del api.networks["shop_default"]
    assert await networks(api).find_names("shop", PLAIN) == found
    assert await networks(api).find_names("other", PLAIN) == {}
