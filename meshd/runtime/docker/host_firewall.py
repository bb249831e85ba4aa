"""The firewall between the mesh's networks and their host, with the rules of `firewall_rules`.

Level-triggered: the rules are applied whenever the mesh's networks change, and checked every minute
in case something removed them. The chain is removed when no network needs it. Chains of deleted
meshes are removed too. Owned by the daemon; `iptables` runs the commands.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Final, Protocol

import structlog

from meshd.model.event import Kind
from meshd.runtime.base import RuntimeFailure
from meshd.runtime.docker.firewall_rules import (
    BlockedPort,
    Bridge,
    Family,
    chain_of,
    jumps_in,
    removal,
    rules,
    stale,
    table,
)
from meshd.runtime.docker.iptables import IptablesError

_log = structlog.stdlib.get_logger(__name__)
PERIOD: Final = 60.0
"""Seconds between two checks that the rules still exist."""
RETRY: Final = 5.0
"""Seconds before another try after a failure."""
BY_CHOICE: Final = "off: --no-filter"


class Tables(Protocol):
    """The tables of iptables; see `meshd.runtime.docker.iptables.Iptables`."""

    def families(self) -> Sequence[Family]:
        """The IP versions that are filtered: `4`, `6`."""

    def check(self, interfaces: Iterable[str]) -> None:
        """Raises IptablesError if iptables is not usable here."""

    def interfaces(self) -> Collection[str]:
        """Names of all network interfaces."""

    async def listing(self, family: Family) -> str:
        """All chains and rules. Raises IptablesError."""

    async def restore(self, family: Family, text: str) -> None:
        """Apply a table. Raises IptablesError."""


class HostFirewall:
    """Keeps the mesh's firewall rules applied on the host.

    - `bridges`: returns the networks of given projects.
    - `projects`: returns the projects of this mesh.
    - `record_event`: takes an event's kind and text.
    - `state`: `on`, `off: REASON`, or empty while nothing needs filtering.
    """

    def __init__(
        self,
        bridges: Callable[[Collection[str]], Awaitable[Sequence[Bridge]]],
        tables: Tables,
        instance: str,
        projects: Callable[[], Collection[str]],
        record_event: Callable[[Kind, str], object],
        enabled: bool = True,
    ) -> None:
        self._enabled = enabled
        self._blocked_ports: tuple[BlockedPort, ...] = ()
        self.state = ""
        self._bridges = bridges
        self._tables = tables
        self._chain = chain_of(instance)
        self._projects = projects
        self._record_event = record_event
        self._up: dict[Family, bool] = {}
        self._asked = 0
        self._done = 0
        self._one_at_a_time = asyncio.Lock()

    def block_ports(self, blocked_ports: tuple[BlockedPort, ...]) -> None:
        """Keep containers from these ports of the host, from the next update on."""
        self._blocked_ports = blocked_ports

    async def run(self) -> None:
        """Apply and check the rules until cancelled."""
        while True:
            known = await self.update()
            await asyncio.sleep(PERIOD if known else RETRY)

    async def update(self) -> bool:
        """Apply the rules that the current networks need. Concurrent callers share one run.
        Returns False if the engine did not answer."""
        self._asked += 1
        mine = self._asked
        async with self._one_at_a_time:
            if self._done >= mine:
                return True
            covers = self._asked
            try:
                bridges = await self._bridges(self._projects())
            except RuntimeFailure as error:
                _log.info("host firewall left unchanged", reason=str(error))
                return False
            await self._apply_all(bridges)
            self._done = covers
            return True

    async def _apply_all(self, bridges: Sequence[Bridge]) -> None:
        lost, needed = False, False
        try:
            for family in self._tables.families():
                wanted = rules(bridges, self._blocked_ports, family) if self._enabled else []
                if wanted:
                    needed = True
                    self._tables.check(bridge.interface for bridge in bridges)
                    lost |= await self._apply(family, wanted)
                else:
                    await self._remove(family)
        except IptablesError as error:
            if needed:
                self._set_state(f"off: {error}")
                return
            _log.debug("no host firewall to remove", reason=str(error))
        if lost:
            self._record_event(
                Kind.FILTER_ON, "the host firewall was removed by something else; applied it again"
            )
        self._set_state(("on" if needed else "") if self._enabled else BY_CHOICE)

    async def _apply(self, family: Family, wanted: Sequence[str]) -> bool:
        """Apply the rules; return whether something else had removed them."""
        before = await self._tables.listing(family)
        jumps = jumps_in(before, self._chain)
        await self._tables.restore(family, table(self._chain, wanted, jumps))
        lost = self._up.get(family, False) and jumps == 0
        self._up[family] = True
        after = await self._tables.listing(family)
        if jumps and not jumps_in(after, self._chain):  # removed between the two commands
            await self._tables.restore(family, table(self._chain, wanted, 0))
        await self._remove_stale(family, after)
        return lost

    async def _remove_stale(self, family: Family, listing: str) -> None:
        """Remove the chains of meshes that no longer exist."""
        for chain in stale(listing, self._chain, self._tables.interfaces()):
            try:
                await self._tables.restore(family, removal(chain, jumps_in(listing, chain)))
            except IptablesError as error:  # another process was faster, or uses it
                _log.info("unused firewall chain is left in place", chain=chain, reason=str(error))
            else:
                _log.info("unused firewall chain removed", chain=chain, family=family)

    async def _remove(self, family: Family) -> None:
        """Remove our chain, also one that an earlier process left."""
        if self._up.get(family) is False:
            return
        self._tables.check(())
        jumps = jumps_in(await self._tables.listing(family), self._chain)
        if jumps or self._up.get(family):
            await self._tables.restore(family, removal(self._chain, jumps))
        self._up[family] = False

    def _set_state(self, state: str) -> None:
        before, self.state = self.state, state
        if state == before:
            return
        off, was_off = state.startswith("off"), before.startswith("off")
        if off and state != BY_CHOICE:
            reason = state.removeprefix("off: ")
            text = (
                "host firewall off: containers can reach services of the host, and containers of "
                f"other networks and other hosts the mesh's gateways: {reason}"
            )
            self._record_event(Kind.FILTER_OFF, text)
        elif was_off and state == "on":
            self._record_event(Kind.FILTER_ON, "host firewall on again")
