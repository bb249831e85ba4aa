"""CPU and memory of local processes, read from /proc. Used by `ProcessRuntime.usage`."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from meshd.model.runtime import Usage

TICKS: Final = os.sysconf("SC_CLK_TCK")
PAGE: Final = os.sysconf("SC_PAGE_SIZE")


def usage_of_sessions(leaders: Mapping[int, str], proc: Path = Path("/proc")) -> dict[str, Usage]:
    """Return the usage of each session, by the name that `leaders` gives its first process."""
    at = time.monotonic()
    sums: dict[str, tuple[float, int]] = {}
    for entry in proc.iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            text = (entry / "stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended meanwhile
        # The command name is in parentheses and may contain anything, parentheses too.
        fields = text.rpartition(")")[2].split()
        name = leaders.get(int(fields[3]))
        if name is None:
            continue
        # Its own times, and those of children that ended and were waited for.
        ticks = sum(map(int, fields[11:15]))
        cpu, memory = sums.get(name, (0.0, 0))
        sums[name] = cpu + ticks / TICKS, memory + int(fields[21]) * PAGE
    return {name: Usage(cpu, memory, at) for name, (cpu, memory) in sums.items()}
