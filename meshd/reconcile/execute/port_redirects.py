"""Applies redirects of the host's ports, for services that change between plain and mesh-managed.

Owned by the reconciler, which gives the wanted redirects after each pass
(`meshd.publish.port_changes` decides them). They are applied again while there are any, in case
something else removed them, and until nothing is left of the last ones.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection
from typing import Final

from meshd.model.runtime import PortRedirect, PortRedirects
from meshd.runtime.base import RuntimeFailure

REPEAT: Final = 5.0
"""Seconds between two applications of the same redirects."""


class PortRedirectWriter:
    """Applies the wanted redirects, one set after another.

    - `redirect`: applies exactly these redirects; may raise RuntimeFailure.
    - `wake`: called after a set was applied.
    - `asked`: the last set that was applied; `applied`: those of it in effect.
    """

    def __init__(
        self,
        redirect: Callable[[Collection[PortRedirect]], Awaitable[PortRedirects]],
        wake: Callable[[], None],
    ) -> None:
        self.asked: frozenset[PortRedirect] | None = None
        self.applied: frozenset[PortRedirect] = frozenset()
        self._redirect = redirect
        self._wake = wake
        self._wanted: frozenset[PortRedirect] = frozenset()
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def set_wanted(self, wanted: frozenset[PortRedirect]) -> None:
        """Take the redirects that should be in effect. The first call applies them in any case: an
        earlier process may have left others."""
        if wanted == self._wanted and self.asked is not None:
            return
        self._wanted = wanted
        self._changed.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._apply_all())

    async def close(self) -> None:
        """Stop applying."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _apply_all(self) -> None:
        while True:
            self._changed.clear()
            wanted = self._wanted
            try:
                found = await self._redirect(wanted)
            except RuntimeFailure:
                found = PortRedirects()
            news = (wanted, found.applied) != (self.asked, self.applied)
            self.asked, self.applied = wanted, found.applied
            if news:
                self._wake()
            if not wanted and found.settled and not self._changed.is_set():
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REPEAT):
                    await self._changed.wait()
