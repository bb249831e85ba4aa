"""Checks user names and passwords of requests in a thread.

`begin` starts a check for each request of a route with `basic_auth`. A check takes tens of
milliseconds, during which the worker serves other requests. Successful checks are remembered, so
that the next requests of a client wait for none.
"""

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from proxy.filters.credentials import Credentials, PasswordTable

if TYPE_CHECKING:
    import asyncio

MAX_REMEMBERED: Final = 4096
"""Successful checks that a worker remembers, of 32 bytes each."""
MAX_PENDING: Final = 64
"""Checks that wait in a worker. More are refused with 503: someone tries passwords, and the next
one would wait for seconds."""
_THREADS: Final = 2
"""Threads for checks: bcrypt runs outside of the interpreter's lock, and must leave the processor
to requests."""


class PasswordChecks:
    """The checks of a worker."""

    def __init__(self) -> None:
        self._key = os.urandom(32)
        self._remembered: dict[bytes, None] = {}
        self._pending = 0
        self._threads: ThreadPoolExecutor | None = None

    def is_remembered(self, table: PasswordTable, given: Credentials) -> bool:
        """Return whether these credentials were right before."""
        return table.digest(given, self._key) in self._remembered

    def check(
        self,
        loop: "asyncio.AbstractEventLoop",
        table: PasswordTable,
        given: Credentials,
        done: Callable[[bool], None],
    ) -> bool:
        """Check credentials and call `done` with the outcome. Return False, and do nothing, if too
        many checks wait."""
        if self._pending >= MAX_PENDING:
            return False
        self._pending += 1
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, "password")

        def finish(right: bool) -> None:
            self._pending -= 1
            if right:
                self._remember(table.digest(given, self._key))
            done(right)

        def report(future: Future[bool]) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(finish, not future.cancelled() and future.result())

        self._threads.submit(table.check, given).add_done_callback(report)
        return True

    def _remember(self, digest: bytes) -> None:
        while len(self._remembered) >= MAX_REMEMBERED:
            del self._remembered[next(iter(self._remembered))]
        self._remembered[digest] = None
