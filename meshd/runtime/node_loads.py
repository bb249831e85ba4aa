"""How busy the nodes were in the last minute, as their own proxies report it.

Made by `meshd.daemon.wiring`. `meshd.node_proxy.server` notes what nodes report; the Swarm runtime
chooses nodes by it and shows it.
"""

from collections.abc import Callable
from typing import Final

from meshd.model.node_proxy import NodeLoad, smooth

WEIGHT: Final = 1 / 15
"""Weight of a new report, one every 2 s: the average covers about half a minute, so that neither a
burst nor the start of a replica counts for long."""
FORGET_SECONDS: Final = 60.0
"""Seconds after which the load of a node that reports no longer is not known."""


class NodeLoads:
    """The loads by node. `clock`: monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._loads: dict[str, tuple[NodeLoad, float]] = {}

    def note(self, node: str, load: NodeLoad) -> None:
        """Take the report of a node."""
        self._loads[node.lower()] = (smooth(self.of(node), load, WEIGHT), self._clock())

    def of(self, node: str) -> NodeLoad | None:
        """Return the load of a node; None if it is not known."""
        load, at = self._loads.get(node.lower(), (None, 0.0))
        return load if self._clock() - at <= FORGET_SECONDS else None
