"""Nodes of the runtime: list, cordon, drain and uncordon them, and balance replicas over them.

Implements the API's `NodeControl`. `meshd.capacity.node_drain` and `rebalance` decide; the
reconciler replaces the replicas, each successor first. That a node is being drained is stored on
the node itself, so that a meshd which takes over continues; a rebalance ends with the process.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import structlog

from meshd.api.dto import NodeDrain, NodeStatus, Rebalance
from meshd.capacity import node_drain, rebalance
from meshd.capacity.node_drain import DrainAction
from meshd.model.errors import NotFound, Rejected, StoreWriteError
from meshd.model.event import Kind
from meshd.model.node_proxy import NewJoinToken
from meshd.model.operation import SetAvailability
from meshd.model.replica import Replica
from meshd.model.replica_phase import ENDED
from meshd.model.request import ReplaceReplicas
from meshd.model.runtime import DOWN, Availability, Node, ReplicaState, find_left
from meshd.reconcile.loop import Reconciler
from meshd.runtime.base import ONE_NODE, Runtime, RuntimeFailure
from meshd.store.events import EventLog

if TYPE_CHECKING:
    from meshd.node_proxy.server import NodeServer

_log = structlog.stdlib.get_logger(__name__)
PAUSE: Final = 1.0
"""Seconds between two looks at the nodes that are drained: what is left takes seconds."""
NAMES_SHOWN: Final = 5
"""Replicas that a text names; the rest is a number."""


class NodeManager:
    """The nodes of the runtime. `proxies`: the port for proxies of other nodes, if it is open."""

    def __init__(
        self,
        runtime: Runtime,
        reconciler: Reconciler,
        events: EventLog,
        clock: Callable[[], float],
        proxies: "NodeServer | None" = None,
    ) -> None:
        self._proxies = proxies
        self._runtime = runtime
        self._reconciler = reconciler
        self._events = events
        self._clock = clock
        self._problems: dict[str, str] = {}
        self._stuck: dict[str, str] = {}
        self._moves_left = 0
        self._changing = asyncio.Lock()
        """Held from the look at a node until it is changed: a drain that ends would overwrite what
        a user sets meanwhile."""

    async def nodes(self) -> Sequence[NodeStatus]:
        """See `NodeControl.nodes`."""
        view, now = self._reconciler.view(), self._clock()
        proxies = {each.name: each for each in self._proxies.status()} if self._proxies else {}
        found = []
        nodes = await self._runtime.all_nodes()
        left = find_left(nodes)
        for node in nodes:
            if node.id in left:
                found.append(_describe_left(node))
                continue
            here = node_drain.replicas_on(node.name, view.observed.replicas)
            found.append(
                NodeStatus(
                    name=node.name,
                    state=node.state,
                    availability=node.availability.value,
                    role=node.role,
                    address=node.address,
                    engine=node.engine,
                    replicas=len(here),
                    cpus=node.cpus,
                    memory=node.memory,
                    reserved_cpus=round(node.reserved_cpus, 6),
                    reserved_memory=node.reserved_memory,
                    labels=dict(node.labels),
                    drain=_describe_drain(node, here, now),
                    problem=self._problems.get(node.name, "") or self._stuck.get(node.name, ""),
                    load=node.load,
                    proxy=proxies.pop(node.name.lower(), None),
                    has_proxy=node.has_proxy,
                    needs_proxy=node.needs_proxy,
                )
            )
        # A node without an engine of the runtime may have a proxy.
        found += [NodeStatus(each.name, "", "", proxy=each) for each in proxies.values()]
        # Who looks for a node by its name finds the present entry first.
        return sorted(found, key=lambda each: (each.name, each.state == DOWN))

    async def make_token(self, seconds: float, who: str) -> NewJoinToken:
        """See `NodeControl.make_token`."""
        return self._open_port().make_token(seconds, who)

    async def remove_proxy(self, node: str, who: str) -> None:
        """See `NodeControl.remove_proxy`."""
        self._open_port().remove(node, who)

    def _open_port(self) -> "NodeServer":
        if self._proxies is None:
            raise Rejected(
                "this meshd has no port for the proxies of other nodes; start it with `meshd up "
                "--node-listen ADDR`"
            )
        return self._proxies

    async def drain(
        self, node: str, seconds: float, force: bool, dry_run: bool, who: str
    ) -> NodeDrain:
        """See `NodeControl.drain`."""
        self._require_nodes()
        async with self._changing:
            return await self._begin_drain(node, seconds, force, dry_run, who)

    async def _begin_drain(
        self, node: str, seconds: float, force: bool, dry_run: bool, who: str
    ) -> NodeDrain:
        nodes = await self._present_nodes()
        found = self._find(nodes, node)
        view = self._reconciler.view()
        leaving = node_drain.replicas_on(node, view.observed.replicas)
        staying = [each for each in view.observed.replicas if each.node != node]
        problems = node_drain.find_obstacles(found, nodes, leaving, view.services, force, staying)
        result = NodeDrain(node, tuple(sorted(r.name for r in leaving)), tuple(problems))
        if dry_run:
            return result
        if problems:
            raise Rejected(f"node {node} cannot be drained: {'; '.join(problems)}")
        self._problems.pop(node, None)
        cause = f"node {node} is drained by {who}"
        await self._set(node, Availability.PAUSE, cause, self._clock() + seconds)
        self._record(Kind.NODE_DRAINING, f"{cause}; {_describe(leaving)} to move")
        self._replace(node_drain.to_replace(leaving), cause)
        return result

    async def cordon(self, node: str, who: str) -> None:
        """See `NodeControl.cordon`."""
        async with self._changing:
            found = await self._known(node)
            if found.availability is Availability.DRAIN:
                raise Rejected(f"node {node} is drained already, so that it takes no replicas")
            cause = f"node {node} was cordoned by {who}"
            await self._set(node, Availability.PAUSE, cause, found.drain_until)
            self._record(Kind.NODE_CORDONED, cause)

    async def uncordon(self, node: str, who: str) -> None:
        """See `NodeControl.uncordon`."""
        async with self._changing:
            await self._known(node)
            cause = f"node {node} was uncordoned by {who}"
            await self._set(node, Availability.ACTIVE, cause)
            self._problems.pop(node, None)
            self._keep(node)
            self._record(Kind.NODE_UNCORDONED, cause)

    async def rebalance(self, dry_run: bool, who: str) -> Rebalance:
        """See `NodeControl.rebalance`."""
        self._require_nodes()
        view = self._reconciler.view()
        moves = rebalance.count_moves(
            view.desired.services, self._by_service(), await self._runtime.nodes()
        )
        if not dry_run:
            self._moves_left = moves
            if moves:
                self._record(Kind.REBALANCE_STARTED, f"{moves} replicas to move, by {who}")
        return Rebalance(moves)

    async def run(self) -> None:
        """Continue drains and a rebalance until cancelled."""
        await self._reconciler.ready()
        while True:
            await asyncio.sleep(PAUSE)
            try:
                await self.advance()
            except (RuntimeFailure, StoreWriteError) as error:
                _log.info("nodes are not known", reason=str(error))

    async def advance(self) -> None:
        """Take the next step of each drain, and of a rebalance. A drain that cannot continue does
        not hold up the others."""
        stuck: dict[str, str] = {}
        async with self._changing:
            nodes = await self._present_nodes()
            for node in nodes:
                if not node.drain_until:
                    continue
                try:
                    await self._advance_drain(node)
                except RuntimeFailure as error:
                    stuck[node.name] = f"the drain of node {node.name} does not continue: {error}"
        for name, problem in stuck.items():
            if self._stuck.get(name) != problem:
                _log.warning("a drain does not continue", node=name, reason=problem)
        self._stuck = stuck
        if self._moves_left:
            self._advance_rebalance(nodes)

    async def _advance_drain(self, node: Node) -> None:
        here = node_drain.replicas_on(node.name, self._reconciler.view().observed.replicas)
        names = await self._running_on(node.name)
        match node_drain.next_action(node, len(names), self._clock()):
            case DrainAction.FINISH:
                cause = f"node {node.name} is drained"
                await self._set(node.name, Availability.DRAIN, cause)
                self._record(Kind.NODE_DRAINED, f"{cause}: no replica is left on it")
            case DrainAction.GIVE_UP:
                cause = f"node {node.name} was not drained in time: {_list(names)} still run there"
                self._problems[node.name] = cause
                await self._set(node.name, Availability.PAUSE, cause)
                self._keep(node.name)
                self._record(Kind.NODE_DRAIN_FAILED, f"{cause}; it takes no new ones")
            case DrainAction.WAIT:
                self._replace(node_drain.to_replace(here), f"node {node.name} is drained")

    def _advance_rebalance(self, nodes: Sequence[Node]) -> None:
        replicas = self._by_service()
        if any(rebalance.moving(group) for group in replicas.values()):
            return
        move = rebalance.next_move(self._reconciler.view().desired.services, replicas, nodes)
        if move is None:
            self._moves_left = 0
            self._record(Kind.REBALANCE_DONE, "all services are spread evenly over the nodes")
            return
        replica, target = move
        self._moves_left -= 1
        cause = f"moved from {replica.node}, which has more replicas than {target.name}"
        self._replace([replica], cause)
        if not self._moves_left:
            self._record(Kind.REBALANCE_DONE, f"the last replica, {replica.name}, is moving")

    async def _running_on(self, node: str) -> list[str]:
        """Return the replicas and jobs of all meshes that run on a node."""
        seen = [*await self._runtime.list(), *await self._runtime.jobs()]
        return sorted(
            each.name
            for each in seen
            if each.node == node and each.managed and each.state is not ReplicaState.EXITED
        )

    def _by_service(self) -> Mapping[str, Sequence[Replica]]:
        found: dict[str, list[Replica]] = {}
        for replica in self._reconciler.view().observed.replicas:
            if replica.phase not in ENDED:
                found.setdefault(replica.key, []).append(replica)
        return found

    def _replace(self, replicas: Sequence[Replica], cause: str) -> None:
        if replicas:
            names = tuple(replica.name for replica in replicas)
            self._reconciler.request(ReplaceReplicas(names, cause))

    def _keep(self, node: str) -> None:
        """Keep the replicas of a node whose successors have not begun."""
        here = node_drain.replicas_on(node, self._reconciler.view().observed.replicas)
        marked = tuple(r.name for r in here if r.replaced_for.startswith(f"node {node} "))
        if marked:
            self._reconciler.request(ReplaceReplicas(marked, ""))

    async def _known(self, node: str) -> Node:
        self._require_nodes()
        return self._find(await self._present_nodes(), node)

    async def _present_nodes(self) -> Sequence[Node]:
        """Return the nodes without the old entries of those that left and joined again."""
        nodes = await self._runtime.all_nodes()
        left = find_left(nodes)
        return [node for node in nodes if node.id not in left]

    def _require_nodes(self) -> None:
        if not self._runtime.capabilities.swarm:
            raise Rejected(ONE_NODE)

    @staticmethod
    def _find(nodes: Sequence[Node], name: str) -> Node:
        for node in nodes:
            if node.name == name:
                return node
        known = ", ".join(node.name for node in nodes)
        raise NotFound(f"there is no node {name!r}; known: {known}")

    async def _set(
        self, node: str, availability: Availability, cause: str, drain_until: float = 0.0
    ) -> None:
        await self._reconciler.request(
            SetAvailability(
                node=node, availability=availability, drain_until=drain_until, cause=cause
            )
        )

    def _record(self, kind: Kind, text: str) -> None:
        self._events.record(self._clock(), kind, text)


def _describe_left(node: Node) -> NodeStatus:
    """Return what is shown of the old entry of a node that joined again. Replicas, drains and the
    proxy are those of the new one."""
    problem = (
        f"node {node.name} left the Swarm and joined again; remove its old entry with "
        f"`docker node rm {node.id}`"
    )
    return NodeStatus(
        node.name,
        node.state,
        node.availability.value,
        role=node.role,
        address=node.address,
        engine=node.engine,
        labels=dict(node.labels),
        problem=problem,
    )


def _describe_drain(node: Node, here: Sequence[Replica], now: float) -> str:
    """Return how far the drain of a node is; empty if it is not being drained."""
    if not node.drain_until:
        return ""
    left = f"{max(0.0, node.drain_until - now):.0f} s left"
    return f"{_describe(here)}; {left}" if here else f"the last tasks end; {left}"


def _describe(replicas: Sequence[Replica]) -> str:
    if not replicas:
        return "no replica"
    words = [f"{r.name} {r.phase}" for r in sorted(replicas, key=lambda each: each.name)]
    return f"{len(replicas)} replica{'s' if len(replicas) > 1 else ''} ({_list(words)})"


def _list(words: Sequence[str]) -> str:
    more = len(words) - NAMES_SHOWN
    return ", ".join(words[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
