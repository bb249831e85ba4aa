"""CPU time and memory of a process and its descendants, from /proc."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

TICK: Final = 1.0 / os.sysconf("SC_CLK_TCK")
"""Seconds of a clock tick."""


def family(pid: int) -> Iterator[int]:
    """Yield the pids of a process and all its live descendants."""
    yield pid
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                yield from family(int(child))


def cpu_seconds(pid: int) -> float:
    """Return the user and system seconds of a process and its descendants, to a clock tick."""
    total = 0
    for member in set(family(pid)):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total * TICK


def memory_bytes(pid: int) -> int:
    """Return the proportional set size (PSS) of a process and its descendants, in bytes."""
    total = 0
    for member in set(family(pid)):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{member}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total
