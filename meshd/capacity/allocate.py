"""How many replicas of each service fit on the nodes. Pure.

`meshd.scaling.limits` allocates every second; `meshd.capacity.admission` and `job_demand` check
single deployments and jobs.

What counts is what a service reserves (`deploy.resources.reservations`). Without a memory
reservation, the memory limit counts if the runtime enforces it, since memory in use cannot be taken
back. A CPU limit reserves nothing, since CPU is shared. A service that reserves nothing always
fits.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from meshd.model.runtime import Node
from meshd.spec.model import Service

GIB: Final = 1 << 30
"""Bytes of a GiB."""
ROUNDING: Final = 1e-9
"""Cores by which sums of CPU shares may be off as floating-point numbers."""


@dataclass(frozen=True, slots=True)
class Demand:
    """The replicas that a service asks for.

    - `desired`: number of replicas.
    - `fixed`: how many of them are placed in any case: the minimum, or a number set by hand.
    - `priority`: higher ones are served first.
    - `cpus` (cores), `memory` (bytes): what one replica needs.
    - `unit`: name of one of them, for messages.
    """

    key: str
    desired: int
    fixed: int
    priority: int = 0
    cpus: float = 0.0
    memory: int = 0
    unit: str = "a replica"


@dataclass(frozen=True, slots=True)
class Allocation:
    """The replicas that a service gets.

    - `count`: number of replicas.
    - `reason`: why it is not more; None if all desired replicas fit.
    """

    count: int
    reason: str | None = None


def reservation(service: Service, limits_memory: bool) -> tuple[float, int]:
    """Return the (cores, bytes) that one replica needs on a node. `limits_memory` says whether the
    runtime enforces memory limits."""
    resources = service.resources
    memory = resources.reserved_memory or (resources.memory if limits_memory else 0)
    return resources.reserved_cpus, memory


def allocate(nodes: Sequence[Node], demands: Iterable[Demand]) -> dict[str, Allocation]:
    """Return the allocation of each demand, by key.

    Fixed numbers come first, whether they fit or not. Then higher priorities come first. Within a
    priority, replicas are given out in turns, so that a shortage hits the largest demands. Keys
    break ties, so the same input gives the same result.
    """
    ordered = sorted(demands, key=lambda demand: (-demand.priority, demand.key))
    if not nodes:
        return {demand.key: Allocation(demand.desired) for demand in ordered}
    free = _FreeCapacity(nodes)
    counts = {demand.key: min(demand.fixed, demand.desired) for demand in ordered}
    for demand in ordered:
        for _ in range(counts[demand.key]):
            free.place(demand, force=True)
    reasons: dict[str, str] = {}
    for _, group in groupby(ordered, key=lambda demand: demand.priority):
        _allocate_in_turns(list(group), free, counts, reasons)
    return {
        demand.key: Allocation(counts[demand.key], reasons.get(demand.key)) for demand in ordered
    }


def find_unplaced(
    nodes: Sequence[Node], others: Iterable[Demand], demands: Iterable[Demand]
) -> tuple[str, str] | None:
    """Return the (key, reason) of the first of `demands` that does not fit in addition to `others`;
    None if all fit. The largest are placed first, which leaves the least space unused."""
    free = _FreeCapacity(nodes)
    for demand in others:
        for _ in range(demand.desired):
            free.place(demand, force=True)
    for demand in sorted(demands, key=lambda each: (-each.memory, -each.cpus, each.key)):
        for _ in range(demand.desired):
            if not free.place(demand):
                return demand.key, free.explain_shortage(demand)
    return None


def _allocate_in_turns(
    group: Sequence[Demand],
    free: "_FreeCapacity",
    counts: dict[str, int],
    reasons: dict[str, str],
) -> None:
    unmet = [demand for demand in group if counts[demand.key] < demand.desired]
    while unmet:
        for demand in list(unmet):
            if not free.place(demand):
                reasons[demand.key] = free.explain_shortage(demand)
                unmet.remove(demand)
                continue
            counts[demand.key] += 1
            if counts[demand.key] == demand.desired:
                unmet.remove(demand)


class _FreeCapacity:
    """The free cores and bytes of each node."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._total = sum(node.cpus for node in nodes), sum(node.memory for node in nodes)
        self._nodes = [[node.cpus, float(node.memory)] for node in nodes]

    def place(self, demand: Demand, force: bool = False) -> bool:
        """Place one replica on the emptiest node that it fits on, or with `force` on the emptiest
        node. Return whether it was placed."""
        if not demand.cpus and not demand.memory:
            return True
        emptiest = max(self._nodes, key=lambda node: (self._fits(node, demand), node[1], node[0]))
        if not force and not self._fits(emptiest, demand):
            return False
        emptiest[0] -= demand.cpus
        emptiest[1] -= demand.memory
        return True

    def explain_shortage(self, demand: Demand) -> str:
        """Return the reason that one more replica does not fit."""
        most = [max(0.0, *(node[part] for node in self._nodes)) for part in (0, 1)]
        cpus, memory = round(most[0], 6), most[1]
        where = "the node" if len(self._nodes) == 1 else "the emptiest node"
        if demand.memory > memory:
            return (
                f"{demand.unit} needs {demand.memory / GIB:.2f} GiB of memory and {where} has "
                f"{memory / GIB:.2f} of {self._total[1] / GIB:.2f} GiB free"
            )
        if demand.cpus > cpus:
            return (
                f"{demand.unit} needs {demand.cpus:g} CPUs and {where} has {cpus:g} of "
                f"{self._total[0]:g} free"
            )
        return f"no node has both {demand.cpus:g} CPUs and {demand.memory / GIB:.2f} GiB free"

    @staticmethod
    def _fits(node: Sequence[float], demand: Demand) -> bool:
        return node[0] >= demand.cpus - ROUNDING and node[1] >= demand.memory
