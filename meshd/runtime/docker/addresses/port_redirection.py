"""Leads new connections to ports that the engine publishes to the proxy, with the rules of
`port_rules`.

Owned by the Docker runtime; the reconciler says which ports (`meshd.publish.port_changes`), and
repeats that while there are any, so that rules that something else removed are restored. `iptables`
runs the commands.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Protocol

import structlog

from meshd.model.event import Kind
from meshd.model.runtime import PortRedirect, PortRedirects
from meshd.runtime.docker.addresses.port_rules import (
    family_of,
    port_rules,
    ports_chain_of,
    ports_table,
    tracking_rules,
    unused_port_chains,
)
from meshd.runtime.docker.firewall_rules import Family
from meshd.runtime.docker.iptables import IptablesError

_log = structlog.stdlib.get_logger(__name__)


class PortTables(Protocol):
    """The table `nat` of both IP versions; see `meshd.runtime.docker.iptables.Iptables`."""

    def families(self) -> Sequence[Family]:
        """The IP versions of the host."""

    def check(self, interfaces: Iterable[str]) -> None:
        """Raises IptablesError if iptables is not usable here."""

    def listening_ports(self) -> Collection[int]:
        """The TCP ports on which something listens."""

    def connected_ports(self) -> Collection[int]:
        """The local TCP ports of connections."""

    async def nat_listing(self, family: Family) -> str:
        """All chains and rules of the table `nat`. Raises IptablesError."""

    async def restore(self, family: Family, text: str) -> None:
        """Apply a table. Raises IptablesError."""


class PortRedirection:
    """Applies redirects of ports on the host. `record_event` takes an event's kind and text."""

    def __init__(
        self,
        tables: PortTables,
        instance: str,
        record_event: Callable[[Kind, str], object],
    ) -> None:
        self._tables = tables
        self._chain = ports_chain_of(instance)
        self._record_event = record_event
        self._reported: frozenset[PortRedirect] = frozenset()
        self._one_at_a_time = asyncio.Lock()

    async def apply(self, redirects: Collection[PortRedirect]) -> PortRedirects:
        """Make exactly these redirects take effect; return those that do."""
        applied: set[PortRedirect] = set()
        settled = True
        async with self._one_at_a_time:
            for family in self._tables.families():
                wanted = [each for each in redirects if family_of(each) == family]
                try:
                    settled &= await self._apply(family, wanted)
                    applied.update(wanted)
                except IptablesError as error:
                    self._report(wanted, str(error))
        self._reported &= frozenset(redirects)
        return PortRedirects(frozenset(applied), settled)

    async def _apply(self, family: Family, wanted: Sequence[PortRedirect]) -> bool:
        """Apply the redirects of an IP version; return whether nothing is left of earlier ones."""
        self._tables.check(())
        listing = await self._tables.nat_listing(family)
        connected = self._tables.connected_ports()
        kept = tracking_rules(self._chain, wanted, listing, connected)
        change = ports_table(self._chain, [*port_rules(wanted, family), *kept], listing)
        if change is not None:
            await self._tables.restore(family, change)
        used = {*self._tables.listening_ports(), *connected}
        for chain in unused_port_chains(listing, self._chain, used):
            removal = ports_table(chain, (), listing)
            if removal is None:
                continue
            try:
                await self._tables.restore(family, removal)
            except IptablesError as error:  # another process was faster
                _log.info("unused chain is left in place", chain=chain, reason=str(error))
        return not kept

    def _report(self, redirects: Sequence[PortRedirect], reason: str) -> None:
        """Record one event about redirects that do not take effect."""
        new = frozenset(redirects) - self._reported
        if not new:
            _log.debug("redirects of ports cannot be removed", reason=reason)
            return
        self._reported |= new
        ports = ", ".join(map(str, sorted({each.port for each in new})))
        self._record_event(
            Kind.PORT_GAP,
            f"port {ports} of the host is closed for a moment while its service changes between "
            f"plain and mesh-managed: {reason}",
        )
