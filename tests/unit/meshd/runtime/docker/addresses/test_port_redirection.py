"""When the rules for redirected ports are applied, and what happens without rights."""

from collections.abc import Iterable, Sequence

from meshd.model.event import Kind
from meshd.model.runtime import PortRedirect
from meshd.runtime.docker.addresses.port_redirection import PortRedirection
from meshd.runtime.docker.addresses.port_rules import port_rules, ports_chain_of
from meshd.runtime.docker.firewall_rules import Family
from meshd.runtime.docker.iptables import IptablesError
from tests.fakes import virtual

FOUR, SIX = PortRedirect("0.0.0.0", 8080, 15900), PortRedirect("::", 8080, 15900)


class Host:
    """The tables of a host; `lacks`: IP versions that it cannot filter."""

    def __init__(self, *lacks: Family) -> None:
        self.lacks = lacks
        self.tables: dict[Family, str] = {}
        self.connected: set[int] = set()
        self.restored: list[tuple[Family, str]] = []
        self.events: list[tuple[Kind, str]] = []
        self.redirection = PortRedirection(
            self, "0123456789ab", lambda kind, text: self.events.append((kind, text))
        )

    def families(self) -> Sequence[Family]:
        return ("IPv4", "IPv6")

    def check(self, interfaces: Iterable[str]) -> None:
        if len(self.lacks) == 2:
            raise IptablesError("needs root (CAP_NET_ADMIN)")

    def listening_ports(self) -> set[int]:
        return set()

    def connected_ports(self) -> set[int]:
        return self.connected

    async def nat_listing(self, family: Family) -> str:
        if family in self.lacks:
            raise IptablesError("there is no table nat")
        return self.tables.get(family, "")

    async def restore(self, family: Family, text: str) -> None:
        self.restored.append((family, text))


def test_redirects_of_both_versions_are_applied() -> None:
    host = Host()

    async def scene() -> None:
        assert (await host.redirection.apply([FOUR, SIX])).applied == {FOUR, SIX}

    virtual.run(scene())
    assert [family for family, _ in host.restored] == ["IPv4", "IPv6"]
    assert host.events == []


def test_the_kernel_tracks_connections_until_they_are_over() -> None:
    chain = ports_chain_of("0123456789ab")
    redirect, jump = port_rules([SIX], "IPv6")[0], f"-A OUTPUT -j {chain}"
    track = "-p tcp -m conntrack --ctstate ESTABLISHED -m tcp --dport 15900 -j RETURN"
    host = Host()

    async def remove(rule: str, *, connected: bool) -> bool:
        listing = [f"-N {chain}", f"-A PREROUTING -j {chain}", jump, f"-A {chain} {rule}"]
        host.tables = {"IPv6": "\n".join(listing)}
        host.connected = {15900} if connected else {443}
        host.restored.clear()
        return (await host.redirection.apply([])).settled

    async def scene() -> None:
        for connected in (True, False):  # one may be made just now
            assert not await remove(redirect, connected=connected)
            assert f"-A {chain} {track}" in host.restored[0][1]
        assert not await remove(track, connected=True)
        assert host.restored == []
        assert await remove(track, connected=False)
        assert f"-X {chain}" in host.restored[0][1]

    virtual.run(scene())


def test_a_version_that_cannot_be_redirected_is_reported() -> None:
    host = Host("IPv6")

    async def scene() -> None:
        assert (await host.redirection.apply([FOUR, SIX])).applied == {FOUR}

    virtual.run(scene())
    assert [kind for kind, _ in host.events] == [Kind.PORT_GAP]


def test_missing_rights_are_reported_once_for_a_change() -> None:
    host = Host("IPv4", "IPv6")

    async def scene() -> None:
        for _ in range(3):
            assert not (await host.redirection.apply([FOUR])).applied
        assert len(host.events) == 1
        assert not (await host.redirection.apply([])).applied
        assert len(host.events) == 1, "there is nothing to remove"
        await host.redirection.apply([FOUR])

    virtual.run(scene())
    assert len(host.events) == 2, "another change"
    assert host.events[0] == (
        Kind.PORT_GAP,
        "port 8080 of the host is closed for a moment while its service changes between plain and "
        "mesh-managed: needs root (CAP_NET_ADMIN)",
    )
