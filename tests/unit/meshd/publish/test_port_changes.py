"""How a published port moves between the engine and the mesh."""

from dataclasses import dataclass, field, replace

import pytest

from meshd.model.runtime import PortRedirect
from meshd.publish.port_changes import LINGER, PATIENCE, TAKE_OVER, PortChanges, PortFacts, PortPlan
from meshd.publish.published_ports import HostPort
from proxy.wire.snapshot import Listener

KEY = "shop/web"
PORT = "0.0.0.0:8080"
MANAGED = HostPort(KEY, False, 80, KEY, "", 8080, "tcp")
PLAIN = replace(MANAGED, plain=True)


@dataclass
class Scene:
    """The proxy and the host, which do at once what is asked for. `works`: whether redirects take
    effect."""

    changes: PortChanges = field(default_factory=lambda: PortChanges(ipv6=False))
    works: bool = True
    now: float = 1000.0
    open: set[str] = field(default_factory=set)
    held_by_engine: bool = False
    changing: bool = False
    plain_running: bool = False
    asked: frozenset[PortRedirect] = frozenset()
    plan: PortPlan = field(default_factory=PortPlan)

    def run(self, seconds: float) -> None:
        """Run passes; the addresses follow each."""
        for _ in range(round(seconds * 10)):
            self.now += 0.1
            facts = PortFacts(
                changing=[KEY] if self.changing else [],
                plain_running=[KEY] if self.plain_running else [],
                open=set(self.open),
                asked=self.asked,
                applied=self.asked if self.works else (),
            )
            self.plan = self.changes.update(facts, self.now)
            wanted = {each.address for each in self.plan.listeners}
            self.open = wanted - {PORT} if self.held_by_engine else wanted
            self.asked = self.plan.redirects

    @property
    def stand_in(self) -> str:
        (found,) = self.open - {PORT}
        return found

    @property
    def led(self) -> list[tuple[str, int]]:
        """The redirects as (where, target)."""
        return [(f"{each.host}:{each.port}", each.target) for each in self.asked]


def becomes_managed() -> Scene:
    scene = Scene(held_by_engine=True, plain_running=True)
    scene.changes.set_ports([MANAGED])
    return scene


def becomes_plain() -> Scene:
    scene = Scene()
    scene.changes.set_ports([MANAGED])
    scene.run(0.1)
    assert scene.open == {PORT}
    scene.changes.set_ports([PLAIN])
    scene.changing = True
    return scene


def test_a_port_that_does_not_move_is_only_listened_on() -> None:
    scene = Scene()
    scene.changes.set_ports([MANAGED])
    scene.run(0.2)
    assert scene.changes.is_idle
    (listener,) = scene.plan.listeners
    assert (listener.address, listener.kind, listener.service) == (PORT, "published", KEY)
    assert (scene.asked, scene.plan.pending) == (frozenset(), frozenset())


def test_a_stand_in_takes_the_connections_while_the_engine_holds_the_port() -> None:
    scene = becomes_managed()
    scene.run(0.1)
    assert scene.plan.pending == {KEY}, "the plain replica must not stop yet"
    assert PORT not in {each.address for each in scene.plan.listeners}
    scene.run(0.3)
    assert not scene.plan.pending
    assert scene.led == [(PORT, int(scene.stand_in.rpartition(":")[2]))]
    stand_in = scene.stand_in

    scene.plain_running = False
    scene.held_by_engine = False
    scene.run(0.3)
    assert scene.open == {PORT, stand_in}
    assert scene.led == [], "connections go to the port itself"
    scene.run(LINGER / 2)
    assert stand_in in scene.open, "connections made just before are accepted"
    scene.run(LINGER)
    assert scene.open == {PORT}
    assert scene.changes.is_idle


def test_a_port_is_released_only_after_its_connections_go_elsewhere() -> None:
    scene = becomes_plain()
    scene.run(0.2)
    assert PORT in scene.open
    assert scene.plan.pending == {KEY}, "the plain replica cannot start yet"
    scene.run(0.2)
    stand_in = scene.stand_in
    assert scene.led == [(PORT, int(stand_in.rpartition(":")[2]))]
    assert PORT in scene.open
    scene.run(LINGER + 0.2)
    assert scene.open == {stand_in}
    assert not scene.plan.pending
    scene.run(60)
    assert scene.led, "until the rollout is over"

    scene.changing = False
    scene.run(0.2)
    assert (scene.led, scene.open) == ([], {stand_in})
    scene.run(LINGER + 0.3)
    assert scene.open == set()
    assert scene.changes.is_idle


