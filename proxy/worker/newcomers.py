"""Connections of containers that started just now, until a snapshot names their address.

`handover` passes connections here that an `allow` list would refuse only because the caller is not
known yet; `worker` reports each installed snapshot. Nothing is read meanwhile. A connection is
handed over again as soon as its caller is known, or after `PATIENCE`.
"""

import asyncio
from collections.abc import Callable
from typing import Final

PATIENCE: Final = 5.0
"""Seconds that a connection waits: an engine that starts many containers at once reports each
within a few seconds."""
MOST: Final = 256
"""Connections that wait at the same time, each with a descriptor; others are handed over at
once."""


class Newcomers:
    """The waiting connections of one worker, by number. Their sockets are kept in `hand_over`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[int, tuple[Callable[[], bool], Callable[[], None]]] = {}
        self._last = 0

    @property
    def waiting(self) -> int:
        """Number of connections that wait."""
        return len(self._waiting)

    def hold(self, is_known: Callable[[], bool], hand_over: Callable[[], None]) -> bool:
        """Keep a connection until `is_known` returns true after a snapshot, then call `hand_over`.
        Returns False if too many wait already."""
        if len(self._waiting) >= MOST:
            return False
        number = self._last = self._last + 1
        self._waiting[number] = is_known, hand_over
        self._loop.call_later(PATIENCE, self._hand_over, number)
        return True

    def snapshot_installed(self) -> None:
        """Hand the connections over whose callers are known now."""
        for number, (is_known, _) in tuple(self._waiting.items()):
            if is_known():
                self._hand_over(number)

    def release(self) -> None:
        """Hand all connections over: the worker is about to end."""
        for number in tuple(self._waiting):
            self._hand_over(number)

    def _hand_over(self, number: int) -> None:
        entry = self._waiting.pop(number, None)
        if entry is not None:
            entry[1]()
