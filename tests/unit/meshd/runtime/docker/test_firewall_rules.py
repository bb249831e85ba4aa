"""What containers reach of the host: the rules as text, and when they are put up."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest

from meshd.model.event import Kind
from meshd.runtime.base import RuntimeUnavailable
from meshd.runtime.docker.firewall_rules import (
    BlockedPort,
    Bridge,
    Family,
    blocked_port_of,
    chain_of,
    jumps_in,
    removal,
    rules,
    stale,
    table,
)
from meshd.runtime.docker.host_firewall import BY_CHOICE, PERIOD, RETRY, HostFirewall
from meshd.runtime.docker.iptables import IptablesError
from meshd.runtime.docker.network import bridge
from tests.fakes import virtual

VAULT = Bridge("br-vault", "172.18.0.1", internal=True)
WEB = Bridge("br-web", "172.19.0.1", internal=False)
KEPT_OUT = [
    "-i br-vault -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN",
    "-i br-vault -d 172.18.0.1/32 -p tcp -m tcp --dport 80 -j RETURN",
    "-i br-vault -d 172.18.0.1/32 -p tcp -m tcp --dport 15780 -j RETURN",
    "-i br-vault -p tcp -j REJECT --reject-with tcp-reset",
    "-i br-vault -j REJECT --reject-with icmp-port-unreachable",
]
FROM_HOST = "-i lo -j RETURN"
NOT_FROM_THERE = "-m addrtype ! --dst-type LOCAL --limit-iface-in -m comment --comment"
VAULT_ONLY = f"-d 172.18.0.1/32 {NOT_FROM_THERE} br-vault -j DROP"
WEB_ONLY = f"-d 172.19.0.1/32 {NOT_FROM_THERE} br-web -j DROP"
NO_METRICS = "-p tcp -m tcp --dport 9900 -j REJECT --reject-with tcp-reset"


@pytest.mark.parametrize(
    ("bridges", "blocked_ports", "family", "wanted"),
    [
        ([], [], "IPv4", []),
        ([WEB], [], "IPv4", [FROM_HOST, WEB_ONLY]),
        ([VAULT], [], "IPv4", [FROM_HOST, VAULT_ONLY, *KEPT_OUT]),
        ([VAULT], [BlockedPort("", 9900)], "IPv4", [FROM_HOST, VAULT_ONLY, *KEPT_OUT]),
        ([WEB, VAULT], [BlockedPort("", 9900)], "IPv4",
         [FROM_HOST, VAULT_ONLY, WEB_ONLY, *KEPT_OUT, f"-i br-web {NO_METRICS}"]),
        ([replace(WEB, block="172.19.255.0/24")], [], "IPv4",
         [FROM_HOST, WEB_ONLY, WEB_ONLY.replace("172.19.0.1/32", "172.19.255.0/24"),
          "-d 172.19.255.0/24 -i br-web -p tcp -j REJECT --reject-with tcp-reset",
          "-d 172.19.255.0/24 -i br-web -p udp -j REJECT --reject-with icmp-port-unreachable"]),
        ([WEB], [BlockedPort("", 9900)], "IPv6", [f"-i br-web {NO_METRICS}"]),
        ([WEB], [BlockedPort("192.0.2.2", 9900)], "IPv4",
         [FROM_HOST, WEB_ONLY, f"-i br-web -d 192.0.2.2 {NO_METRICS}"]),
        ([WEB], [BlockedPort("192.0.2.2", 9900)], "IPv6", []),
        ([WEB], [BlockedPort("fd00::2", 9900)], "IPv6", [f"-i br-web -d fd00::2 {NO_METRICS}"]),
        ([WEB], [BlockedPort("fd00::2", 9900)], "IPv4", [FROM_HOST, WEB_ONLY]),
        (
            [VAULT], [], "IPv6",
            [KEPT_OUT[0], KEPT_OUT[3],
             "-i br-vault -j REJECT --reject-with icmp6-port-unreachable"],
        ),
        ([Bridge("br-x", "", True)], [], "IPv4",
         [rule.replace("br-vault", "br-x") for rule in KEPT_OUT if "dport" not in rule]),
    ],
)  # fmt: skip
def test_rules(
    bridges: list[Bridge], blocked_ports: list[BlockedPort], family: Family, wanted: list[str]
) -> None:
    assert rules(bridges, blocked_ports, family) == wanted
    own = ("-i br-", "-d 172.1", FROM_HOST)
    assert all(rule.startswith(own) for rule in wanted), "a rule for more than our networks"


def test_the_table_replaces_the_chain_and_jumps_there_once() -> None:
    whole = "*filter\n:MESHD-a - [0:0]\n-A MESHD-a RULE\n{}COMMIT\n"
    assert table("MESHD-a", ["RULE"], 0) == whole.format("-I INPUT 1 -j MESHD-a\n")
    assert table("MESHD-a", ["RULE"], 1) == whole.format("")
    assert table("MESHD-a", ["RULE"], 3) == whole.format("-D INPUT -j MESHD-a\n" * 2)
    gone = "*filter\n:MESHD-a - [0:0]\n-D INPUT -j MESHD-a\n-X MESHD-a\nCOMMIT\n"
    assert removal("MESHD-a", 1) == gone
    assert jumps_in("-P INPUT DROP\n-A INPUT -j MESHD-ab\n-A INPUT -j MESHD-a\n", "MESHD-a") == 1
    assert len(chain_of("0123456789abcdef" * 4)) <= 28


@pytest.mark.parametrize(
    ("address", "blocked"),
    [
        ("127.0.0.1:9900", None),
        ("[::1]:9900", None),
        ("0.0.0.0:9900", BlockedPort("", 9900)),
        ("[::]:9900", BlockedPort("", 9900)),
        ("192.0.2.2:9900", BlockedPort("192.0.2.2", 9900)),
        ("[fd00::2]:9900", BlockedPort("fd00::2", 9900)),
    ],
)
def test_the_port_to_block_for_a_server(address: str, blocked: BlockedPort | None) -> None:
    assert blocked_port_of(address) == blocked


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ({}, Bridge("br-0123456789ab", "172.18.0.1", internal=True)),
        ({"Options": {"com.docker.network.bridge.name": "mesh0"}},
         Bridge("mesh0", "172.18.0.1", internal=True)),
        ({"IPAM": {"Config": [{"Gateway": "fd00::1"}, {"Gateway": "10.0.0.1/24"}]}},
         Bridge("br-0123456789ab", "10.0.0.1", internal=True)),
        ({"Driver": "macvlan"}, Bridge("br-0123456789ab", "", internal=True)),
        ({"IPAM": {"Config": None}, "Internal": False},
         Bridge("br-0123456789ab", "", internal=False)),
    ],
)  # fmt: skip
def test_a_network_as_the_host_has_it(more: dict[str, object], wanted: Bridge) -> None:
    pools = {"Config": [{"Subnet": "172.18.0.0/16", "Gateway": "172.18.0.1"}]}
    network = {"Id": "0123456789abcdef", "Internal": True, "Options": None, "IPAM": pools}
    assert bridge({**network, **more}) == wanted


class Host:
    """A machine's tables as far as one chain goes, and what was asked of it."""

    def __init__(self, enabled: bool = True) -> None:
        self.bridges: list[Bridge] = [VAULT]
        self.others = ""
        self.snatched = False
        self.engine = True
        self.lack = ""
        self.chain: list[str] = []
        self.jumps_there = 0
        self.asked = 0
        self.events: list[Kind] = []
        self.removed: list[str] = []
        self.firewall = HostFirewall(
            self.networks, self, "0" * 12, lambda: ("shop",), self.record_event, enabled
        )

    def record_event(self, kind: Kind, text: str) -> None:
        self.events.append(kind)

    async def networks(self, projects: object) -> Sequence[Bridge]:
        self.asked += 1
        await virtual.elapse(0.1)
        if not self.engine:
            raise RuntimeUnavailable("away")
        return self.bridges

    def families(self) -> Sequence[Family]:
        return ("IPv4",)

    def check(self, interfaces: Iterable[str]) -> None:
        if self.lack:
            raise IptablesError(self.lack)

    def interfaces(self) -> set[str]:
        return {"lo", *(bridge.interface for bridge in self.bridges)}

    async def listing(self, family: Family) -> str:
        jumps = "-A INPUT -j MESHD-000000000000\n" * self.jumps_there
        if self.snatched:
            self.chain, self.jumps_there, self.snatched = [], 0, False
        return f"-N MESHD-000000000000\n{self.others}{jumps}"

    async def restore(self, family: Family, text: str) -> None:
        chain = chain_of("0" * 12)
        if chain not in text:
            self.removed.append(text)
            return
        self.chain = [line for line in text.splitlines() if line.startswith(f"-A {chain} ")]
        self.jumps_there += text.count("-I INPUT") - text.count("-D INPUT")


