"""One of several control processes leads; the others stand by.

`Daemon` waits in `acquire` until it leads, then runs its parts next to `keep`, which renews the
lease and stores what the next leader needs. Decisions are in `meshd.runtime.lease` (pure);
`LeaseKeeper` is where the runtime keeps the lease. `remaining` limits every call that changes
anything on the runtime.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final, Protocol

import msgspec
import structlog

from meshd.runtime.base import RuntimeFailure
from meshd.runtime.lease import (
    DURATION,
    RENEW_PAUSE,
    LeaseAction,
    LeaseRecord,
    LeaseState,
    decide,
    next_record,
    remaining,
)

_log = structlog.stdlib.get_logger(__name__)
RELEASE_SECONDS: Final = 2.0
"""Seconds for the release of the lease. Without it, the lease expires soon after."""
NEVER: Final = float("-inf")


class LeaseLost(Exception):
    """Another process leads now; this one must end."""


class LeaseKeeper(Protocol):
    """Where the runtime keeps the lease and the state of the leader. Every method may raise
    RuntimeFailure."""

    async def read(self) -> LeaseRecord | None:
        """Return the lease; None if there is none."""

    async def write(self, record: LeaseRecord) -> bool:
        """Replace the version that `record` names, or create the lease for version 0. Return
        whether that succeeded: nothing else has changed it meanwhile."""

    async def save(self, content: bytes) -> str:
        """Store a state next to the one before; return its place, for `LeaseRecord.records`."""

    async def load(self, place: str) -> bytes:
        """Return a stored state."""

    async def own_node(self) -> str:
        """Return the name of the node that this process runs on."""

    async def clean(self, place: str) -> None:
        """Remove all stored states but this one."""


class Leadership:
    """The lease of one control process, which is `me` on `host`.

    - `leader`: the host that leads, as far as this process knows; empty: unknown.
    """

    def __init__(
        self,
        keeper: LeaseKeeper,
        me: str,
        host: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.leader = ""
        self._keeper = keeper
        self._me = me
        self._host = host
        self._clock = clock
        self._state = LeaseState.STANDBY
        self._token = 0
        self._renewed_at = NEVER
        self._found: LeaseRecord | None = None
        self._changed_at = clock()
        self._saved = b""

    @property
    def found(self) -> LeaseRecord | None:
        """The lease as this process saw it last."""
        return self._found

    @property
    def state(self) -> LeaseState:
        """Whether this process leads."""
        return self._state

    def remaining(self) -> float:
        """Return for how many more seconds this process may change anything; at most 0 if it may
        not."""
        if self._state is not LeaseState.LEADING:
            return 0.0
        return remaining(self._renewed_at, self._clock())

    async def acquire(self) -> bytes | None:
        """Stand by until this process leads. Return the state of the leader before, None if that
        was this process or nothing is stored."""
        while True:
            try:
                async with asyncio.timeout(DURATION):
                    before = await self._look()
                action = decide(
                    self._state, self._me, self._token, before, self._clock() - self._changed_at
                )
                if action is not LeaseAction.WAIT and await self._write(before):
                    self._state = LeaseState.LEADING
                    if before is None or before.holder == self._me or not before.records:
                        return None
                    return await self._keeper.load(before.records)
            except (RuntimeFailure, TimeoutError) as error:
                _log.info("the lease is not known", reason=str(error))
            await asyncio.sleep(RENEW_PAUSE)

    async def keep(self, dump: Callable[[], bytes]) -> None:
        """Renew the lease, and store what `dump` returns whenever it has changed. Raises LeaseLost
        if another process took it. A renewal that comes late is safe if it succeeds: nothing has
        changed the lease meanwhile."""
        while True:
            try:
                async with asyncio.timeout(DURATION):
                    await self._renew(dump())
            except (RuntimeFailure, TimeoutError) as error:
                _log.warning("the lease was not renewed", reason=str(error))
            await asyncio.sleep(RENEW_PAUSE)

    async def release(self) -> None:
        """Let another process lead at once: this one ends in order."""
        if self._state is not LeaseState.LEADING:
            return
        self._state = LeaseState.LOST
        try:
            async with asyncio.timeout(RELEASE_SECONDS):
                found = await self._look()
                if found is not None and (found.holder, found.token) == (self._me, self._token):
                    await self._keeper.write(msgspec.structs.replace(found, holder=""))
        except (RuntimeFailure, TimeoutError) as error:
            _log.info("the lease was not released; it expires", reason=str(error))

    async def _renew(self, content: bytes) -> None:
        found = await self._look()
        if decide(self._state, self._me, self._token, found, 0.0) is LeaseAction.STOP:
            self._state = LeaseState.LOST
            raise LeaseLost(f"{self.leader or 'another process'} leads now")
        records = ""
        if content != self._saved:
            records = await self._keeper.save(content)
        if await self._write(found, records) and records:
            self._saved = content
            await self._keeper.clean(records)

    async def _look(self) -> LeaseRecord | None:
        found = await self._keeper.read()
        if found != self._found:
            self._changed_at = self._clock()
        self._found = found
        self.leader = found.host if found is not None and found.holder else ""
        return found

    async def _write(self, before: LeaseRecord | None, records: str = "") -> bool:
        """Write the lease of this process. The time counts from before the request."""
        sent_at = self._clock()
        record = next_record(before, self._state, self._me, self._host, records)
        if not await self._keeper.write(record):
            return False
        self._renewed_at, self._token = sent_at, record.token
        self.leader = self._host
        return True
