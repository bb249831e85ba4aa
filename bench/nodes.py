"""Cost of a mesh on many nodes: messages, time until all nodes have a change, CPU and memory.

Runs the real reconciler, compiler, node channel (TLS on loopback) and telemetry of a leader in this
process, over simulated replicas. A second process is one node with a real routing table. A third
one holds the connections of all other nodes, which read what they get and acknowledge it. CPU times
depend on the machine; compare how they grow.

    python -m bench.nodes [--nodes 100] [--services 1000] [--replicas 20]

It measures a quarter, a half and all of these, and the exponent of the growth from half to all: 1
is linear in the size of the mesh, 0 does not depend on it.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import gc
import json
import math
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from bench.control import PER_PROJECT, Mesh, populate, resident
from bench.simulated_runtime import SimulatedRuntime
from meshd.daemon.main import GC_THRESHOLDS
from meshd.model.runtime import Node, ObservedReplica
from meshd.node_proxy.agent import LONGEST_PAUSE
from meshd.node_proxy.authority import MeshAuthority, make_authority, new_request
from meshd.node_proxy.enrollment import (
    NodeIdentity,
    load_identity,
    open_connection,
    store_identity,
)
from meshd.node_proxy.identity import PeerIdentity, PeerRole
from meshd.node_proxy.protocol import (
    FeedBytes,
    KeepAlive,
    encode_feed,
    encode_message,
    read_message,
)
from meshd.node_proxy.proxies import NodeProxies
from meshd.node_proxy.server import NodeServer
from meshd.node_proxy.snapshot import NodeSnapshots
from meshd.node_proxy.table import NodeProxyTable
from proxy.ipc.shared_memory import SharedCells
from proxy.request.data_plane import DataPlane
from proxy.wire.codec import Decoder, encode
from proxy.wire.report import (
    SUPERVISOR,
    Ack,
    EndpointReport,
    Hello,
    Histogram,
    Listening,
    Message,
    Publish,
    PublishDelta,
    Report,
    ServiceReport,
    Workers,
    make_publication,
    read_publication,
)
from proxy.wire.snapshot import Generation, Snapshot

CHANGES: Final = 9
"""Changes of one replica each; the median counts."""
PATIENCE: Final = 300.0
"""Seconds to wait for all nodes, at most."""
BUSY: Final = 10
"""Each node has traffic for one of this many services, and for all their replicas."""
LOOK: Final = 0.002
"""Seconds between two looks at the nodes, and of a step by which stalls of the loop are found."""
LATENCIES: Final = Histogram(dict.fromkeys(range(100, 110), 3), 0.3)


class SimulatedSwarm(SimulatedRuntime):
    """Replicas on several nodes, known by tokens."""

    token_address = "10.0.0.1:15781"
    capabilities = dataclasses.replace(SimulatedRuntime.capabilities, tokens=True)

    def __init__(self, nodes: int) -> None:
        super().__init__()
        self._names = [node_name(number) for number in range(nodes)]

    async def nodes(self) -> Sequence[Node]:
        return [Node(name, 4096.0, 2**44) for name in self._names]

    def _add(self, name: str, project: str, service: str, revision: str) -> ObservedReplica:
        added = super()._add(name, project, service, revision)
        node = self._names[int(added.runtime_id, 16) % len(self._names)]
        placed = self.replicas[name] = dataclasses.replace(added, node=node)
        return placed


def _ignore(*values: object) -> None:
    del values


def node_name(number: int) -> str:
    return f"node-{number:03}"


class Leader:
    """The control process with its port for nodes."""

    def __init__(self, folder: Path, nodes: int) -> None:
        self.proxies = NodeProxies(
            NodeSnapshots(str), self._take, _ignore, time.monotonic, time.time
        )
        self.mesh = Mesh(folder, asyncio.get_running_loop(), SimulatedSwarm(nodes), self.proxies)
        # Replicas start once the workers listen for calls with a token.
        listener = self.mesh.gateways.token_listener
        self.mesh.publisher.handle(Listening({listener: listener}))
        table = NodeProxyTable(self.mesh.store)
        self._authority = MeshAuthority(*table.authority(lambda: make_authority(time.time())))
        self._enroll(folder, table, nodes)
        self.server = NodeServer(
            "127.0.0.1:0", folder, self._authority, table, self.proxies,
            self.mesh.publisher.raise_above, lambda: True, lambda: "m1", _ignore, _ignore,
            time.time,
        )  # fmt: skip
        self.reports = 0

    def _enroll(self, folder: Path, table: NodeProxyTable, nodes: int) -> None:
        """Let all nodes in, without join tokens of users."""
        for number in range(nodes):
            name = node_name(number)
            table.add_token(name, time.time() + 60.0, time.time())
            table.join(name, name, time.time())
            key, request = new_request()
            identity = PeerIdentity(PeerRole.NODE, name)
            issued = self._authority.issue(identity, request, time.time())
            state = folder / name
            state.mkdir()
            store_identity(state, NodeIdentity(key, issued, self._authority.certificate))

    def _take(self, message: Message) -> None:
        if isinstance(message, Report):
            self.mesh.ingest.add(message)
            self.reports += 1

    def is_connected(self, nodes: int) -> bool:
        states = [each.state for each in self.proxies.status()]
        return states.count("connected") == nodes


async def wait_for(is_done: Callable[[], bool], what: str) -> float:
    """Wait until it is true. Return the seconds that it took."""
    begin = time.monotonic()
    while not is_done():
        if time.monotonic() - begin > PATIENCE:
            raise TimeoutError(what)
        await asyncio.sleep(LOOK)
    return time.monotonic() - begin


class Stalls:
    """The longest time for which other work of the event loop had to wait."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._task = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(LOOK)
            self.longest = max(self.longest, time.monotonic() - before - LOOK)

    async def stop(self) -> float:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        return self.longest


