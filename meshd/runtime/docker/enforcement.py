"""Enforces `allow` on networks that services share, with the rules of `enforcement_rules`.

For services with `x-mesh.enforce`. The rules depend on the addresses of containers, so they follow
each start of a replica before it counts as started, and each engine event. Level-triggered, like
`host_firewall`: a check every minute restores what something else removed. Owned by the Docker
runtime; `iptables` runs the commands, `attachments` finds the addresses.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Final, Protocol

import structlog

from meshd.model.event import Kind
from meshd.runtime.base import RuntimeFailure
from meshd.runtime.docker.addresses.redirection_rules import redirect_removal, redirect_table
from meshd.runtime.docker.enforcement_rules import ContainerAddress, enforcement_rules
from meshd.runtime.docker.firewall_rules import Family, chain_of, stale
from meshd.runtime.docker.iptables import IptablesError

_log = structlog.stdlib.get_logger(__name__)
CHECK_PERIOD: Final = 60.0
"""Seconds between two checks that the rules still exist."""
POLL_PERIOD: Final = 1.0
"""Seconds between two looks whether other services are to be enforced."""


class MangleTables(Protocol):
    """The table `mangle`; see `meshd.runtime.docker.iptables.Iptables`."""

    def families(self) -> Sequence[Family]:
        """The IP versions that are filtered."""

    def check(self, interfaces: Iterable[str]) -> None:
        """Raises IptablesError if iptables is not usable here."""

    def interfaces(self) -> Collection[str]:
        """Names of all network interfaces."""

    def filter_bridge(self, interface: str, family: Family) -> None:
        """Let packets between the ports of a bridge pass iptables. Raises IptablesError."""

    async def mangle_listing(self, family: Family) -> str:
        """All chains and rules. Raises IptablesError."""

    async def restore(self, family: Family, text: str) -> None:
        """Apply a table. Raises IptablesError."""


class Enforcement:
    """Keeps the rules applied for the services that are to be enforced.

    - `attachments`: returns all addresses on the networks of given services (`PROJECT/SERVICE`).
    - `services`: returns the services that are to be enforced now.
    - `record_event`: takes an event's kind and text.
    - `state`: `on`, `off: REASON`, or empty while no service is to be enforced.
    """

    def __init__(
        self,
        attachments: Callable[[Collection[str]], Awaitable[Sequence[ContainerAddress]]],
        tables: MangleTables,
        instance: str,
        services: Callable[[], Collection[str]],
        record_event: Callable[[Kind, str], object],
    ) -> None:
        self.state = ""
        self._attachments = attachments
        self._tables = tables
        self._chain = chain_of(instance)
        self._services = services
        self._record_event = record_event
        self._enforced: Collection[str] = ()
        self._changed = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()

    def wake(self) -> None:
        """Look at the containers again soon: one of them has changed."""
        if self._enforced:
            self._changed.set()

    async def run(self) -> None:
        """Apply and check the rules until cancelled."""
        while True:
            await self.update()
            waited = 0.0
            while waited < CHECK_PERIOD and set(self._services()) == set(self._enforced):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_PERIOD):
                        await self._changed.wait()
                        break
                waited += POLL_PERIOD

    async def follow_start(self) -> None:
        """Apply the rules for a container that has just started."""
        if self._enforced or self._services():
            await self.update()

    async def update(self) -> None:
        """Apply the rules that the current containers need."""
        async with self._one_at_a_time:
            self._changed.clear()
            self._enforced = frozenset(self._services())
            try:
                attachments = await self._attachments(self._enforced) if self._enforced else ()
            except RuntimeFailure as error:
                _log.info("enforcement left unchanged", reason=str(error))
                return
            try:
                for family in self._tables.families():
                    await self._apply(family, attachments)
            except IptablesError as error:
                if self._enforced:
                    self._set_state(f"off: {error}")
                    return
                _log.debug("no enforcement to remove", reason=str(error))
            self._set_state("on" if self._enforced else "")

    async def _apply(self, family: Family, attachments: Sequence[ContainerAddress]) -> None:
        wanted = enforcement_rules(attachments, family)
        bridges = {each.bridge for each in attachments if each.guarded}
        self._tables.check(bridges)
        if wanted:
            for bridge in bridges:
                self._tables.filter_bridge(bridge, family)
        listing = await self._tables.mangle_listing(family)
        change = (
            redirect_table(self._chain, wanted, listing, "mangle")
            if wanted
            else redirect_removal(self._chain, listing, "mangle")
        )
        if change is not None:
            await self._tables.restore(family, change)
        for chain in stale(listing, self._chain, self._tables.interfaces(), "PREROUTING"):
            removal = redirect_removal(chain, listing, "mangle")
            if removal is not None:
                with contextlib.suppress(IptablesError):  # another process was faster
                    await self._tables.restore(family, removal)

    def _set_state(self, state: str) -> None:
        before, self.state = self.state, state
        off, was_off = state.startswith("off"), before.startswith("off")
        if off and state != before:
            self._record_event(
                Kind.ENFORCE_OFF,
                "allow is not enforced: containers of a shared network can connect past the mesh, "
                f"or with the address of another one: {state.removeprefix('off: ')}",
            )
        elif was_off and state == "on":
            self._record_event(Kind.ENFORCE_ON, "allow is enforced on shared networks again")
