"""Leads connections to virtual addresses to the proxy, with the rules of `redirection_rules`.

Level-triggered, like `host_firewall`: routes and rules are applied whenever the mesh's networks
change, and checked every minute in case something removed them. They are removed when no network
needs them. The kernel removes a route with its bridge. Owned by the Docker runtime; `iptables` runs
the commands.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Final, Protocol

import structlog

from meshd.model.event import Kind
from meshd.runtime.base import RuntimeFailure
from meshd.runtime.docker.addresses.redirection_rules import (
    Redirect,
    missing_routes,
    redirect_removal,
    redirect_rules,
    redirect_table,
    surplus_routes,
)
from meshd.runtime.docker.firewall_rules import Family, chain_of, stale
from meshd.runtime.docker.iptables import IptablesError

_log = structlog.stdlib.get_logger(__name__)
CHECK_PERIOD: Final = 60.0
"""Seconds between two checks that routes and rules still exist."""
RETRY_PAUSE: Final = 5.0
"""Seconds before another try after a failure."""


class NatTables(Protocol):
    """Routes and the table `nat`; see `meshd.runtime.docker.iptables.Iptables`."""

    def check(self, interfaces: Iterable[str]) -> None:
        """Raises IptablesError if iptables is not usable here."""

    def interfaces(self) -> Collection[str]:
        """Names of all network interfaces."""

    async def nat_listing(self, family: Family) -> str:
        """All chains and rules of the table `nat`. Raises IptablesError."""

    async def restore_nat(self, text: str) -> None:
        """Apply a table. Raises IptablesError."""

    async def local_routes(self) -> str:
        """The local routes. Raises IptablesError."""

    async def change_route(self, verb: str, block: str, interface: str) -> None:
        """Add (`replace`) or remove (`del`) a local route. Raises IptablesError."""


class Redirection:
    """Keeps routes and rules applied on the host.

    - `networks`: returns the networks of given projects that have a free part.
    - `projects`: returns the projects of this mesh.
    - `record_event`: takes an event's kind and text.
    - `state`: `on`, `off: REASON`, or empty while no network has a free part.
    """

    def __init__(
        self,
        networks: Callable[[Collection[str]], Awaitable[Sequence[Redirect]]],
        tables: NatTables,
        instance: str,
        projects: Callable[[], Collection[str]],
        record_event: Callable[[Kind, str], object],
    ) -> None:
        self.state = ""
        self._networks = networks
        self._tables = tables
        self._chain = chain_of(instance)
        self._projects = projects
        self._record_event = record_event
        self._routes: set[tuple[str, str]] = set()
        self._one_at_a_time = asyncio.Lock()

    @property
    def works(self) -> bool:
        """Whether connections to virtual addresses reach the proxy."""
        return not self.state.startswith("off")

    async def run(self) -> None:
        """Apply and check routes and rules until cancelled."""
        while True:
            known = await self.update()
            await asyncio.sleep(CHECK_PERIOD if known else RETRY_PAUSE)

    async def update(self) -> bool:
        """Apply what the current networks need. Returns False if the engine did not answer or the
        host refused."""
        async with self._one_at_a_time:
            try:
                redirects = await self._networks(self._projects())
            except RuntimeFailure as error:
                _log.info("redirection left unchanged", reason=str(error))
                return False
            try:
                await self._apply(redirects)
            except IptablesError as error:
                if redirects:
                    self._set_state(f"off: {error}")
                    return False
                _log.debug("no redirection to remove", reason=str(error))
                self._set_state("")
                return True
            self._set_state("on" if redirects else "")
            return True

    async def _apply(self, redirects: Sequence[Redirect]) -> None:
        self._tables.check(each.interface for each in redirects)
        routes = await self._tables.local_routes()
        for each in missing_routes(redirects, routes):
            await self._tables.change_route("replace", each.block, each.interface)
        listing = await self._tables.nat_listing("IPv4")
        change = (
            redirect_table(self._chain, redirect_rules(redirects), listing)
            if redirects
            else redirect_removal(self._chain, listing)
        )
        if change is not None:
            await self._tables.restore_nat(change)
        for block, interface in surplus_routes(redirects, self._routes, routes):
            await self._tables.change_route("del", block, interface)
        self._routes = {(each.block, each.interface) for each in redirects}
        await self._remove_stale(listing)

    async def _remove_stale(self, listing: str) -> None:
        """Remove the chains of meshes that no longer exist."""
        found = stale(listing, self._chain, self._tables.interfaces(), "PREROUTING")
        for chain in found:
            removal = redirect_removal(chain, listing)
            if removal is None:
                continue
            try:
                await self._tables.restore_nat(removal)
            except IptablesError as error:  # another process was faster
                _log.info("unused chain is left in place", chain=chain, reason=str(error))

    def _set_state(self, state: str) -> None:
        before, self.state = self.state, state
        off, was_off = state.startswith("off"), before.startswith("off")
        if off and state != before:
            reason = state.removeprefix("off: ")
            self._record_event(
                Kind.ADDRESSES_OFF,
                "no virtual addresses: services of the mesh are reached through port 80, or "
                f"directly by the engine's name resolution: {reason}",
            )
        elif was_off and state == "on":
            self._record_event(Kind.ADDRESSES_ON, "virtual addresses of services work again")
