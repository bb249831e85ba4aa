"""Signals by name and number, with the real-time ones. Pure.

Used by the Compose reader, which checks `stop_signal`, and by both runtimes, which send it. The
names are those of the Docker Engine on Linux.
"""

import re
import signal
from typing import Final

FIRST_REAL_TIME: Final = 34
"""SIGRTMIN as the C library and the engine number it."""
LAST_SIGNAL: Final = 64
"""SIGRTMAX, the highest signal of Linux."""
_REAL_TIME: Final = re.compile(r"SIGRT(?:MIN\+(\d{1,2})|MAX-(\d{1,2}))")
_MOST_ABOVE_MIN: Final = 15
"""The engine knows SIGRTMIN+1 to SIGRTMIN+15; above, it counts down from SIGRTMAX."""
_MOST_BELOW_MAX: Final = 14
"""The lowest that it counts down to: SIGRTMAX-14, the signal after SIGRTMIN+15."""


def parse_signal(text: str) -> int | None:
    """Return the number of a signal: `15`, `TERM`, `SIGTERM` or `SIGRTMIN+3`; None if it is not
    one."""
    name = text.upper()
    if name.isdecimal():
        return int(name) if 1 <= int(name) <= LAST_SIGNAL else None
    name = "SIG" + name.removeprefix("SIG")
    if name == "SIGRTMIN":
        return FIRST_REAL_TIME
    if name == "SIGRTMAX":
        return LAST_SIGNAL
    if found := _REAL_TIME.fullmatch(name):
        above, below = found.groups()
        if above is not None:
            return FIRST_REAL_TIME + int(above) if 1 <= int(above) <= _MOST_ABOVE_MIN else None
        return LAST_SIGNAL - int(below) if 1 <= int(below) <= _MOST_BELOW_MAX else None
    known = signal.Signals.__members__.get(name)
    return None if known is None else int(known)
