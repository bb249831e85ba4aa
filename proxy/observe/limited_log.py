"""A log of problems with at most one line in an interval, so a flood costs nothing. Pure.

`proxy.request.data_plane` owns those of a worker; `proxy.worker.worker` prints the lines.
"""

from collections.abc import Callable
from typing import Final

INTERVAL: Final = 1.0
"""Seconds between two lines at least, if nothing else is said."""


class LimitedLog:
    """Passes lines to `write`, at most one in `interval` seconds. A line says how many were left
    out before it."""

    def __init__(self, write: Callable[[str], None], interval: float = INTERVAL) -> None:
        self._write = write
        self._interval = interval
        self._next = float("-inf")
        self._left_out = 0

    def add(self, text: str, now: float) -> None:
        """Write a line, or leave it out; `now` is in monotonic seconds."""
        if now < self._next:
            self._left_out += 1
            return
        self._next = now + self._interval
        if self._left_out:
            text += f" (before it, {self._left_out} more lines were left out)"
            self._left_out = 0
        self._write(text)
