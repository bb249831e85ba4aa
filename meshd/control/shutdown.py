"""The end of the whole daemon, in order."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Final

from meshd.model.replica_phase import Phase
from meshd.publish.publisher import Publisher
from meshd.reconcile.loop import Reconciler
from meshd.store.store import Store

POLL: Final = 0.05
GOODBYE: Final = 0.2
"""Seconds that the answer has to get to who asked for the end."""


class Shutdown:
    """`down` takes one project down, `end` ends this process."""

    def __init__(
        self,
        store: Store,
        loop: Reconciler,
        publisher: Publisher,
        down: Callable[[str], Awaitable[None]],
        end: Callable[[], None],
    ) -> None:
        self._store = store
        self._loop = loop
        self._publisher = publisher
        self._down = down
        self._end = end

    async def shutdown(self, stop_replicas: bool) -> None:
        """See `Control.shutdown`. The answer goes out first; then the supervisor is told to
        end, or, where there is none, this process ends alone."""
        if stop_replicas:
            await asyncio.gather(*(self._down(name) for name in list(self._store.projects)))
            await self._end_copies()
        asyncio.get_running_loop().call_later(GOODBYE, self._end_all)

    async def _end_copies(self) -> None:
        """Have the copies of adopted containers drained and removed; what others started stays,
        and copies that others stopped are theirs to remove. Not waited for while the runtime does
        not answer."""
        self._loop.wanted.ending = True
        self._loop.wake.set()
        while self._loop.observed.available and any(  # noqa: ASYNC110 (what is, as above)
            replica.copied and (replica.phase is not Phase.GONE or replica.drain_since)
            for replica in self._loop.observed.replicas
        ):
            await asyncio.sleep(POLL)
        if self._loop.observed.available:
            self._loop.claims.adopts = False
            await self._loop.claims.release(*self._loop.claims.held)

    def _end_all(self) -> None:
        supervisor = self._publisher.supervisor
        if self._publisher.connected and supervisor:
            os.kill(supervisor, signal.SIGTERM)
        else:
            self._end()
