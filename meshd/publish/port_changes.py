"""Ports of the host that move between the engine and the mesh, without refused connections. Pure.

The engine holds a published port as long as the container of a plain service runs, and the mesh
cannot listen there meanwhile. While the service changes between plain and mesh-managed, the mesh
listens on a stand-in port, and the host leads new connections there. `gateways` owns it;
`meshd.reconcile.execute.port_redirects` applies the redirects.
"""

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Final

from meshd.model.runtime import PortRedirect
from meshd.publish.published_ports import HostPort, listen_addresses
from proxy.wire.snapshot import Listener

STAND_INS: Final = range(15781, 16805)
"""Ports for stand-ins: after the mesh's own (`VIRTUAL_PORT`), and below the ports that the kernel
gives to clients."""
LINGER: Final = 1.0
"""Seconds for which a port stays open after new connections are led elsewhere: those that were
made just before are accepted meanwhile."""
PATIENCE: Final = 10.0
"""Seconds after which replicas no longer wait for a redirect that does not take effect."""
TAKE_OVER: Final = 30.0
"""Seconds after the last plain replica in which the mesh must get the port. After that something
else holds it, whose connections are not for the mesh."""


class Step(Enum):
    """How far a change is.

    - OPENING: the stand-in is opened, then connections are led there.
    - STANDING: connections are led to the stand-in.
    - CLOSING: connections are led to the port itself again; the stand-in is closed soon.
    - FAILED: connections cannot be led anywhere. The port is closed for a moment.
    """

    OPENING = auto()
    STANDING = auto()
    CLOSING = auto()
    FAILED = auto()


_BEFORE: Final = (Step.OPENING, Step.STANDING)


@dataclass(frozen=True, slots=True)
class PortChange:
    """A port that moves.

    - `port`: the port of the host; `host`: the address that the mesh listens on for it.
    - `stand_in`: the port that takes its place.
    - `since`: when the current step began (Unix time, seconds).
    - `held`: when a plain replica of the service was last seen.
    """

    port: HostPort
    host: str
    stand_in: int
    step: Step
    since: float
    held: float

    @property
    def redirect(self) -> PortRedirect:
        """The redirect of new connections."""
        return PortRedirect(self.host, self.port.port, self.stand_in)

    @property
    def stand_in_address(self) -> str:
        """The address of the stand-in."""
        return _address(self.host, self.stand_in)


@dataclass(frozen=True, slots=True)
class PortFacts:
    """What is known at one moment.

    - `changing`: keys of plain services that were mesh-managed until now.
    - `plain_running`: keys of mesh-managed services with replicas that the engine publishes.
    - `open`: addresses that the mesh listens on; `refused`: those that could not be opened.
    - `asked`: the redirects that were last asked for; `applied`: those of them in effect.
    """

    changing: Collection[str] = ()
    plain_running: Collection[str] = ()
    open: Collection[str] = ()
    refused: Collection[str] = ()
    asked: Collection[PortRedirect] = ()
    applied: Collection[PortRedirect] = ()


@dataclass(frozen=True, slots=True)
class PortPlan:
    """What follows.

    - `listeners`: the addresses to listen on for published ports.
    - `redirects`: the redirects to apply.
    - `pending`: keys of services whose replicas wait: the old plain ones must not stop yet, or the
      new plain ones not start.
    """

    listeners: tuple[Listener, ...] = ()
    redirects: frozenset[PortRedirect] = frozenset()
    pending: frozenset[str] = frozenset()


