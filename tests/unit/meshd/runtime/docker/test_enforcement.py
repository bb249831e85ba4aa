"""When the rules that enforce `allow` are applied, and what is said where they cannot be."""

import asyncio
from collections.abc import Collection, Iterable, Sequence

from meshd.model.event import Kind
from meshd.runtime.base import RuntimeUnavailable
from meshd.runtime.docker.enforcement import CHECK_PERIOD, Enforcement
from meshd.runtime.docker.enforcement_rules import ContainerAddress, enforcement_rules
from meshd.runtime.docker.firewall_rules import Family
from meshd.runtime.docker.iptables import IptablesError
from tests.fakes import virtual

API = ContainerAddress("br-app", "172.18.0.3", "veth3", guarded=True)
WEB = ContainerAddress("br-app", "172.18.0.2", "veth2", guarded=False)
CHAIN = "MESHD-0123456789ab"


class Host:
    """The engine's containers, and the table `mangle` of its host."""

    def __init__(self) -> None:
        self.services: Collection[str] = ["shop/api"]
        self.attachments: list[ContainerAddress] = [API, WEB]
        self.engine = True
        self.lack = ""
        self.listing = ""
        self.restored: list[str] = []
        self.filtered: list[str] = []
        self.events: list[tuple[Kind, str]] = []
        self.enforcement = Enforcement(
            self.find,
            self,
            "0123456789abcdef",
            lambda: self.services,
            lambda kind, text: self.events.append((kind, text)),
        )

    async def find(self, services: Collection[str]) -> Sequence[ContainerAddress]:
        assert set(services) == set(self.services)
        if not self.engine:
            raise RuntimeUnavailable("the engine does not answer")
        return self.attachments

    def families(self) -> Sequence[Family]:
        return ("IPv4",)

    def check(self, interfaces: Iterable[str]) -> None:
        del interfaces

    def interfaces(self) -> Collection[str]:
        return ("br-app",)

    def filter_bridge(self, interface: str, family: Family) -> None:
        if self.lack:
            raise IptablesError(self.lack)
        self.filtered.append(interface)

    async def mangle_listing(self, family: Family) -> str:
        return self.listing

    async def restore(self, family: Family, text: str) -> None:
        self.restored.append(text)
        rules = [line for line in text.splitlines() if line.startswith(f"-A {CHAIN} ")]
        self.listing = "\n".join([f"-N {CHAIN}", f"-A PREROUTING -j {CHAIN}", *rules])
        if f"-X {CHAIN}" in text:
            self.listing = ""

    def has(self) -> list[str]:
        return [line.partition(f"-A {CHAIN} ")[2] for line in self.listing.splitlines()[2:]]


def test_rules_are_applied_once_and_removed_with_the_last_service() -> None:
    async def scene() -> None:
        host = Host()
        await host.enforcement.update()
        await host.enforcement.update()
        assert host.has() == enforcement_rules([API, WEB], "IPv4")
        assert (len(host.restored), host.enforcement.state) == (1, "on")
        assert set(host.filtered) == {"br-app"}

        host.services, host.attachments = (), []
        await host.enforcement.update()
        assert (host.listing, host.enforcement.state) == ("", "")
        assert host.events == []

    virtual.run(scene())


def test_a_start_and_an_engine_event_are_followed() -> None:
    async def scene() -> None:
        host = Host()
        task = asyncio.create_task(host.enforcement.run())
        await virtual.elapse(0.1)
        more = ContainerAddress("br-app", "172.18.0.9", "veth9", guarded=True)
        host.attachments.append(more)
        await host.enforcement.follow_start()
        assert "172.18.0.9/32" in host.listing

        host.attachments.remove(more)
        host.enforcement.wake()
        await virtual.elapse(0.1)
        assert "172.18.0.9/32" not in host.listing
        task.cancel()

    virtual.run(scene())


def test_a_service_that_is_to_be_enforced_from_now_on_is_seen_soon() -> None:
    async def scene() -> None:
        host = Host()
        host.services = ()
        task = asyncio.create_task(host.enforcement.run())
        await virtual.elapse(CHECK_PERIOD / 2)
        await host.enforcement.follow_start()
        assert host.restored == []
        host.services = ["shop/api"]
        await virtual.elapse(2.0)
        assert host.enforcement.state == "on"
        host.listing = ""  # something else flushed the table
        await virtual.elapse(CHECK_PERIOD + 2.0)
        assert host.has()
        task.cancel()

    virtual.run(scene())


def test_a_kernel_that_cannot_filter_is_named_once() -> None:
    async def scene() -> None:
        host = Host()
        host.lack = "load its module: modprobe br_netfilter"
        await host.enforcement.update()
        await host.enforcement.update()
        assert host.enforcement.state == f"off: {host.lack}"
        assert [kind for kind, _ in host.events] == [Kind.ENFORCE_OFF]
        assert "br_netfilter" in host.events[0][1]

        host.lack = ""
        await host.enforcement.update()
        assert [kind for kind, _ in host.events] == [Kind.ENFORCE_OFF, Kind.ENFORCE_ON]

    virtual.run(scene())


def test_an_engine_that_does_not_answer_leaves_the_rules() -> None:
    async def scene() -> None:
        host = Host()
        await host.enforcement.update()
        host.engine = False
        await host.enforcement.update()
        assert host.has()

    virtual.run(scene())