def test_the_rules_follow_the_networks() -> None:
    host = Host()

    async def scene() -> None:
        await host.firewall.update()
        assert (len(host.chain), host.jumps_there, host.firewall.state) == (7, 1, "on")
        host.bridges = [WEB]
        host.firewall.block_ports((BlockedPort("", 9900),))
        await host.firewall.update()
        assert (len(host.chain), host.jumps_there, host.firewall.state) == (3, 1, "on")
        host.bridges = []
        await host.firewall.update()
        assert (host.chain, host.jumps_there, host.firewall.state) == ([], 0, "")

    virtual.run(scene())
    assert host.events == []


def test_flushed_rules_are_restored_within_a_minute() -> None:
    host = Host()

    async def scene() -> None:
        running = asyncio.create_task(host.firewall.run())
        await virtual.elapse(1)
        assert host.jumps_there == 1
        host.chain, host.jumps_there = [], 0
        await virtual.elapse(PERIOD)
        assert (len(host.chain), host.jumps_there) == (7, 1)
        running.cancel()

    virtual.run(scene())
    assert host.events == [Kind.FILTER_ON]


def test_a_missing_permission_is_reported_once() -> None:
    host = Host()
    host.lack = "that takes root"

    async def scene() -> None:
        for _ in range(3):
            await host.firewall.update()
        assert host.firewall.state == "off: that takes root"
        assert host.events == [Kind.FILTER_OFF]
        host.lack = ""
        await host.firewall.update()
        assert host.firewall.state == "on"
        assert host.events == [Kind.FILTER_OFF, Kind.FILTER_ON]
        host.bridges, host.lack = [], "that takes root"
        await host.firewall.update()
        assert host.firewall.state == "", "nothing has to be kept out"

    virtual.run(scene())