async def measure(nodes: int, services: int, replicas: int) -> dict[str, float]:
    """Return the figures of one size."""
    gc.collect()
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        folder, before = Path(directory), resident()
        leader = Leader(folder, nodes)
        try:
            await populate(leader.mesh, services, replicas)
            async with leader.server.serve():
                found = await with_nodes(leader, folder, nodes, services, replicas)
            found["leader: memory, MB"] = (resident() - before) / 2**20
        finally:
            await leader.mesh.close()
    return found


async def with_nodes(
    leader: Leader, folder: Path, nodes: int, services: int, replicas: int
) -> dict[str, float]:
    address = f"127.0.0.1:{leader.server.port}"
    mesh, children = leader.mesh, []
    for role, count in (("one", 1), ("others", nodes - 1)):
        children.append(
            await asyncio.create_subprocess_exec(
                sys.executable, "-m", "bench.nodes", "--role", role, "--nodes", str(count),
                "--services", str(services), "--replicas", str(replicas),
                "--folder", str(folder), "--address", address,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            )
        )  # fmt: skip
    try:
        for child in children:
            assert child.stdout is not None
            await child.stdout.readline()  # it has started
        tell(children, "connect")
        stalls, cpu = Stalls(), time.process_time()
        found = {
            "all nodes connect: seconds": await wait_for(
                lambda: leader.is_connected(nodes), "all nodes are connected"
            ),
            "all nodes connect: CPU ms of the leader": (time.process_time() - cpu) * 1e3,
            "all nodes connect: longest stall, ms": await stalls.stop() * 1e3,
        }
        found |= await measure_changes(leader, nodes, replicas)
        found |= await measure_reports(leader, children, nodes)
        current = mesh.publisher.current
        assert current is not None
        found["snapshot, kB"] = len(encode(make_publication(None, current, deltas=True))) / 1e3
        found["delta, kB"] = len(encode(make_publication(mesh.before, current, deltas=True))) / 1e3
    finally:
        for child in children:
            assert child.stdin is not None
            child.stdin.close()
        outputs = [(await child.communicate())[0] for child in children]
    return found | json.loads(outputs[0])


def tell(children: Sequence[asyncio.subprocess.Process], order: str) -> None:
    for child in children:
        assert child.stdin is not None
        child.stdin.write(f"{order}\n".encode())


