"""The proxy of a control process that stands by gets the routes of the leader, as on other nodes.

`Daemon` runs it until this process leads. The lease says where the leader feeds proxies. A manager
has the authority's key, in the state of the leader or in a file, so it issues its own certificate.
"""

import asyncio
import random
import time
from pathlib import Path
from typing import Final

import structlog

from meshd.daemon.leadership import Leadership, LeaseKeeper
from meshd.runtime.base import RuntimeFailure
from meshd.store.records import read_authority

_log = structlog.stdlib.get_logger(__name__)
POLL_SECONDS: Final = 0.5
"""Seconds between two looks at where the leader is: as often as the lease is read."""


class StandbyFeed:
    """Connects the supervisor of this host to the leader. `authority_file`: file with the authority
    of the mesh; empty: it is in the state of the leader."""

    def __init__(
        self,
        state: Path,
        leadership: Leadership,
        keeper: LeaseKeeper,
        authority_file: str = "",
    ) -> None:
        self._authority_file = authority_file
        self._warned = False
        self._state = state
        self._leadership = leadership
        self._keeper = keeper

    async def run(self) -> None:
        """Follow the leader until cancelled."""
        followed, task = "", None
        try:
            while True:
                found = self._leadership.found
                address = found.address if found is not None and found.holder else ""
                if task is not None and address != followed:
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
                    task = None
                if task is None and found is not None and address and found.records:
                    task = await self._follow(address, found.records)
                    followed = address
                await asyncio.sleep(POLL_SECONDS)
        finally:
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def _follow(self, address: str, records: str) -> "asyncio.Task[None] | None":
        """Connect to the leader at an address; None if its state cannot be read now."""
        # Imported on use: these modules and their libraries take 10 MiB.
        from meshd.node_proxy.agent import Agent
        from meshd.node_proxy.authority import MeshAuthority, new_request, read_authority_file
        from meshd.node_proxy.enrollment import NodeIdentity
        from meshd.node_proxy.identity import PeerIdentity, PeerRole

        try:
            keys = (
                read_authority_file(self._authority_file)
                if self._authority_file
                else read_authority(await self._keeper.load(records))
            )
            name = (await self._keeper.own_node()).lower()
        except RuntimeFailure as error:  # the leader has stored a newer one meanwhile
            _log.info("the state of the leader is not known", reason=str(error))
            return None
        if keys is None:
            if not self._warned:
                _log.warning("the leader has the authority in a file: start with --authority-file")
                self._warned = True
            return None
        authority = MeshAuthority(*keys)
        key, request = new_request()
        me = PeerIdentity(PeerRole.MANAGER, name)
        certificate = authority.issue(me, request, time.time())
        identity = NodeIdentity(key, certificate, authority.certificate)
        agent = Agent(
            self._state, identity, [address], random.Random(), keep=lambda _folder, _identity: None
        )
        return asyncio.create_task(agent.run())
