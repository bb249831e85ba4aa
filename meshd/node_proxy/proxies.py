"""What the control process knows of the proxies of other nodes, merged with its own workers.

`server` adds and removes connections and passes on what they send. The publisher hands each
snapshot to `publish` and asks `is_drained`. `meshd.daemon.worker_events` gets the messages of all
workers: those of a node have separate numbers (`WORKERS_PER_NODE`), so that reports, metrics
and rollouts count every worker once.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
import structlog

from meshd.model.event import Kind
from meshd.model.node_proxy import WORKERS_PER_NODE, NodeProxyStatus
from meshd.node_proxy.snapshot import NodeSnapshots
from proxy.wire.codec import encode
from proxy.wire.report import (
    SUPERVISOR,
    Ack,
    Ejected,
    Hello,
    ListenFailed,
    Listening,
    Message,
    Report,
    Resync,
    SnapshotRefused,
    Wake,
    Workers,
    make_publication,
)
from proxy.wire.snapshot import Generation, Snapshot

_log = structlog.stdlib.get_logger(__name__)
LOST_SECONDS: Final = 10.0
"""Seconds for which a drain waits for a proxy that is not connected: it may be on the way back, and
it still sends requests by its last snapshot. Later than that, a drain does not wait for it; its
requests to a replica that is gone are refused by the kernel there and sent elsewhere."""
CLOCK_TOLERANCE: Final = 1.0
"""Seconds by which a report may differ from our clock: reports are merged by the second."""
MAX_WHOLE: Final = 8
"""Nodes that are sent the whole snapshot at the same time: after a hand-over all nodes ask for it,
and it has megabytes in a large mesh. The others serve by their last one until it is their turn."""
WHOLE_SECONDS: Final = 5.0
"""Seconds after which it is the turn of the next node, although one has not acknowledged."""
NEVER: Final = Generation()

Send = Callable[[bytes], None]
"""Sends bytes of the feed to a node, without waiting."""


@dataclass(slots=True)
class NodeProxy:
    """The proxy of one node; written by `NodeProxies` alone.

    - `index`: its workers are numbered from `index * WORKERS_PER_NODE`.
    - `send`: its connection; None if it has none.
    - `since`: when that began, by the monotonic clock; `since_time`: in Unix time, 0: before this
      process started.
    - `live`: its workers by its own numbers; None until it has said which.
    - `acks`: their last acknowledgements.
    - `sent`: the last snapshot sent over this connection.
    - `deltas`: whether it understands deltas.
    - `seen`: the last snapshot that this process has sent to it at all.
    """

    name: str
    index: int
    since: float
    since_time: float = 0.0
    address: str = ""
    send: Send | None = None
    live: tuple[int, ...] | None = None
    acks: dict[int, Ack] = field(default_factory=dict)
    sent: Snapshot | None = None
    deltas: bool = False
    seen: Generation = NEVER

    def acknowledged(self) -> Generation:
        """Return the oldest snapshot that one of its workers has."""
        acks = [self.acks.get(worker) for worker in self.live or ()]
        return min((ack.generation if ack else NEVER for ack in acks), default=NEVER)


class NodeProxies:
    """The proxies of all nodes that joined, connected or not.

    - `on_message`: called with each message of a worker, also of those of this host.
    - `record`: records an event.
    - `clock`, `now`: monotonic and Unix time.
    - `held`: the snapshot that the proxy of this host has at the start.

    `peers` are the ports of all proxies for those of other nodes, by name of the node; the values
    of a process before are kept until a proxy says otherwise. `valid_from`: see `note_validity`.
    Both are replaced when they change, so that readers see that.
    """

    def __init__(
        self,
        snapshots: NodeSnapshots,
        on_message: Callable[[Message], None],
        record: Callable[[Kind, str], object],
        clock: Callable[[], float],
        now: Callable[[], float],
        held: Snapshot | None = None,
    ) -> None:
        self.peers: dict[str, int] = dict(held.peers) if held is not None else {}
        self.valid_from: Mapping[str, int] = {}
        self._own = ""
        self._began = clock()
        self._snapshots = snapshots
        self._on_message = on_message
        self._record = record
        self._clock = clock
        self._now = now
        self._nodes: dict[str, NodeProxy] = {}
        self._next_index = 1
        self._local: tuple[int, ...] = ()
        self._published: Snapshot | None = None
        self._converted: Snapshot | None = None
        self._full = b""
        self._taking: dict[str, float] = {}  # name: until when, by the monotonic clock
        self._waiting: dict[str, None] = {}

    # --- For the publisher

    def take_local(self, message: Message) -> None:
        """Pass on a message of the supervisor of this host."""
        if isinstance(message, Workers):
            self._local = message.live
            self._send_workers()
            return
        if isinstance(message, Listening) and message.peer is not None:
            self._own = message.peer.name
            self._set_peer(message.peer.name, message.peer.port)
        self._on_message(message)

    def publish(self, snapshot: Snapshot) -> None:
        """Send a new snapshot to every connected node: its difference to the one before, where the
        node got that."""
        before, self._published, self._converted = self._converted, snapshot, None
        self._full = b""
        frames: dict[bool, bytes] = {}
        for node in self._nodes.values():
            if node.send is None:
                continue
            if before is None or node.sent is not before:
                self._waiting[node.name] = None
                continue
            current = self._convert(snapshot)
            if node.deltas not in frames:
                message = make_publication(before, current, deltas=node.deltas)
                frames[node.deltas] = encode(message)
            self._send(node, current, frames[node.deltas])
        self._send_whole()

    def is_drained(self, endpoint: str, unused_since: Generation) -> bool:
        """Return whether no node sends requests to an endpoint: every worker has a snapshot that
        is at least `unused_since`, and has no request in flight on it. A node that is lost counts
        for `LOST_SECONDS`."""
        return all(
            self._is_drained_by(node, endpoint, unused_since) for node in self._nodes.values()
        )

    def lost(self) -> frozenset[str]:
        """Return the nodes whose proxies are not connected; at the start of this process they have
        a moment for that. They let no probes through to new replicas."""
        before = self._clock() - LOST_SECONDS
        return frozenset(
            name
            for name in self.peers
            if name != self._own and self._is_lost(self._nodes.get(name), before)
        )

    def _is_lost(self, node: NodeProxy | None, before: float) -> bool:
        if node is None:  # known from a snapshot of a process before
            return self._began < before
        return node.send is None and (node.since_time > 0.0 or node.since < before)

    def has_installed(self, generation: Generation) -> bool:
        """Return whether every worker of every connected node has this snapshot."""
        return all(
            node.acknowledged() >= generation
            for node in self._nodes.values()
            if node.send is not None and node.live
        )

    def _is_drained_by(self, node: NodeProxy, endpoint: str, unused_since: Generation) -> bool:
        if node.send is None or not node.live:
            return self._clock() > node.since + LOST_SECONDS
        for worker in node.live:
            ack = node.acks.get(worker)
            if ack is None or ack.generation < unused_since or endpoint in ack.busy:
                return False
        return True

    # --- For the server

    def expect(self, names: Iterable[str]) -> None:
        """Take the nodes that joined. Drains wait a moment for those that are not connected."""
        for name in names:
            if name not in self._nodes:
                self._nodes[name] = NodeProxy(name, self._next_index, self._clock())
                self._next_index += 1

    def note_validity(self, valid_from: Mapping[str, int]) -> None:
        """Take the earliest start of validity of the certificates of nodes (Unix time), by name:
        proxies refuse those from before a node joined."""
        self.valid_from = dict(valid_from)

    def forget(self, name: str) -> None:
        """Forget a node that was removed."""
        self.peers = {node: port for node, port in self.peers.items() if node != name}
        if self._nodes.pop(name, None) is not None:
            self._stop_taking(name)
            self._send_workers()

    def connect(self, name: str, address: str, send: Send) -> None:
        """Take the connection of a node that joined; it replaces an earlier one."""
        self.expect([name])
        node = self._nodes[name]
        self._stop_taking(name)
        node.live, node.sent = None, None
        node.acks.clear()
        node.send, node.address = send, address
        node.since, node.since_time = self._clock(), self._now()
        self._send_workers()
        self._record(Kind.NODE_PROXY_CONNECTED, f"the proxy of node {name} connected ({address})")

    def disconnect(self, name: str, send: Send, reason: str) -> None:
        """Take the end of a connection, unless another one has replaced it."""
        node = self._nodes.get(name)
        if node is None or node.send is not send:
            return
        node.send, node.live, node.sent, node.address = None, None, None, ""
        node.acks.clear()
        self._stop_taking(name)
        node.since, node.since_time = self._clock(), self._now()
        self._send_workers()
        text = f"the proxy of node {name} is not connected: {reason}; it serves its last snapshot"
        self._record(Kind.NODE_PROXY_LOST, text)

    def held_above(self, name: str, message: Message) -> Generation | None:
        """Return the generation that a node says it holds, if the current snapshot has to become
        newer than that: another control process has led meanwhile. Else None."""
        node = self._nodes.get(name)
        if node is None or not isinstance(message, Hello) or self._published is None:
            return None
        if message.generation < self._published.generation:
            return None
        return None if message.generation == node.seen else message.generation

    def handle(self, name: str, message: Message) -> None:
        """Take one message of the supervisor of a node."""
        node = self._nodes.get(name)
        if node is None:
            return
        if self._waiting:
            self._send_whole()
        match message:
            case Hello(role=role, generation=held):
                node.deltas = role == SUPERVISOR
                if self._published is None or held >= self._published.generation:
                    return
                if node.sent is None or node.sent.generation < self._published.generation:
                    self._ask_for_whole(node)
                return
            case Resync():
                self._ask_for_whole(node)
                return
            case Workers(live=live):
                node.live = live
                node.acks = {worker: ack for worker, ack in node.acks.items() if worker in live}
                self._send_workers()
                return
            case Listening(bound=bound, peer=peer):
                self._set_peer(name, peer.port if peer is not None else 0)
                message = Listening({f"{a} of node {name}": where for a, where in bound.items()})
            case ListenFailed(address=address):
                message = msgspec.structs.replace(message, address=f"{address} of node {name}")
            case Ack(worker=worker):
                node.acks[worker] = message
                if node.sent is not None and message.generation >= node.sent.generation:
                    self._stop_taking(name)
                message = self._renumbered(node, message)
            case Report():
                message = self._renumbered(node, self._retimed(message))
            case SnapshotRefused() | Wake() | Ejected():
                message = self._renumbered(node, message)
            case _:
                return
        self._on_message(message)

    # --- For users

    def worker_name(self, number: int) -> str:
        """Return how texts name a worker."""
        index, own = divmod(number, WORKERS_PER_NODE)
        for node in self._nodes.values():
            if node.index == index:
                return f"worker {own} of node {node.name}"
        return f"worker {number}"

    def status(self) -> Sequence[NodeProxyStatus]:
        """Return all nodes by name."""
        return [self._describe(self._nodes[name]) for name in sorted(self._nodes)]

    def _describe(self, node: NodeProxy) -> NodeProxyStatus:
        if node.send is None:
            return NodeProxyStatus(node.name, "lost", since=node.since_time)
        have = node.acknowledged()
        current = self._published is not None and have >= self._published.generation
        return NodeProxyStatus(
            node.name,
            "connected" if current else "behind",
            (have.epoch, have.number),
            len(node.live or ()),
            node.address,
            node.since_time,
        )

    def _convert(self, snapshot: Snapshot) -> Snapshot:
        """Return the last published snapshot for other nodes, converted once."""
        if self._converted is None:
            self._converted = self._snapshots.convert(snapshot)
        return self._converted

    def _ask_for_whole(self, node: NodeProxy) -> None:
        self._waiting[node.name] = None
        self._send_whole()

    def _stop_taking(self, name: str) -> None:
        """Let the next node have the whole snapshot, if this one was taking it."""
        self._waiting.pop(name, None)
        if self._taking.pop(name, None) is not None:
            self._send_whole()

    def _send_whole(self) -> None:
        """Send the whole snapshot to the nodes that wait for it, as far as it is their turn."""
        if self._published is None or not self._waiting:
            return
        now = self._clock()
        self._taking = {name: until for name, until in self._taking.items() if now < until}
        current = self._convert(self._published)
        while self._waiting and len(self._taking) < MAX_WHOLE:
            name = next(iter(self._waiting))
            del self._waiting[name]
            self._taking[name] = now + WHOLE_SECONDS
            if not self._full:
                self._full = encode(make_publication(None, current, deltas=False))
            self._send(self._nodes[name], current, self._full)

    def _send(self, node: NodeProxy, snapshot: Snapshot, frame: bytes) -> None:
        if node.send is not None:
            node.sent, node.seen = snapshot, snapshot.generation
            node.send(frame)

    def _send_workers(self) -> None:
        """Tell the readers which workers are live, on all nodes."""
        remote = (
            node.index * WORKERS_PER_NODE + worker
            for node in self._nodes.values()
            for worker in node.live or ()
        )
        self._on_message(Workers((*self._local, *remote)))

    def _set_peer(self, name: str, port: int) -> None:
        """Note the port of a proxy for others. The dict is replaced, so that readers see that."""
        if self.peers.get(name) != port:
            self.peers = {**self.peers, name: port}

    def _renumbered(
        self, node: NodeProxy, message: Ack | Report | SnapshotRefused | Wake | Ejected
    ) -> Message:
        number = node.index * WORKERS_PER_NODE + message.worker
        return msgspec.structs.replace(message, worker=number)

    def _retimed(self, report: Report) -> Report:
        """Return a report as of our clock, where that of the node differs by too much."""
        late = self._now() - report.end
        if abs(late) <= CLOCK_TOLERANCE:
            return report
        return msgspec.structs.replace(report, start=report.start + late, end=report.end + late)
