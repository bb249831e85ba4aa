"""A `NodeControl` over nodes in memory."""

from collections.abc import Sequence

import msgspec

from meshd.api.dto import NodeDrain, NodeStatus, Rebalance
from meshd.model.errors import NotFound, Rejected
from meshd.model.node_proxy import NewJoinToken


class FakeNodeControl:
    """`obstacles` prevent a drain. A drain shows each of `steps` to one reader, and ends with the
    availability `ends_as` and the problem `problem`."""

    def __init__(self) -> None:
        self.known = [
            NodeStatus(
                "m1", "ready", "active", "leader", "10.0.0.1", "20.10", 2, 4.0, 2**33, 1.0, 2**30,
                {"zone": "a"},
            ),
            NodeStatus("w1", "down", "drain", "worker", cpus=2.0, memory=2**32),
        ]  # fmt: skip
        self.obstacles: tuple[str, ...] = ()
        self.steps: list[str] = []
        self.ends_as = "drain"
        self.problem = ""
        self.moves = 0
        self.calls: list[tuple[object, ...]] = []

    def _change(self, name: str, **fields: object) -> None:
        for at, node in enumerate(self.known):
            if node.name == name:
                self.known[at] = msgspec.structs.replace(node, **fields)
                return
        raise NotFound(f"there is no node {name!r}")

    async def nodes(self) -> Sequence[NodeStatus]:
        for node in list(self.known):
            if node.drain and self.steps:
                self._change(node.name, drain=self.steps.pop(0))
            elif node.drain:
                self._change(node.name, drain="", availability=self.ends_as, problem=self.problem)
        return list(self.known)

    async def drain(
        self, node: str, seconds: float, force: bool, dry_run: bool, who: str
    ) -> NodeDrain:
        self.calls.append(("drain", node, seconds, force, dry_run, who))
        if self.obstacles and not dry_run:
            raise Rejected(f"node {node} cannot be drained: {'; '.join(self.obstacles)}")
        if not dry_run:
            self._change(node, availability="pause", drain="begins")
        return NodeDrain(node, ("web-1",), self.obstacles)

    async def cordon(self, node: str, who: str) -> None:
        self.calls.append(("cordon", node, who))
        self._change(node, availability="pause")

    async def uncordon(self, node: str, who: str) -> None:
        self.calls.append(("uncordon", node, who))
        self._change(node, availability="active")

    async def make_token(self, seconds: float, who: str) -> NewJoinToken:
        self.calls.append(("make_token", seconds, who))
        return NewJoinToken("meshd-join-1-abc", 1000.0, 15779)

    async def remove_proxy(self, node: str, who: str) -> None:
        self.calls.append(("remove_proxy", node, who))
        self._change(node, proxy=None)

    async def rebalance(self, dry_run: bool, who: str) -> Rebalance:
        self.calls.append(("rebalance", dry_run, who))
        return Rebalance(self.moves)