async def measure_changes(leader: Leader, nodes: int, replicas: int) -> dict[str, float]:
    """Scale one service up at a time, until all nodes route to the new replica."""
    mesh = leader.mesh
    seconds, passes, sending = [], [], []
    for _ in range(CHANGES):
        await mesh.one_more(replicas)
        await asyncio.sleep(0.05)  # the messages of the steps before
        generation, cpu, begin = mesh.publisher.generation, time.process_time(), time.monotonic()
        mesh.run_pass()
        assert mesh.publisher.generation != generation
        passes.append(time.process_time() - cpu)
        cpu = time.process_time()
        await wait_for(lambda: leader.is_connected(nodes), "all nodes have the change")
        sending.append(time.process_time() - cpu)
        seconds.append(time.monotonic() - begin)
    return {
        "a change: ms until all nodes have it": statistics.median(seconds) * 1e3,
        "a change: CPU ms of the leader, pass": statistics.median(passes) * 1e3,
        "a change: CPU ms of the leader, nodes": statistics.median(sending) * 1e3,
    }


async def measure_reports(
    leader: Leader, children: Sequence[asyncio.subprocess.Process], nodes: int
) -> dict[str, float]:
    """Take the reports of a second of all nodes, then run the work of a second."""
    cpu = time.process_time()
    tell(children, "report")
    await wait_for(lambda: leader.reports >= nodes, "all nodes have reported")
    reports = time.process_time() - cpu
    cpu = time.process_time()
    leader.mesh.second()
    return {
        "a second: CPU ms of the leader, reports": reports * 1e3,
        "a second: CPU ms of the leader, decisions": (time.process_time() - cpu) * 1e3,
    }


# --- The nodes


class BriefUpdate(msgspec.Struct):
    """The generation of a snapshot or a delta."""

    generation: Generation


class BriefPublish(msgspec.Struct, tag="Publish"):
    """`Publish` without the rest."""

    update: BriefUpdate


class BriefDelta(msgspec.Struct, tag="PublishDelta"):
    """`PublishDelta` without the rest."""

    delta: BriefUpdate


brief_decoder: Final = msgspec.msgpack.Decoder(BriefPublish | BriefDelta)


class NodeConnection:
    """One node: reads what it gets, and acknowledges it. With a `plane` it routes by it."""

    def __init__(self, number: int, options: argparse.Namespace, plane: DataPlane | None) -> None:
        self._number = number
        self._options = options
        self._plane = plane
        self._decoder = Decoder()
        self._snapshot: Snapshot | None = None
        self._worker: Snapshot | None = None
        self._buffer = bytearray()
        self.costs: list[float] = []

    async def run(self, reports: asyncio.Event) -> None:
        """Stay connected, as the agent of a node does."""
        while True:
            # After a hand-over, agents are between two attempts.
            await asyncio.sleep(random.uniform(0.0, LONGEST_PAUSE / 2))
            with contextlib.suppress(OSError, TimeoutError):
                await self._connect(reports)
            print("a node connects again", file=sys.stderr)

    async def _connect(self, reports: asyncio.Event) -> None:
        self._decoder, self._buffer = Decoder(), bytearray()
        state = self._options.folder / node_name(self._number)
        identity = load_identity(state)
        assert identity is not None
        reader, writer = await open_connection(self._options.address, identity.context(state))
        for message in (Hello(SUPERVISOR), Workers((1,)), Ack(1, Generation())):
            writer.write(encode_feed(encode(message)))
        sending = asyncio.create_task(self._report(reports, writer))
        try:
            while (message := await read_message(reader)) is not None:
                match message:
                    case FeedBytes(data=data):
                        for generation in self._feed(data):
                            writer.write(encode_feed(encode(Ack(1, generation))))
                    case KeepAlive():
                        writer.write(encode_message(KeepAlive()))
        finally:
            sending.cancel()
            writer.transport.abort()

    def _feed(self, data: bytes) -> Iterator[Generation]:
        """Take bytes of the feed. Yield the generations of complete snapshots."""
        if self._plane is not None:
            for message in self._decoder.feed(data):
                assert isinstance(message, Publish | PublishDelta)
                self._install(self._plane, message)
                yield message.generation
            return
        # The other nodes are in one process, which does not have the time to decode everything.
        self._buffer += data
        while len(self._buffer) >= 4 and len(self._buffer) >= (
            end := 4 + int.from_bytes(self._buffer[:4])
        ):
            brief = brief_decoder.decode(memoryview(self._buffer)[4:end])
            of = brief.update if isinstance(brief, BriefPublish) else brief.delta
            yield of.generation
            del self._buffer[:end]

    def _install(self, plane: DataPlane, message: Publish | PublishDelta) -> None:
        begin = time.process_time()
        before, self._snapshot = self._snapshot, read_publication(self._snapshot, message)
        # From the supervisor to its worker.
        frame = encode(make_publication(before, self._snapshot, deltas=True))
        (passed_on,) = Decoder().feed(frame)
        assert isinstance(passed_on, Publish | PublishDelta)
        self._worker = read_publication(self._worker, passed_on)
        plane.install(self._worker)
        self.costs.append(time.process_time() - begin)

    async def _report(self, reports: asyncio.Event, writer: asyncio.StreamWriter) -> None:
        await reports.wait()
        replicas = self._options.replicas
        services = tuple(
            _service_report(f"app{number // PER_PROJECT}/svc-{number}", replicas)
            for number in range(self._number % BUSY, self._options.services, BUSY)
        )
        now = time.time()
        report = Report(1, 1, now - 1.0, now, Generation(), services)
        writer.write(encode_feed(encode(report)))


