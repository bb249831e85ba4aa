"""Routes and rules that lead virtual addresses to the proxy, and when they are applied."""

import asyncio
from collections.abc import Collection, Iterable, Sequence

import pytest

from meshd.model.event import Kind
from meshd.runtime.base import RuntimeUnavailable
from meshd.runtime.docker.addresses.redirection import CHECK_PERIOD, RETRY_PAUSE, Redirection
from meshd.runtime.docker.addresses.redirection_rules import (
    Redirect,
    missing_routes,
    redirect_removal,
    redirect_rules,
    redirect_table,
    surplus_routes,
)
from meshd.runtime.docker.firewall_rules import Family
from meshd.runtime.docker.iptables import IptablesError
from tests.fakes import virtual

WEB = Redirect("br-web", "172.18.255.0/24", "172.18.0.1")
API = Redirect("br-api", "172.19.255.0/24", "172.19.0.1")
CHAIN = "MESHD-0123456789ab"
RULES = [
    "-d 172.19.255.0/24 -i br-api -p tcp -j DNAT --to-destination 172.19.0.1:15780",
    "-d 172.18.255.0/24 -i br-web -p tcp -j DNAT --to-destination 172.18.0.1:15780",
]
DOCKER = "-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER"
UP = "\n".join(
    [f"-N {CHAIN}", f"-A PREROUTING -j {CHAIN}", DOCKER, *(f"-A {CHAIN} {r}" for r in RULES)]
)


def test_one_rule_for_each_network() -> None:
    assert redirect_rules([WEB, API]) == RULES


@pytest.mark.parametrize(
    ("listing", "removed"),
    [
        (DOCKER, 0),
        (UP.replace(RULES[0], "-j RETURN"), 1),
        (UP.replace(f"-A PREROUTING -j {CHAIN}\n", ""), 0),
        (f"{DOCKER}\n{UP}", 1),  # the engine's rules would come first
        (f"{UP}\n-A PREROUTING -j {CHAIN}", 2),
    ],
)
def test_the_table_is_restored_if_anything_differs(listing: str, removed: int) -> None:
    made = redirect_table(CHAIN, RULES, listing)

    assert made is not None
    lines = made.splitlines()
    assert lines[:2] == ["*nat", f":{CHAIN} - [0:0]"]
    assert lines[2:4] == [f"-A {CHAIN} {rule}" for rule in RULES]
    assert lines.count(f"-D PREROUTING -j {CHAIN}") == removed
    assert lines[-2:] == [f"-I PREROUTING 1 -j {CHAIN}", "COMMIT"]


def test_a_table_that_is_as_wanted_is_left_alone() -> None:
    assert redirect_table(CHAIN, RULES, UP) is None


def test_the_chain_is_removed_with_its_jumps() -> None:
    assert redirect_removal(CHAIN, DOCKER) is None
    removal = redirect_removal(CHAIN, UP)
    assert removal is not None
    assert removal.splitlines()[2:] == [f"-D PREROUTING -j {CHAIN}", f"-X {CHAIN}", "COMMIT"]


def test_routes_that_are_missing_or_not_wanted() -> None:
    listing = (
        "127.0.0.0/8 dev lo proto kernel scope host src 127.0.0.1\n"
        "local 172.18.255.0/24 dev br-web scope host\n"
        "172.20.255.0/24 dev br-old scope host \n"
        "172.21.255.0/24 dev br-foreign scope host\n"
    )
    ours = {("172.18.255.0/24", "br-web"), ("172.20.255.0/24", "br-old"), ("x", "br-gone")}

    assert missing_routes([WEB, API], listing) == [API]
    assert surplus_routes([WEB], ours, listing) == [("172.20.255.0/24", "br-old")]


class Host:
    """The engine, and the tables and routes of its host."""

    def __init__(self) -> None:
        self.networks: list[Redirect] = [WEB, API]
        self.engine = True
        self.lack = ""
        self.listing = DOCKER
        self.routes: dict[str, str] = {}
        self.restored: list[str] = []
        self.events: list[Kind] = []
        self.redirection = Redirection(
            self.list_networks,
            self,
            "0123456789abcdef",
            lambda: ["shop"],
            lambda kind, text: self.events.append(kind),
        )

    async def list_networks(self, projects: Collection[str]) -> Sequence[Redirect]:
        assert projects == ["shop"]
        if not self.engine:
            raise RuntimeUnavailable("the engine does not answer")
        return self.networks

    def check(self, interfaces: Iterable[str]) -> None:
        if self.lack:
            raise IptablesError(self.lack)

    def interfaces(self) -> Collection[str]:
        return ("br-web", "br-api")

    async def nat_listing(self, family: Family) -> str:
        return self.listing

    async def restore_nat(self, text: str) -> None:
        self.restored.append(text)
        self.listing = UP if f"-A {CHAIN}" in text else DOCKER

    async def local_routes(self) -> str:
        return "\n".join(f"{block} dev {dev} scope host" for block, dev in self.routes.items())

    async def change_route(self, verb: str, block: str, interface: str) -> None:
        if verb == "del":
            del self.routes[block]
        else:
            self.routes[block] = interface


def test_routes_and_rules_follow_the_networks() -> None:
    host = Host()

    async def scene() -> None:
        await host.redirection.update()
        assert host.routes == {WEB.block: "br-web", API.block: "br-api"}
        assert (host.listing, host.redirection.state) == (UP, "on")
        await host.redirection.update()
        assert len(host.restored) == 1, "nothing changed"
        host.networks = []
        await host.redirection.update()
        assert (host.routes, host.listing, host.redirection.state) == ({}, DOCKER, "")

    virtual.run(scene())
    assert host.events == []


def test_what_something_else_removed_is_restored_within_a_minute() -> None:
    host = Host()

    async def scene() -> None:
        running = asyncio.create_task(host.redirection.run())
        await virtual.elapse(1)
        host.routes.clear()
        host.listing = f"{DOCKER}\n{UP}"
        await virtual.elapse(CHECK_PERIOD)
        assert (len(host.routes), host.listing) == (2, UP)
        running.cancel()

    virtual.run(scene())


def test_missing_rights_are_reported_once() -> None:
    host = Host()
    host.lack = "needs root (CAP_NET_ADMIN)"

    async def scene() -> None:
        running = asyncio.create_task(host.redirection.run())
        await virtual.elapse(3 * RETRY_PAUSE)
        assert host.redirection.state == "off: needs root (CAP_NET_ADMIN)"
        assert not host.redirection.works
        assert host.events == [Kind.ADDRESSES_OFF]
        host.lack = ""
        await virtual.elapse(RETRY_PAUSE)
        assert host.redirection.works
        assert host.events == [Kind.ADDRESSES_OFF, Kind.ADDRESSES_ON]
        running.cancel()

    virtual.run(scene())


def test_nothing_changes_during_an_engine_outage() -> None:
    host = Host()

    async def scene() -> None:
        await host.redirection.update()
        host.engine, host.networks = False, []
        assert not await host.redirection.update()
        assert (len(host.routes), host.listing, host.redirection.state) == (2, UP, "on")

    virtual.run(scene())


def test_the_chain_of_a_mesh_that_is_gone_is_removed() -> None:
    host = Host()
    old = "MESHD-aaaaaaaaaaaa"
    host.listing = (
        f"-N {old}\n-A PREROUTING -j {old}\n{DOCKER}\n"
        f"-A {old} -d 10.0.0.0/24 -i br-gone -p tcp -j DNAT --to-destination 10.0.0.1:15780"
    )

    virtual.run(host.redirection.update())

    assert f"-X {old}" in host.restored[-1]
