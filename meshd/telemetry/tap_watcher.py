"""The watcher's side of `meshd tap`: a socket to which the workers send requests.

Used by `meshd.cli.commands.tap` on the daemon's machine, so that it works while the control process
does not answer, and by `meshd.control.recorder` for clients of the API. `proxy.worker.taps` is the
other side, which describes the files.
"""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from proxy.observe.tap import TapFilter, TapLine

DIRECTORY: Final = "tap"
"""Directory in the state."""
VALID_SECONDS: Final = 10.0
"""Seconds after which the workers forget a watcher that was killed."""
RENEW_SECONDS: Final = 3.0
"""Seconds between two renewals, so that two may fail."""
_LARGEST_LINE: Final = 1 << 20
"""Bytes of one request, whose target may have 16 KiB."""


class Watcher:
    """Watches requests while it is entered. Raises OSError if the state cannot be written."""

    def __init__(self, state: Path, wanted: TapFilter) -> None:
        self._directory = state / DIRECTORY
        self._wanted = wanted
        base = self._directory / f"{os.getpid()}-{time.monotonic_ns():x}"
        self._socket_path = base.with_suffix(".sock")
        self._filter_path = base.with_suffix(".json")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def __enter__(self) -> Self:
        owner = self._directory.parent.stat()
        self._directory.mkdir(mode=0o700, exist_ok=True)
        self._give(self._directory, owner)
        self._remove_old()
        self._socket.setblocking(False)
        self._socket.bind(str(self._socket_path))
        self._give(self._socket_path, owner)
        self._renew()
        self._give(self._filter_path, owner)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()
        for path in (self._filter_path, self._socket_path):
            with contextlib.suppress(OSError):
                path.unlink()

    async def lines(self) -> AsyncGenerator[TapLine]:
        """Yield requests as they end."""
        loop = asyncio.get_running_loop()
        renewed = loop.time()
        while True:
            try:
                async with asyncio.timeout(RENEW_SECONDS):
                    data = await loop.sock_recv(self._socket, _LARGEST_LINE)
                yield msgspec.json.decode(data, type=TapLine)
            except TimeoutError:
                pass
            if loop.time() - renewed >= RENEW_SECONDS:
                renewed = loop.time()
                self._renew()

    def _renew(self) -> None:
        """Write the filter with a new end, whole or not at all."""
        wanted = msgspec.structs.replace(self._wanted, until=time.time() + VALID_SECONDS)
        made = self._filter_path.with_suffix(".new")
        made.write_bytes(msgspec.json.encode(wanted))
        made.replace(self._filter_path)

    def _give(self, path: Path, owner: os.stat_result) -> None:
        """Give a file to the owner of the state, whose workers use it."""
        if os.geteuid() == 0 and owner.st_uid != 0:
            os.chown(path, owner.st_uid, owner.st_gid)

    def _remove_old(self) -> None:
        """Remove the files of watchers that were killed."""
        oldest = time.time() - 2 * VALID_SECONDS
        for path in self._directory.glob("*.json"):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < oldest:
                    path.unlink()
                    path.with_suffix(".sock").unlink()