def _service_report(name: str, replicas: int) -> ServiceReport:
    """Return the report of a service whose replicas all served some requests."""
    endpoints = tuple(
        EndpointReport(f"{name}-{number}", "r1", 0, 0.1, 2, 2, 0, LATENCIES)
        for number in range(replicas)
    )
    return ServiceReport(
        name, 30, {"GET 2xx": 30}, endpoints=endpoints, total=LATENCIES, queue=LATENCIES,
        connect=LATENCIES, first_byte=LATENCIES, body=LATENCIES,
    )  # fmt: skip


async def run_nodes(options: argparse.Namespace) -> None:
    """Be one node with a routing table, or all others, until the standard input ends."""
    loop, reports = asyncio.get_running_loop(), asyncio.Event()
    plane, before = None, resident()
    if options.role == "one":
        plane = DataPlane(0, loop, workers=1, row=SharedCells.create(1).row(0))
    first = 0 if plane else 1
    nodes = [NodeConnection(first + n, options, plane) for n in range(options.nodes)]
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print("ready", flush=True)
    await reader.readline()
    tasks = [asyncio.create_task(node.run(reports)) for node in nodes]
    while await reader.readline():
        reports.set()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    if plane is not None:
        gc.collect()
        first_cost, *others = nodes[0].costs
        found = {
            "a node: CPU ms of the first snapshot": first_cost * 1e3,
            "a node: CPU ms of a change": statistics.median(others) * 1e3,
            "a node: memory of the routes, MB": (resident() - before) / 2**20,
        }
        print(json.dumps(found))
        plane.close()


def print_table(table: Mapping[str, Mapping[int, float]], sizes: Sequence[int]) -> None:
    """Print a row for each figure, with the exponent of its growth from the second size on."""
    print(f"{'':44}" + "".join(f"{f'1/{size}' if size > 1 else 'all':>10}" for size in sizes)
          + f"{'exponent':>10}")  # fmt: skip
    for name, row in table.items():
        exponent = math.log2(max(row[sizes[-1]], 1e-9) / max(row[sizes[-2]], 1e-9))
        print(f"{name:44}" + "".join(f"{row[size]:10.2f}" for size in sizes) + f"{exponent:10.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Cost of a mesh by number of nodes.")
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--replicas", type=int, default=20)
    parser.add_argument("--role", choices=("one", "others"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--address", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        asyncio.run(run_nodes(options))
        return
    gc.set_threshold(*GC_THRESHOLDS)
    table: dict[str, dict[int, float]] = {}
    sizes = (4, 2, 1)
    for size in sizes:
        found = asyncio.run(
            measure(options.nodes // size, options.services // size, options.replicas)
        )
        for name, value in found.items():
            table.setdefault(name, {})[size] = value
    print_table(table, sizes)


if __name__ == "__main__":
    main()
