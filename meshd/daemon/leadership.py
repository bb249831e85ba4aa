"""One of several control processes leads; the others stand by.

`Daemon` waits in `acquire` until it leads, then runs its parts next to `keep`, which renews the
lease and stores what the next leader needs; `hand_over` ends that in order. Decisions are in
`meshd.runtime.lease` (pure); `LeaseKeeper` is where the runtime keeps the lease, `SharedState` is
the state of this process. `remaining` limits every call that changes anything on the runtime.

The state of the leader before is taken over before the lease is, and the write of the lease names
the version with that state. So the holder of the lease has the state, wherever a takeover stops.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final, Protocol

import msgspec
import structlog

from meshd.model.errors import StoreWriteError
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
from meshd.store.schema import SchemaTooNew

_log = structlog.stdlib.get_logger(__name__)
HAND_OVER_SECONDS: Final = DURATION
"""Seconds for the hand-over of the lease. Without it, the lease has expired by then."""
LOAD_SECONDS: Final = 10.0
"""Seconds to load the state of the leader before."""
LONGEST_PAUSE: Final = 2.0
"""The most seconds between two attempts to take over that fail for the same reason."""
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


class SharedState(Protocol):
    """The state of this process, as far as the next leader needs it."""

    def token(self) -> int:
        """Return the token of the last lease up to which the state is current; 0: of none."""

    def dump(self) -> bytes:
        """Return the state; equal for equal states."""

    def take_over(self, content: bytes | None, token: int) -> None:
        """Replace the state by that of the leader before (None: keep it), and note that it is
        current up to the lease with `token`, both or nothing. Raises SchemaTooNew if a later
        version wrote it, StoreWriteError."""


class Leadership:
    """The lease of one control process, which is `me` on `host`.

    - `leader`: the host that leads, as far as this process knows; empty: unknown, or this process
      led before and may continue.
    - `problem`: why this process cannot take over from a leader that is gone; empty: it can.
    """

    def __init__(
        self,
        keeper: LeaseKeeper,
        me: str,
        host: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.leader = ""
        self.problem = ""
        self._keeper = keeper
        self._me = me
        self._host = host
        self._clock = clock
        self._state = LeaseState.STANDBY
        self._token = 0
        self._renewed_at = NEVER
        self._found: LeaseRecord | None = None
        self._changed_at = clock()
        self._saved: bytes | None = None

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

    async def acquire(self, state: SharedState) -> None:
        """Stand by until this process leads; `state` is then that of the leader before, or newer.
        Raises LeaseLost if this process led before."""
        pause = RENEW_PAUSE
        while True:
            try:
                async with asyncio.timeout(DURATION):
                    before = await self._look()
            except (RuntimeFailure, TimeoutError) as error:
                _log.info("the lease is not known", reason=str(error))
            else:
                unchanged = self._clock() - self._changed_at
                action = decide(self._state, self._me, state.token(), before, unchanged)
                if action is LeaseAction.STOP:
                    raise LeaseLost("this process led before")
                if action is LeaseAction.WAIT:
                    self.problem = ""
                elif await self._take(state, before, action):
                    return
                pause = min(2 * pause, LONGEST_PAUSE) if self.problem else RENEW_PAUSE
            await asyncio.sleep(pause)

    async def _take(
        self, state: SharedState, before: LeaseRecord | None, action: LeaseAction
    ) -> bool:
        """Take over the state of the leader before, then the lease; return whether that
        succeeded."""
        try:
            if action is not LeaseAction.RENEW:
                await self._take_state(state, before, action)
            async with asyncio.timeout(DURATION):
                if not await self._write(before, action):
                    return False
        except (RuntimeFailure, TimeoutError, StoreWriteError, SchemaTooNew) as error:
            reason = str(error) or "no answer in time"
            if reason != self.problem:
                _log.error("this process cannot lead", reason=reason)
            self.problem = reason
            return False
        self._state, self.problem = LeaseState.LEADING, ""
        return True

    async def _take_state(
        self, state: SharedState, before: LeaseRecord | None, action: LeaseAction
    ) -> None:
        token = next_record(before, action, self._me, self._host).token
        if before is not None and before.records:
            state.take_over(await self._load(before.records), token)
            return
        try:
            state.take_over(None, token)
        except StoreWriteError as error:  # the mesh heals with what it knows; see StateFile
            _log.warning("the token of the lease is not stored", reason=str(error))

    async def _load(self, place: str) -> bytes:
        try:
            async with asyncio.timeout(LOAD_SECONDS):
                return await self._keeper.load(place)
        except (RuntimeFailure, TimeoutError) as error:
            reason = str(error) or "no answer in time"
            raise RuntimeFailure(
                f"the state of the leader before cannot be loaded: {reason}; "
                "docs/many-machines.md says how to lead without it"
            ) from error

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

    async def hand_over(self, dump: Callable[[], bytes]) -> None:
        """Store the last changes, and let another process lead at once, in one write: this one ends
        in order. No effect if another one leads."""
        if self._state is LeaseState.LEADING:
            self._state = LeaseState.LOST
        if not self._token:
            return
        try:
            async with asyncio.timeout(HAND_OVER_SECONDS):
                # More than once: a renewal that was given up may come in between.
                while not await self._try_hand_over(dump()):
                    pass
        except (RuntimeFailure, TimeoutError) as error:
            _log.warning("the lease was not handed over; it expires", reason=str(error))

    async def _try_hand_over(self, content: bytes) -> bool:
        """Return whether this process holds the lease no more."""
        found = await self._look()
        if found is None or (found.holder, found.token) != (self._me, self._token):
            return True
        records = found.records
        if content != self._saved:
            records = await self._keeper.save(content)
        return await self._keeper.write(msgspec.structs.replace(found, holder="", records=records))

    async def _renew(self, content: bytes) -> None:
        found = await self._look()
        action = decide(self._state, self._me, self._token, found, 0.0)
        if action is LeaseAction.STOP:
            self._state = LeaseState.LOST
            raise LeaseLost(f"{self.leader or 'another process'} leads now")
        records = ""
        if content != self._saved:
            records = await self._keeper.save(content)
            self._saved = None  # until it is known that the lease names it
        if await self._write(found, action, records) and records:
            self._saved = content
            await self._keeper.clean(records)

    async def _look(self) -> LeaseRecord | None:
        found = await self._keeper.read()
        if found != self._found:
            self._changed_at = self._clock()
        self._found = found
        held = found is not None and found.holder not in ("", self._me)
        self.leader = found.host if found is not None and held else ""
        return found

    async def _write(
        self, before: LeaseRecord | None, action: LeaseAction, records: str = ""
    ) -> bool:
        """Write the lease of this process. The time counts from before the request."""
        sent_at = self._clock()
        record = next_record(before, action, self._me, self._host, records)
        self._token = record.token  # before the request, whose answer may be lost
        if not await self._keeper.write(record):
            return False
        self._renewed_at = sent_at
        self.leader = self._host
        return True