def test_switching_off_removes_earlier_rules() -> None:
    host = Host(enabled=False)
    host.jumps_there = 1
    virtual.run(host.firewall.update())
    assert (host.jumps_there, host.firewall.state, host.events) == (0, BY_CHOICE, [])


def test_rules_stay_during_an_engine_outage() -> None:
    host = Host()

    async def scene() -> None:
        await host.firewall.update()
        host.engine = False
        running = asyncio.create_task(host.firewall.run())
        await virtual.elapse(1)
        assert (len(host.chain), host.jumps_there) == (7, 1)
        host.engine, host.bridges = True, []
        await virtual.elapse(RETRY)
        assert (host.chain, host.jumps_there) == ([], 0)
        running.cancel()

    virtual.run(scene())


OLD = "MESHD-aaaaaaaaaaaa"
GONE = f"-N {OLD}\n-A INPUT -j {OLD}\n-A {OLD} -i br-gone -p tcp -j REJECT\n"


@pytest.mark.parametrize(
    ("listing", "found"),
    [
        (GONE, [OLD]),
        (GONE.replace(f"-A INPUT -j {OLD}\n", ""), [OLD]),
        (GONE + f"-A {OLD} -d 192.0.2.1/32 -i br-gone-too -j RETURN\n", [OLD]),
        (GONE + f"-A {OLD} {FROM_HOST}\n-A {OLD} {WEB_ONLY}\n", [OLD]),
        (f"-N {OLD}\n-A {OLD} {FROM_HOST}\n-A {OLD} {WEB_ONLY}\n", [OLD]),
        (GONE + f"-A {OLD} {WEB_ONLY.replace('br-web', 'br-here')}\n", []),
        # Living: one of its bridges is there, it is our own, it was just made, or flushed.
        (GONE + f"-A {OLD} -i br-here -j RETURN\n", []),
        (GONE.replace(OLD, "MESHD-000000000000"), []),
        (f"-N {OLD}\n-A INPUT -j {OLD}\n", []),
        # Not ours: a chain with another rule, or with a jump to it, or with only a similar name.
        (GONE + f"-A {OLD} -s 192.0.2.1/32 -j DROP\n", []),
        (GONE + f"-A {OLD} -i br+ -j DROP\n", []),
        (GONE + f"-A {OLD} ! -i br-gone -j DROP\n", []),
        (GONE + f"-A FORWARD -j {OLD}\n", []),
        (GONE + f"-A INPUT -i eth0 -j {OLD}\n", []),
        (GONE.replace(OLD, "MESHD-mine"), []),
        (GONE.replace(OLD, "MESHD-aaaaaaaaaaaab"), []),
        ("-P INPUT DROP\n-N DOCKER\n-A DOCKER -i br-gone -j DROP\n", []),
    ],
)
def test_only_chains_without_a_network_are_stale(listing: str, found: list[str]) -> None:
    assert stale(listing, "MESHD-000000000000", {"lo", "eth0", "br-here"}) == found


def test_a_stale_chain_is_removed_by_another_mesh() -> None:
    host = Host()
    host.others = GONE

    async def scene() -> None:
        host.bridges = []
        await host.firewall.update()
        assert host.removed == [], "there is nothing to put up"
        host.bridges = [VAULT]
        await host.firewall.update()
        assert host.removed == [removal(OLD, 1)]

    virtual.run(scene())
    assert host.firewall.state == "on"


def test_a_chain_that_another_mesh_removed_is_restored_at_once() -> None:
    host = Host()

    async def scene() -> None:
        await host.firewall.update()
        host.snatched = True
        await host.firewall.update()
        assert (len(host.chain), host.jumps_there) == (7, 1)

    virtual.run(scene())


def test_concurrent_requests_share_one_call() -> None:
    host = Host()

    async def scene() -> None:
        await asyncio.gather(*(host.firewall.update() for _ in range(20)))

    virtual.run(scene())
    assert host.asked <= 2
