"""Where the mesh listens for calls, if a token identifies the callers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from meshd.model.runtime import AddressRange, Capabilities, MeshAddress
from meshd.publish.gateways import Gateways
from meshd.publish.virtual_addresses import VirtualAddresses
from meshd.runtime.process.launch import CAPABILITIES as PROCESS
from meshd.runtime.swarm.runtime import CAPABILITIES as SWARM
from meshd.spec.compose import load
from meshd.store.virtual_addresses import VirtualAddressLog
from proxy.wire.snapshot import Listener
from tests.support.stores import open_store

ADDRESS = "10.0.0.1:15781"
FILE = """
name: shop
services:
  web: {image: x, ports: ["8000:80"], x-mesh: {}}
"""


@dataclass
class RuntimeWithTokens:
    capabilities: Capabilities
    token_address: str = field(default=ADDRESS)
    is_local: bool = False


class EngineAndSwarm(RuntimeWithTokens):
    async def mesh_addresses(self, _: str, services: Sequence[str]) -> Sequence[MeshAddress]:
        return [
            MeshAddress(name, f"172.18.{number}.1", 80, f"172.18.{number}.0/24")
            for number, name in enumerate(reversed(services))
        ]

    async def address_ranges(self, _: str) -> Sequence[AddressRange]:
        return ()


def gateways(
    runtime: RuntimeWithTokens,
    tmp_path: Path,
    ports: str = "8000:80",
    held: tuple[Listener, ...] = (),
) -> Gateways:
    file = tmp_path / "compose.yml"
    file.write_text(FILE.replace("8000:80", ports))
    store = open_store(tmp_path / "state")
    try:
        virtual = VirtualAddresses(VirtualAddressLog(store))
        made = Gateways(runtime, virtual)  # type: ignore[arg-type]
        made.hold_ports(held)
        made.set_projects([load([file], environment={}).project])
        return made
    finally:
        store.close()


def test_a_swarm_has_a_listener_for_tokens_and_opens_published_ports(tmp_path: Path) -> None:
    made = gateways(RuntimeWithTokens(SWARM), tmp_path)
    tokens, published = made.listeners()
    assert tokens == Listener("0.0.0.0:15781", "token")  # as on every other node
    assert (published.address, published.kind, published.service) == (
        "0.0.0.0:8000", "published", "shop/web",
    )  # fmt: skip
    assert not made.is_ready({})
    bound = {"0.0.0.0:15781": "0.0.0.0:15781"}
    assert made.is_ready(bound)
    assert made.token_url(bound, "abc") == "http://10.0.0.1:15781/.mesh/abc"


async def test_while_a_swarm_takes_over_an_engine_containers_are_served_too(
    tmp_path: Path,
) -> None:
    """Only services that stay start with the network; calls of both kinds are accepted."""
    runtime = EngineAndSwarm(SWARM)
    store = open_store(tmp_path / "state")
    try:
        virtual = VirtualAddresses(VirtualAddressLog(store))
        made = Gateways(runtime, virtual, staying=("shop/db",))  # type: ignore[arg-type]
        await made.discover("shop", ("web", "db"))
        assert [each.kind for each in made.listeners()] == ["token", "mesh", "mesh"]
        gateway = made.address_of("shop/db")
        assert gateway is not None
        assert gateway.host == "172.18.0.1"
        assert made.address_of("shop/web") is None
        only = Gateways(runtime, virtual)  # type: ignore[arg-type]
        await only.discover("shop", ("web", "db"))
        assert [each.kind for each in only.listeners()] == ["token"]
    finally:
        store.close()


def test_a_swarm_of_ipv6_nodes_has_a_listener_of_ipv6(tmp_path: Path) -> None:
    made = gateways(RuntimeWithTokens(SWARM, "[fd00::1]:15781"), tmp_path)
    bound = {"[::]:15781": "[::]:15781"}
    assert made.is_ready(bound)
    assert made.token_url(bound, "abc") == "http://[fd00::1]:15781/.mesh/abc"


def test_before_the_runtime_is_connected_no_replica_may_start(tmp_path: Path) -> None:
    made = gateways(RuntimeWithTokens(SWARM, ""), tmp_path)
    assert [each.kind for each in made.listeners()] == ["published"]
    assert not made.is_ready({})
    assert made.token_url({}, "abc") == ""


def test_a_chosen_port_changes_while_the_mesh_cannot_listen_there(tmp_path: Path) -> None:
    made = gateways(RuntimeWithTokens(SWARM, ""), tmp_path, ports="80")
    projects = made._projects
    (first,) = made.listeners()

    made.set_projects(projects, refused=[first.address, "0.0.0.0:443"])
    (second,) = made.listeners()
    assert second.address != first.address

    again = gateways(RuntimeWithTokens(SWARM, ""), tmp_path, ports="80", held=(second,))
    assert again.listeners() == (second,), "it stays after a restart"


def test_local_processes_have_a_listener_for_tokens_only(tmp_path: Path) -> None:
    made = gateways(RuntimeWithTokens(PROCESS, "127.0.0.1:0", is_local=True), tmp_path)
    assert made.listeners() == (Listener("127.0.0.1:0", "token"),)
    assert made.token_url({"127.0.0.1:0": "127.0.0.1:4000"}, "abc") == (
        "http://127.0.0.1:4000/.mesh/abc"
    )