def test_without_rights_the_port_changes_hands_at_once() -> None:
    scene = becomes_managed()
    scene.works = False
    scene.run(0.5)
    assert not scene.plan.pending
    assert [each.address for each in scene.plan.listeners] == [PORT]
    assert scene.led == []
    scene.held_by_engine = scene.plain_running = False
    scene.run(0.2)
    assert scene.open == {PORT}
    assert scene.changes.is_idle

    scene = becomes_plain()
    scene.works = False
    scene.run(0.5)
    assert (scene.open, scene.plan.pending, scene.led) == (set(), frozenset(), [])


def test_replicas_do_not_wait_for_ever() -> None:
    scene = becomes_managed()
    scene.run(0.1)
    facts = PortFacts(plain_running=[KEY])  # the proxy does not answer
    assert scene.changes.update(facts, scene.now + PATIENCE - 0.1).pending
    assert not scene.changes.update(facts, scene.now + PATIENCE + 0.1).pending


def test_a_port_that_something_else_took_is_left_to_it() -> None:
    scene = becomes_managed()
    scene.run(1)
    assert scene.led
    scene.plain_running = False
    scene.run(TAKE_OVER - 1)
    assert scene.led
    scene.run(2)
    assert not scene.led


@pytest.mark.parametrize("plain", [False, True])
def test_a_restarted_process_continues_the_change(plain: bool) -> None:
    scene = becomes_plain() if plain else becomes_managed()
    scene.run(3)
    before, left = scene.led, scene.open
    scene.changes = PortChanges(ipv6=False)
    scene.changes.set_ports([PLAIN if plain else MANAGED])
    scene.run(0.1)
    assert (scene.led, scene.open) == (before, left)

    # The service no longer changes: what the earlier process left is closed.
    scene.changes = PortChanges(ipv6=False)
    scene.changes.set_ports([PLAIN if plain else MANAGED])
    scene.changing = scene.plain_running = scene.held_by_engine = False
    settled = set() if plain else {PORT}
    scene.open |= settled
    scene.run(0.1)
    assert (scene.led, scene.open) == ([], left | settled)
    scene.run(2 * LINGER)
    assert scene.open == settled


def test_a_change_of_mind_in_the_middle() -> None:
    scene = becomes_plain()
    scene.run(3)
    scene.changes.set_ports([MANAGED])
    scene.changing = False
    scene.run(0.2)
    assert PORT in scene.open
    scene.run(2 * LINGER)
    assert (scene.open, scene.led) == ({PORT}, [])


def test_both_versions_of_ip_move_and_stand_ins_that_are_taken_are_avoided() -> None:
    changes = PortChanges(ipv6=True)
    changes.set_ports([MANAGED])
    first = changes.update(PortFacts(plain_running=[KEY]), 1.0)
    addresses = [each.address for each in first.listeners]
    assert len(addresses) == 2
    assert addresses[1].startswith("[::]:")
    again = PortChanges(ipv6=True)
    again.set_ports([MANAGED])
    plan = again.update(PortFacts(plain_running=[KEY], refused=addresses), 1.0)
    assert not {each.address for each in plan.listeners} & set(addresses)


@pytest.mark.parametrize("plain", [False, True])
def test_a_service_that_is_removed_in_the_middle_leaves_no_redirect(plain: bool) -> None:
    scene = becomes_plain() if plain else becomes_managed()
    scene.run(3)
    assert scene.led
    scene.changes.set_ports([])
    assert not scene.changes.is_idle, "the redirect is still in effect"
    scene.run(0.1)
    assert (scene.led, scene.open) == ([], set())
    assert scene.changes.is_idle


def test_ports_with_server_names_share_a_listener() -> None:
    def port(name: str, *sni: str) -> HostPort:
        return HostPort(name, False, 443, name, "", 8443, "tcp", sni)

    changes = PortChanges(ipv6=False)
    changes.set_ports([port("shop/b", "b.test", "*.b.test"), port("shop/a", "a.test")])
    names = (("*.b.test", "shop/b"), ("a.test", "shop/a"), ("b.test", "shop/b"))
    (listener,) = changes.plan.listeners
    assert listener == Listener("0.0.0.0:8443", "published", server_names=names)
    changes.set_ports([port("shop/rest"), port("shop/a", "a.test")])
    (listener,) = changes.plan.listeners
    assert (listener.service, listener.server_names) == ("shop/rest", (("a.test", "shop/a"),))