@dataclass(slots=True)
class PortChanges:
    """The ports that move now, by address. `ipv6`: whether the host has IPv6."""

    ipv6: bool
    plan: PortPlan = field(default_factory=PortPlan)
    _ports: dict[str, tuple[HostPort, str]] = field(default_factory=dict)
    _sharing: dict[str, list[HostPort]] = field(default_factory=dict)
    _settled: tuple[Listener, ...] = ()
    _changes: dict[str, PortChange] = field(default_factory=dict)
    _seen: bool = False

    def set_ports(self, ports: Iterable[HostPort]) -> None:
        """Take the ports that services publish."""
        self._ports, self._sharing = {}, {}
        for port in ports:
            if port.protocol == "tcp":
                for host in listen_addresses(port, ipv6=self.ipv6):
                    address = _address(host, port.port)
                    self._ports.setdefault(address, (port, host))
                    self._sharing.setdefault(address, []).append(port)
        self._settled = tuple(
            self._listener(address, address)
            for address, (port, _) in sorted(self._ports.items())
            if not port.plain
        )
        self._changes = {at: each for at, each in self._changes.items() if at in self._ports}
        self.plan = replace(self.plan, listeners=self._settled)

    def _listener(self, at: str, address: str) -> Listener:
        """Return a listener at `at` for the ports that are published at `address`: several if they
        are for different server names."""
        sharing = self._sharing[address]
        names = ((name, port.name) for port in sharing for name in port.sni or ())
        rest = next((port.name for port in sharing if not port.sni), "")
        return Listener(at, "published", service=rest, server_names=tuple(sorted(names)))

    @property
    def is_idle(self) -> bool:
        """Whether no port moves, and no redirect is left of one that did."""
        return self._seen and not self._changes and not self.plan.redirects

    @property
    def moving(self) -> frozenset[str]:
        """The addresses that move now: the engine may still hold them."""
        return frozenset(self._changes)

    def update(self, facts: PortFacts, now: float) -> PortPlan:
        """Take every change one step further. The first call also finds the stand-ins that an
        earlier process opened."""
        self._seen = True
        for address, (port, host) in self._ports.items():
            before = self._changes.get(address)
            change = self._advance(before, address, port, host, facts, now)
            if change is not None:
                self._changes[address] = change
            elif before is not None:
                del self._changes[address]
        self.plan = self._plan(facts, now)
        return self.plan

    def _advance(
        self,
        change: PortChange | None,
        address: str,
        port: HostPort,
        host: str,
        facts: PortFacts,
        now: float,
    ) -> PortChange | None:
        """Return the next state of a port; None if it does not move."""
        moves = _must_move(address, port, facts)
        if change is None or (change.step is Step.CLOSING and moves):
            stand_in = change.stand_in if change else self._choose(address, host, facts)
            left = _address(host, stand_in) in facts.open
            if not moves and not left:
                return None
            over = _is_over(port, address, facts)
            step = Step.OPENING if moves or not over else Step.CLOSING
            return PortChange(port, host, stand_in, step, now, now)
        held = now if port.service in facts.plain_running else change.held
        change = replace(change, port=port, held=held)
        return _next_step(change, address, facts, now)

    def _choose(self, address: str, host: str, facts: PortFacts) -> int:
        """Return the stand-in of an address: the same each time, unless it is taken."""
        used = {change.stand_in for change in self._changes.values()}
        start = int.from_bytes(hashlib.sha256(address.encode()).digest()[:8])
        for step in range(len(STAND_INS)):
            port = STAND_INS[(start + step) % len(STAND_INS)]
            if port not in used and _address(host, port) not in facts.refused:
                return port
        return STAND_INS[0]

    def _plan(self, facts: PortFacts, now: float) -> PortPlan:
        if not self._changes:
            return PortPlan(self._settled)
        listeners = {each.address: each for each in self._settled}
        redirects, pending = set(), set()
        for address, change in self._changes.items():
            if change.step is not Step.FAILED:
                stand_in = change.stand_in_address
                listeners[stand_in] = self._listener(stand_in, address)
                if change.step is not Step.CLOSING and stand_in in facts.open:
                    redirects.add(change.redirect)
            if change.port.plain:
                if _keeps_open(change, address, facts, now):
                    listeners[address] = self._listener(address, address)
                waits = address in facts.open and change.step is not Step.CLOSING
            else:
                waits = change.step is Step.OPENING
                if change.step in _BEFORE and address not in facts.open and change.held == now:
                    listeners.pop(address, None)  # the engine still holds it
            if waits and now <= change.since + PATIENCE:
                pending.add(change.port.service)
        return PortPlan(
            tuple(listeners[at] for at in sorted(listeners)),
            frozenset(redirects),
            frozenset(pending),
        )


def _must_move(address: str, port: HostPort, facts: PortFacts) -> bool:
    """Whether the engine and the mesh would need the port at the same time."""
    if port.plain:
        return port.service in facts.changing and address in facts.open
    return port.service in facts.plain_running and address not in facts.open


def _is_over(port: HostPort, address: str, facts: PortFacts) -> bool:
    """Whether the port itself is open at its new place."""
    return port.service not in facts.changing if port.plain else address in facts.open


def _next_step(change: PortChange, address: str, facts: PortFacts, now: float) -> PortChange | None:
    """Return a change one step further; None if it is over."""
    redirect, over = change.redirect, _is_over(change.port, address, facts)
    gone = not change.port.plain and now > change.held + TAKE_OVER
    match change.step:
        case Step.OPENING | Step.STANDING if over or gone:
            return replace(change, step=Step.CLOSING, since=now)
        case Step.OPENING if redirect in facts.applied:
            return replace(change, step=Step.STANDING, since=now)
        case Step.OPENING if redirect in facts.asked or now > change.since + PATIENCE:
            return replace(change, step=Step.FAILED, since=now)
        case Step.CLOSING if redirect in facts.asked or redirect in facts.applied:
            return replace(change, since=now)
        case Step.CLOSING if now >= change.since + LINGER:
            return None
        case Step.FAILED if over or gone:
            return None
    return change


def _keeps_open(change: PortChange, address: str, facts: PortFacts, now: float) -> bool:
    """Whether the mesh still listens on the port of a service that becomes plain."""
    if address not in facts.open:
        return False
    return change.step is Step.OPENING or (
        change.step is Step.STANDING and now < change.since + LINGER
    )


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
