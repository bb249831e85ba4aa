"""Read how busy this machine is.

`agent` sends it with its signs of life, and `server` notes it for the host of the control process.
"""

from pathlib import Path

from meshd.model.node_proxy import NodeLoad, parse_cpu, parse_memory


class HostLoad:
    """The load since the last look. `proc`: where the kernel shows its counts."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._before: tuple[int, int] | None = None

    def read(self) -> NodeLoad | None:
        """Return the load since the last call; None at the first one, and where the kernel does
        not show it."""
        try:
            worked, ticks = parse_cpu((self._proc / "stat").read_text())
            memory = parse_memory((self._proc / "meminfo").read_text())
        except (OSError, ValueError, KeyError):
            return None
        before, self._before = self._before, (worked, ticks)
        if before is None or ticks <= before[1]:
            return None
        share = (worked - before[0]) / (ticks - before[1])
        return NodeLoad(min(1.0, max(0.0, share)), memory)
