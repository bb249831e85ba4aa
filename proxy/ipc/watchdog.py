"""Signs of life of a child process: how the supervisor notices that one hangs.

The supervisor (`proxy.supervisor.child_processes`) gives each watched child the write end of a
pipe. The child runs `send_signs_of_life` in its event loop, so a stopped process and a blocked
event loop are both noticed.
"""

import asyncio
import contextlib
import os
from typing import Final

WATCHDOG_VARIABLE: Final = "MESHD_WATCHDOG_FD"
"""Environment variable with the descriptor of the pipe's write end."""
LAST_END_VARIABLE: Final = "MESHD_LAST_END"
"""Environment variable of a restarted child: how the process before it ended, in words."""
INTERVAL: Final = 1.0
"""Seconds between two signs of life: a tenth of the shortest timeout that is used."""


def take_watchdog() -> int | None:
    """Return the descriptor that the supervisor passed; None if this process is not watched.

    The variable is removed, so that no process started from here inherits it.
    """
    number = os.environ.pop(WATCHDOG_VARIABLE, None)
    return int(number) if number is not None else None


def take_last_end() -> str:
    """Return how the previous process ended; empty for a first start. Removes the variable."""
    return os.environ.pop(LAST_END_VARIABLE, "")


async def send_signs_of_life(descriptor: int | None) -> None:
    """Write a byte each second until cancelled. With None there is nothing to write to."""
    if descriptor is None:
        await asyncio.Event().wait()
        return
    os.set_blocking(descriptor, False)
    while True:
        # A full pipe or a closed one: the supervisor is paused, or has ended.
        with contextlib.suppress(OSError):
            os.write(descriptor, b".")
        await asyncio.sleep(INTERVAL)
