"""A leader that feeds the proxies of nodes, and a node, both in this process, over real sockets."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from meshd.model.event import Kind
from meshd.node_proxy.agent import Agent
from meshd.node_proxy.authority import MeshAuthority, make_authority
from meshd.node_proxy.enrollment import NodeIdentity
from meshd.node_proxy.proxies import NodeProxies
from meshd.node_proxy.server import NodeServer
from meshd.node_proxy.snapshot import NodeSnapshots
from meshd.node_proxy.table import NodeProxyTable
from meshd.publish.publisher import Publisher
from meshd.runtime.node_loads import NodeLoads
from meshd.store.store import Store
from proxy.supervisor.feed_server import FeedServer
from proxy.wire.report import (
    SUPERVISOR,
    Ack,
    Hello,
    Listening,
    Message,
    Peer,
    Publish,
    PublishDelta,
    Resync,
    Workers,
    read_publication,
)
from proxy.wire.snapshot import Endpoint, Generation, MissingService, Service, Snapshot
from tests.support.ports import free_port


def snapshot(*names: str, size: int = 0) -> Snapshot:
    services = tuple(
        Service(f"shop/{name}", f"{name}{size}", (Endpoint(name, "10.0.0.1", 80, "", "r" * size),))
        for name in names
    )
    return Snapshot(Generation(), services)


class Leader:
    """The side of the control process, with a store."""

    def __init__(self, folder: Path, epoch: int = 1) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.port = free_port()
        self.messages: list[Message] = []
        self.events: list[tuple[Kind, str]] = []
        self.leads = True
        self.store = Store(folder)
        self.store.open()
        self.start(epoch)

    def start(self, epoch: int, held: Snapshot | None = None) -> None:
        """Make the parts of a control process that continues with the same store."""
        record = lambda kind, text: self.events.append((kind, text))  # noqa: E731
        self.proxies = NodeProxies(
            NodeSnapshots(str), self.messages.append, record, time.monotonic, time.time, held
        )
        self.publisher = Publisher(
            self.folder / "none", epoch, self.proxies.take_local, self.proxies
        )
        table = NodeProxyTable(self.store)
        self.authority = MeshAuthority(*table.authority(lambda: make_authority(time.time())))
        self.loads = NodeLoads(time.monotonic)
        self.server = NodeServer(
            f"127.0.0.1:{self.port}",
            self.folder,
            self.authority,
            table,
            self.proxies,
            self.publisher.raise_above,
            lambda: self.leads,
            lambda: "m1",
            self.loads.note,
            record,
            time.time,
        )

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def kinds(self) -> list[Kind]:
        return [kind for kind, _ in self.events]


class Node:
    """The side of a node: an agent, and a stand-in for its supervisor with one worker."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.snapshot = Snapshot(Generation())
        self.history: list[Generation] = []
        self.refused: list[Generation] = []
        self.peer: Peer | None = None
        self.feed = FeedServer(self._greeting, self._publish)

    def _greeting(self) -> list[Message]:
        generation = self.snapshot.generation
        return [
            Hello(SUPERVISOR, generation),
            Listening({}, self.peer),
            Workers((1,)),
            Ack(1, generation),
        ]

    def _publish(self, message: Publish | PublishDelta) -> Message | None:
        if message.generation <= self.snapshot.generation:
            self.refused.append(message.generation)
            return Hello(SUPERVISOR, self.snapshot.generation)
        try:
            self.snapshot = read_publication(self.snapshot, message)
        except MissingService:
            return Resync(0)
        self.history.append(message.generation)
        self.feed.broadcast(Ack(1, message.generation))
        return None

    def names(self) -> list[str]:
        return [each.name for each in self.snapshot.services]

    @asynccontextmanager
    async def running(self, identity: NodeIdentity, *managers: str) -> AsyncIterator[Agent]:
        await self.feed.open(self.folder / "feed.sock")
        agent = Agent(self.folder, identity, managers, random.Random(1))
        task = asyncio.create_task(agent.run())
        try:
            yield agent
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self.feed.close()
