"""What users see of the proxies of other nodes, the numbers of their workers, and how busy their
hosts are. Pure.

`meshd.node_proxy` makes these values; the API sends them.
"""

from typing import Final

from meshd.model.base import Value

NODE_PORT: Final = 15779
"""Port of the control process for the proxies of nodes, by default: next to that for calls of
replicas (15781), below the ports that the kernel gives to clients."""
PEER_PORT: Final = 15778
"""Port of each proxy for those of other nodes, by default: next to that one."""
WORKERS_PER_NODE: Final = 1_000_000
"""Numbers that the workers of one node have, so that no two nodes share one: a supervisor that
replaces a worker each second needs eleven days for them."""


def is_local_worker(number: int) -> bool:
    """Return whether a worker belongs to the supervisor of this control process."""
    return number < WORKERS_PER_NODE


class NodeProxyStatus(Value, frozen=True):
    """The proxy of another node.

    - `state`: `connected`, `behind` (connected, and a worker has not installed the last snapshot
      yet) or `lost`.
    - `generation`: the oldest snapshot that one of its workers has, as epoch and number.
    - `workers`: number of its live workers.
    - `address`: where it connects from; empty if it is lost.
    - `since`: when that state of the connection began, in Unix time; 0: before this control process
      started.
    """

    name: str
    state: str
    generation: tuple[int, int] = (0, 0)
    workers: int = 0
    address: str = ""
    since: float = 0.0


class NewJoinToken(Value, frozen=True):
    """A join token that was just made: its text, when it ends (Unix time), and the port of the
    control process for nodes."""

    secret: str
    expires: float
    port: int


BUSY: Final = 0.9
"""Share of the processors or of the memory in use from which on a machine is busy: what waits grows
quickly beyond."""
STEPS: Final = 4
"""Steps in which placement compares loads: smaller differences are gone a minute later."""


class NodeLoad(Value, frozen=True):
    """Shares, from 0 to 1, of the time that the processors worked (`cpu`) and of the memory that
    programs use (`memory`)."""

    cpu: float
    memory: float

    @property
    def highest(self) -> float:
        """The higher one of both."""
        return max(self.cpu, self.memory)

    @property
    def is_busy(self) -> bool:
        """Whether the machine has hardly any room left."""
        return self.highest >= BUSY

    @property
    def step(self) -> int:
        """The load in steps, for comparisons."""
        return min(STEPS - 1, int(self.highest * STEPS))


def smooth(before: NodeLoad | None, now: NodeLoad, weight: float) -> NodeLoad:
    """Return the average of a load and those before it, to which it contributes with `weight`."""
    if before is None:
        return now
    return NodeLoad(
        before.cpu + weight * (now.cpu - before.cpu),
        before.memory + weight * (now.memory - before.memory),
    )


def parse_cpu(stat: str) -> tuple[int, int]:
    """Return the ticks in which all processors worked, and all ticks, since the start, from the
    text of `/proc/stat`. Raises ValueError."""
    name, *fields = stat.partition("\n")[0].split()
    ticks = [int(field) for field in fields[:8]]  # without guests, which count as user already
    if name != "cpu" or len(ticks) < 5:
        raise ValueError(f"{name!r} with {len(ticks)} numbers is not the line of all processors")
    idle = ticks[3] + ticks[4]  # idle, and idle while a disk is busy
    return sum(ticks) - idle, sum(ticks)


def parse_memory(meminfo: str) -> float:
    """Return the share of the memory in use, without caches that can be dropped, from the text of
    `/proc/meminfo`. Raises ValueError, KeyError."""
    lines = (line.split() for line in meminfo.splitlines())
    kilobytes = {words[0]: int(words[1]) for words in lines if len(words) > 1}
    return 1.0 - kilobytes["MemAvailable:"] / max(1, kilobytes["MemTotal:"])
