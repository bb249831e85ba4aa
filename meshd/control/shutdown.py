"""Ends the whole daemon in order.

Used by the control facade. With `stop_replicas` every project is taken down first.
"""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Final

from meshd.model.replica_phase import Phase
from meshd.model.request import RemoveCopies
from meshd.publish.publisher import Publisher
from meshd.reconcile.loop import Reconciler
from meshd.reconcile.ownership.claims import ProjectClaims
from meshd.store.store import Store

POLL: Final = 0.05
"""Seconds between two looks at the copies that still run."""
ANSWER_TIME: Final = 0.2
"""Seconds that the API's answer has to reach the client before the daemon ends."""


class Shutdown:
    """The shutdown: `down` takes one project down, `end` ends this process. `parent`: process id of
    the supervisor that started this process; 0: none did."""

    def __init__(
        self,
        store: Store,
        reconciler: Reconciler,
        claims: ProjectClaims,
        publisher: Publisher,
        down: Callable[[str], Awaitable[None]],
        end: Callable[[], None],
        parent: int = 0,
    ) -> None:
        self._store = store
        self._reconciler = reconciler
        self._claims = claims
        self._publisher = publisher
        self._down = down
        self._end = end
        self._parent = parent
        self._requested = 0

    @property
    def is_ending(self) -> bool:
        """Whether the daemon ends: it was asked to, or its supervisor shuts down. It accepts no
        deployment then."""
        return self._requested > 0 or self._publisher.ending

    async def shutdown(self, stop_replicas: bool) -> None:
        """See `Control.shutdown`. The answer goes out first. Then the supervisor is signalled to
        end, or, without a supervisor, this process ends alone."""
        self._requested += 1
        try:
            if stop_replicas:
                await asyncio.gather(*(self._down(name) for name in list(self._store.projects)))
                await self._remove_copies()
        except BaseException:
            self._requested -= 1  # it does not end
            raise
        asyncio.get_running_loop().call_later(ANSWER_TIME, self._end_all)

    async def _remove_copies(self) -> None:
        """Drain and remove meshd's copies of adopted containers. Containers that others started
        stay, and so do copies that others stopped. Does not wait for a runtime that does not
        answer."""
        self._reconciler.request(RemoveCopies())
        while self._is_available() and self._has_copies():  # noqa: ASYNC110 (state, not an event)
            await asyncio.sleep(POLL)
        if self._is_available():
            self._claims.stop_adopting()
            await self._claims.release(*self._claims.held)

    def _is_available(self) -> bool:
        return self._reconciler.view().observed.available

    def _has_copies(self) -> bool:
        return any(
            replica.copied and (replica.phase is not Phase.GONE or replica.drain_since)
            for replica in self._reconciler.view().observed.replicas
        )

    def _end_all(self) -> None:
        supervisor = self._find_supervisor()
        if supervisor:
            os.kill(supervisor, signal.SIGTERM)
        else:
            self._end()

    def _find_supervisor(self) -> int:
        """Return the process id of the supervisor, 0 if there is none. While the feed is down, as
        during an upgrade, it is the parent: it would replace this process if that ended alone."""
        if self._publisher.connected:
            return self._publisher.supervisor
        return self._parent if os.getppid() == self._parent else 0
