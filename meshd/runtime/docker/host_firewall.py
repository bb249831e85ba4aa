"""The fence between the mesh's networks and their host, kept as `docker_filter` words it.

Level-triggered: it is put up anew whenever the mesh's networks change and once a minute, whatever
became of it meanwhile. Nothing of it is left once no network of ours is that needs it; what is left
of other meshes without networks, whose state was deleted, is taken away too.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Final, Protocol

import structlog

from meshd.model.event import Kind
from meshd.runtime.base import RuntimeFailure
from meshd.runtime.docker.firewall_rules import (
    Bridge,
    Door,
    Family,
    chain_of,
    jumps_in,
    removal,
    rules,
    stale,
    table,
)
from meshd.runtime.docker.iptables import IptablesError

log = structlog.get_logger("meshd.runtime")
PERIOD: Final = 60.0
RETRY: Final = 5.0
BY_CHOICE: Final = "off: --no-filter"


class Tables(Protocol):
    """See `meshd.runtime.docker.iptables.Iptables`."""

    def families(self) -> Sequence[Family]:
        """What traffic there can be."""

    def check(self, interfaces: Iterable[str]) -> None:
        """Raises CannotFilter."""

    def interfaces(self) -> Collection[str]:
        """Those there are."""

    async def listing(self, family: Family) -> str:
        """Raises CannotFilter."""

    async def restore(self, family: Family, text: str) -> None:
        """Raises CannotFilter."""


class HostFirewall:
    """`bridges` gives the networks of these projects, `projects` those that are ours; `tell` takes
    an event's kind and text. `state` is `on`, `off: REASON`, or empty while nothing has to be
    kept out."""

    def __init__(
        self,
        bridges: Callable[[Collection[str]], Awaitable[Sequence[Bridge]]],
        tables: Tables,
        instance: str,
        projects: Callable[[], Collection[str]],
        tell: Callable[[Kind, str], object],
    ) -> None:
        self.wished = True
        self.doors: tuple[Door, ...] = ()
        self.state = ""
        self._bridges = bridges
        self._tables = tables
        self._chain = chain_of(instance)
        self._projects = projects
        self._tell = tell
        self._up: dict[Family, bool] = {}
        self._asked = 0
        self._done = 0
        self._one_at_a_time = asyncio.Lock()

    async def run(self) -> None:
        """Look ever again until cancelled."""
        while True:
            known = await self.settle()
            await asyncio.sleep(PERIOD if known else RETRY)

    async def settle(self) -> bool:
        """Put up what the networks that are there now need; who asks while somebody else waits for
        the same shares it. No when the engine could not be asked."""
        self._asked += 1
        mine = self._asked
        async with self._one_at_a_time:
            if self._done >= mine:
                return True
            covers = self._asked
            try:
                bridges = await self._bridges(self._projects())
            except RuntimeFailure as error:
                log.info("the host's filter is left as it is", reason=str(error))
                return False
            await self._bring(bridges)
            self._done = covers
            return True

    async def _bring(self, bridges: Sequence[Bridge]) -> None:
        lost, needed = False, False
        try:
            for family in self._tables.families():
                wanted = rules(bridges, self.doors, family) if self.wished else []
                if wanted:
                    needed = True
                    self._tables.check(bridge.interface for bridge in bridges)
                    lost |= await self._put_up(family, wanted)
                else:
                    await self._take_away(family)
        except IptablesError as error:
            if needed:
                self._now(f"off: {error}")
                return
            log.debug("no filter to take away", reason=str(error))
        if lost:
            self._tell(Kind.FILTER_ON, "the host's filter had been removed; it is back")
        self._now(("on" if needed else "") if self.wished else BY_CHOICE)

    async def _put_up(self, family: Family, wanted: Sequence[str]) -> bool:
        """Whether it had been taken away by somebody else."""
        before = await self._tables.listing(family)
        jumps = jumps_in(before, self._chain)
        await self._tables.restore(family, table(self._chain, wanted, jumps))
        lost = self._up.get(family, False) and jumps == 0
        self._up[family] = True
        after = await self._tables.listing(family)
        if jumps and not jumps_in(after, self._chain):  # it was taken away between the two
            await self._tables.restore(family, table(self._chain, wanted, 0))
        await self._tidy(family, after)
        return lost

    async def _tidy(self, family: Family, listing: str) -> None:
        """Take away the chains of meshes that are not any more."""
        for chain in stale(listing, self._chain, self._tables.interfaces()):
            try:
                await self._tables.restore(family, removal(chain, jumps_in(listing, chain)))
            except IptablesError as error:  # somebody was faster, or has a use for it
                log.info("a chain without networks stays", chain=chain, reason=str(error))
            else:
                log.info("a chain without networks was removed", chain=chain, family=family)

    async def _take_away(self, family: Family) -> None:
        """Also what an earlier life of this mesh left."""
        if self._up.get(family) is False:
            return
        self._tables.check(())
        jumps = jumps_in(await self._tables.listing(family), self._chain)
        if jumps or self._up.get(family):
            await self._tables.restore(family, removal(self._chain, jumps))
        self._up[family] = False

    def _now(self, state: str) -> None:
        before, self.state = self.state, state
        if state == before:
            return
        off, was_off = state.startswith("off"), before.startswith("off")
        if off and state != BY_CHOICE:
            reason = state.removeprefix("off: ")
            text = f"what containers reach of the host is not filtered: {reason}"
            self._tell(Kind.FILTER_OFF, text)
        elif was_off and state == "on":
            self._tell(Kind.FILTER_ON, "what containers reach of the host is filtered again")
