"""What users see of the proxies of other nodes, and the numbers of their workers. Pure.

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
