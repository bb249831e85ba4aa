"""What runs in the Swarm now, as replicas; and what the Swarm does not keep about it.

Used by `SwarmRuntime`, which owns the one `SwarmView`. The translation is in `observe`.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from meshd.model.peers import NO_PEERS, PeerSettings
from meshd.model.runtime import ObservedReplica, ReplicaState
from meshd.runtime.base import ReplicaNotFound, RuntimeFailure
from meshd.runtime.docker.create import inspect
from meshd.runtime.docker.engine import Engine, Info
from meshd.runtime.docker.events import reports_out_of_memory
from meshd.runtime.swarm.api import Gone, SwarmApi
from meshd.runtime.swarm.observe import (
    SwarmNode,
    TaskHistory,
    container_of,
    is_replica,
    observe,
    parse_node,
    parse_time,
    task_of,
    tasks_by_service,
)
from meshd.spec import labels

KILLED: Final = 137
"""Exit code after SIGKILL (128 + 9)."""


@dataclass(frozen=True, slots=True)
class FoundReplica:
    """One replica with the engine's JSON that it was read from.

    - `task`: None if the service has none.
    - `nodes`: by id.
    """

    seen: ObservedReplica
    service: Info
    task: Info | None
    nodes: Mapping[str, SwarmNode]

    @property
    def container(self) -> Info:
        """The part of the service's spec that is about the container."""
        spec: Info = self.service["Spec"]["TaskTemplate"]["ContainerSpec"]
        return spec


def no_peers() -> PeerSettings:
    """Return that no proxies of nodes are known, and none are needed."""
    return NO_PEERS


class SwarmView:
    """Reads replicas.

    - `node_id`: the node whose engine is connected; empty before that.
    - `starting`: ids of services that are being started. One whose task fails is not listed: its
      start reports the failure, and removes it.
    """

    def __init__(
        self, engine: Engine, api: SwarmApi, peers: Callable[[], PeerSettings] = no_peers
    ) -> None:
        self.node_id = ""
        self.starting: set[str] = set()
        self._engine = engine
        self._api = api
        self._peers = peers
        self._started: dict[str, float] = {}
        self._killed: dict[str, bool] = {}
        self._last: Mapping[str, ObservedReplica] = {}

    async def nodes(self) -> Mapping[str, SwarmNode]:
        """Return all nodes by id."""
        return {each["ID"]: self._parse(each) for each in await self._api.list("nodes")}

    def _parse(self, info: Info) -> SwarmNode:
        """Return a node, with what is known of its proxy."""
        node = parse_node(info)
        peers = self._peers()
        has_proxy = node.id == self.node_id or peers.has_proxy(node.name)
        lost = peers.is_lost(node.name)
        return replace(node, has_proxy=has_proxy, needs_proxy=peers.required, lost_proxy=lost)

    async def all(self) -> Sequence[ObservedReplica]:
        """Return all replicas and jobs. Services are read first: a task without its service is not
        shown, but a service without its task would look as if it had not started."""
        services = await self._api.list("services", {"label": [f"{labels.MANAGED}=1"]})
        tasks, nodes = await asyncio.gather(self._api.list("tasks"), self.nodes())
        by_service = tasks_by_service(tasks)
        found = []
        for service in filter(is_replica, services):
            seen = await self._observe(service, by_service.get(service["ID"], ()), nodes)
            if seen.state is not ReplicaState.EXITED or service["ID"] not in self.starting:
                found.append(seen)
        alive = {seen.runtime_id for seen in found}
        self._started = {task: at for task, at in self._started.items() if task in alive}
        self._killed = {task: oom for task, oom in self._killed.items() if task in alive}
        self._last = {seen.name: seen for seen in found}
        return found

    async def one(self, service: str, name: str = "") -> FoundReplica:
        """Return a replica by its name, or by the id of its service. Raises ReplicaNotFound."""
        try:
            info = await self._api.inspect("services", service)
        except Gone as gone:
            raise not_found(name or service) from gone
        if not is_replica(info):
            raise not_found(name or service)
        tasks = await self._api.list("tasks", {"service": [info["ID"]]})
        nodes = await self.nodes()
        return FoundReplica(await self._observe(info, tasks, nodes), info, task_of(tasks), nodes)

    async def local_containers(self, names: Sequence[str]) -> Mapping[str, str]:
        """Return the ids of the containers of those replicas that run on this node, by name, as of
        the last listing that has all of them."""
        if not self._last.keys() >= set(names):
            await self.all()
        known = {self._last[name].runtime_id: name for name in names if name in self._last}
        if not known:
            return {}
        here = {"node": [self.node_id], "desired-state": ["running"]}
        tasks = await self._api.list("tasks", here)
        found = {known[task["ID"]]: container_of(task) for task in tasks if task["ID"] in known}
        return {name: container for name, container in found.items() if container}

    def local_container(self, task: Info | None) -> str:
        """Return the id of the container of a task; empty if it is on another node."""
        if task is None or task.get("NodeID") != self.node_id:
            return ""
        return container_of(task)

    async def _observe(
        self, service: Info, tasks: Sequence[Info], nodes: Mapping[str, SwarmNode]
    ) -> ObservedReplica:
        """Return the replica of a service. One that has not changed is the same object as before,
        so that comparing it is cheap."""
        task = task_of(tasks)
        if task is not None:
            await self._remember(task)
        history = TaskHistory(self._started, {each for each, oom in self._killed.items() if oom})
        seen = observe(service, tasks, nodes, history)
        last = self._last.get(seen.name)
        return last if last is not None and last == seen else seen

    async def _remember(self, task: Info) -> None:
        """Keep when a task began, and whether a killed one of this node ran out of memory."""
        status = task["Status"]
        if status["State"] == "running":
            self._started[task["ID"]] = parse_time(status["Timestamp"])
        code = (status.get("ContainerStatus") or {}).get("ExitCode")
        if status["State"] != "failed" or code != KILLED or task["ID"] in self._killed:
            return
        out_of_memory = False
        if container := self.local_container(task):
            with contextlib.suppress(RuntimeFailure):
                state = (await inspect(self._engine, container))["State"]
                out_of_memory = bool(state.get("OOMKilled")) or await reports_out_of_memory(
                    self._engine, container, parse_time(state["FinishedAt"])
                )
        self._killed[task["ID"]] = out_of_memory


def not_found(name: str) -> ReplicaNotFound:
    """Return the error for a replica that does not exist."""
    return ReplicaNotFound(f"no replica {name} is in the Swarm")
