"""How many replicas of each service the nodes have room for. Pure.

What counts is what a service reserves (`deploy.resources.reservations`), and the memory it is
limited to where nothing is reserved and the limit is enforced: memory that was given cannot be
taken back. A CPU limit reserves nothing, since CPU is shared. What reserves nothing always fits.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from meshd.model.runtime import Node
from meshd.spec.model import Service

GIB: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Demand:
    """`wanted` replicas of a service, each taking `cpus` cores and `memory` bytes. The `fixed`
    ones of them are not the autoscaler's to withhold: its minimum, or a number set by hand.
    `what` one of them is called."""

    key: str
    wanted: int
    fixed: int
    priority: int = 0
    cpus: float = 0.0
    memory: int = 0
    what: str = "a replica"


@dataclass(frozen=True, slots=True)
class Allocation:
    """`count` replicas have room; `why` no more, empty when all that are wanted fit."""

    count: int
    why: str = ""


def takes(service: Service, limits_memory: bool) -> tuple[float, int]:
    """Cores and bytes that one replica takes of a node."""
    resources = service.resources
    memory = resources.reserved_memory or (resources.memory if limits_memory else 0)
    return resources.reserved_cpus, memory


def share(nodes: Sequence[Node], wants: Iterable[Demand]) -> dict[str, Allocation]:
    """Who gets how much. Fixed numbers come first, fit or not. Then the higher priority; within
    one, replicas are given out in turns, so that what is short is short for the largest wants.
    Names decide ties, so the same input gives the same answer."""
    ordered = sorted(wants, key=lambda want: (-want.priority, want.key))
    if not nodes:
        return {want.key: Allocation(want.wanted) for want in ordered}
    free = _Free(nodes)
    given = {want.key: min(want.fixed, want.wanted) for want in ordered}
    for want in ordered:
        for _ in range(given[want.key]):
            free.place(want, anyway=True)
    short: dict[str, str] = {}
    for _, group in groupby(ordered, key=lambda want: want.priority):
        _in_turns(list(group), free, given, short)
    return {want.key: Allocation(given[want.key], short.get(want.key, "")) for want in ordered}


def short(
    nodes: Sequence[Node], others: Iterable[Demand], ours: Iterable[Demand]
) -> tuple[str, str] | None:
    """The first of `ours` that has no place beside the `others`, and why; None when all have
    one. The largest are placed first, which leaves the least over."""
    free = _Free(nodes)
    for want in others:
        for _ in range(want.wanted):
            free.place(want, anyway=True)
    for want in sorted(ours, key=lambda want: (-want.memory, -want.cpus, want.key)):
        for _ in range(want.wanted):
            if not free.place(want):
                return want.key, free.lack(want)
    return None


def _in_turns(
    group: Sequence[Demand], free: "_Free", given: dict[str, int], short: dict[str, str]
) -> None:
    open_wants = [want for want in group if given[want.key] < want.wanted]
    while open_wants:
        for want in list(open_wants):
            if not free.place(want):
                short[want.key] = free.lack(want)
                open_wants.remove(want)
                continue
            given[want.key] += 1
            if given[want.key] == want.wanted:
                open_wants.remove(want)


class _Free:
    """What is left on each node."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._total = sum(node.cpus for node in nodes), sum(node.memory for node in nodes)
        self._nodes = [[node.cpus, float(node.memory)] for node in nodes]

    def place(self, want: Demand, anyway: bool = False) -> bool:
        """Take one replica's part from the emptiest node that has it."""
        if not want.cpus and not want.memory:
            return True
        emptiest = max(self._nodes, key=lambda node: (self._fits(node, want), node[1], node[0]))
        if not anyway and not self._fits(emptiest, want):
            return False
        emptiest[0] -= want.cpus
        emptiest[1] -= want.memory
        return True

    def lack(self, want: Demand) -> str:
        """Why another one does not fit."""
        most = [max(0.0, *(node[part] for node in self._nodes)) for part in (0, 1)]
        cpus, memory = round(most[0], 6), most[1]
        where = "the node" if len(self._nodes) == 1 else "the emptiest node"
        if want.memory > memory:
            return (
                f"because {want.what} takes {want.memory / GIB:.2f} GiB of memory and {where} has "
                f"{memory / GIB:.2f} of {self._total[1] / GIB:.2f} GiB left"
            )
        if want.cpus > cpus:
            return (
                f"because {want.what} takes {want.cpus:g} CPUs and {where} has {cpus:g} of "
                f"{self._total[0]:g} left"
            )
        return f"because no node has both {want.cpus:g} CPUs and {want.memory / GIB:.2f} GiB left"

    @staticmethod
    def _fits(node: Sequence[float], want: Demand) -> bool:
        return node[0] >= want.cpus - 1e-9 and node[1] >= want.memory
