"""The watchers of live requests of this worker, found once a second.

Owned by `worker`. A watcher (`meshd tap`) puts two files into a directory of the state: a datagram
socket `NAME.sock` and its filter `NAME.json`, which it writes again before the time in it has
passed. While no watcher exists, this costs one look at a directory a second. The supervisor and
the control process know nothing of it, so that it works while they are busy or dead.
"""

import contextlib
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from proxy.observe.access_log import AccessLog
from proxy.observe.tap import Tap, TapFilter, TapLog

MAX_TAPS: Final = 16
"""Watchers of a worker; further ones see nothing."""
_LARGEST_FILTER: Final = 4096
"""Bytes of a filter."""


class Taps:
    """The watchers of a worker.

    `install` is called with the access log to use from now on: `log` while no one watches.
    """

    def __init__(
        self,
        directory: str,
        log: AccessLog | None,
        install: Callable[[AccessLog | None], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = Path(directory)
        self._log = log
        self._install = install
        self._clock = clock
        self._open: dict[str, tuple[bytes, Tap, socket.socket]] = {}

    def refresh(self) -> None:
        """Find new watchers, and forget those that are gone."""
        try:
            names = sorted(name for name in os.listdir(self._directory) if name.endswith(".json"))
        except OSError:
            names = []
        if not names and not self._open:
            return
        changed = False
        for name in [name for name in self._open if name not in names]:
            self._close(name)
            changed = True
        for name in names[:MAX_TAPS]:
            changed |= self._look_at(name)
        if changed:
            taps = [tap for _, tap, _ in self._open.values()]
            self._install(TapLog(self._log, taps, self._clock) if taps else self._log)

    def close(self) -> None:
        """Forget all watchers."""
        for name in list(self._open):
            self._close(name)

    def _look_at(self, name: str) -> bool:
        """Read the filter of a watcher. Return whether it has come, changed or gone."""
        known = self._open.get(name)
        try:
            with (self._directory / name).open("rb") as file:
                raw = file.read(_LARGEST_FILTER)
            wanted = msgspec.json.decode(raw, type=TapFilter)
            is_current = wanted.until > time.time() and not (known and known[1].gone)
        except (OSError, msgspec.MsgspecError):
            is_current = False
        if not is_current:
            self._close(name)
            return known is not None
        kept = msgspec.json.encode(msgspec.structs.replace(wanted, until=0.0))
        if known is not None and known[0] == kept:
            return False
        self._close(name)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        connection.setblocking(False)
        try:
            connection.connect(str(self._directory / name.removesuffix(".json")) + ".sock")
            tap = Tap(wanted, connection.send, self._clock())
        except (OSError, ValueError):
            connection.close()
            return known is not None
        self._open[name] = (kept, tap, connection)
        return True

    def _close(self, name: str) -> None:
        known = self._open.pop(name, None)
        if known is not None:
            with contextlib.suppress(OSError):
                known[2].close()
