"""The worker processes: one serving in each slot, and those that finish what they have.

Two rules carry everything. A slot without a worker gets one. As soon as the newest worker of
a slot serves, the older ones of that slot drain. So a crash, a reload and a binary upgrade
are one case, and a successor that fails to start takes nothing away.
"""

import asyncio
import collections
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterable
from functools import partial

import msgspec

from proxy.ipc.channel import Channel
from proxy.ipc.config import SupervisorConfig, WorkerConfig
from proxy.ipc.shared_memory import SharedCells
from proxy.supervisor.process import Process, cause_of, spawn
from proxy.supervisor.upgrade import RunningWorker
from proxy.supervisor.worker_handle import Open, WorkerHandle, complaint, restart_delay
from proxy.wire.report import Accepting, Ack, Message, Resync, SnapshotRefused
from proxy.wire.snapshot import Generation, Snapshot

_log = logging.getLogger(__name__)
SHORT_LIFE = 5.0
"""A worker that ends sooner than this many seconds after its start counts as a failure."""


class WorkerPool:
    """Starts, feeds, watches and replaces the workers.

    `on_message` gets what workers send (acks, reports, wakes, ejections), `on_live` is called
    when the set of worker processes changes, `on_serving` when a worker begins to serve.
    """

    def __init__(
        self,
        config: SupervisorConfig,
        on_message: Callable[[Message], None],
        on_live: Callable[[], None],
        on_serving: Callable[[], None],
    ) -> None:
        self._config = config
        self._on_message = on_message
        self._on_live = on_live
        self._on_serving = on_serving
        self._links: dict[int, WorkerHandle] = {}
        self._current: list[WorkerHandle | None] = [None] * config.workers
        self._failures = [0] * config.workers
        self._to_replace: collections.deque[int] = collections.deque()
        self.next_worker = 1
        # Twice as many rows as slots: a reload has both generations for a while.
        self._cells = SharedCells.create(2 * config.workers)
        self._free_rows = list(range(2 * config.workers))
        self._snapshot = Snapshot(generation=Generation())
        self.good: Snapshot | None = None
        """The newest snapshot that some worker routes by, or did."""
        self._listeners: Open = {}
        self._ending = False
        self.served = False
        """Some worker has served at some time."""

    @property
    def live(self) -> tuple[int, ...]:
        """The worker processes that exist, draining ones included."""
        return tuple(sorted(self._links))

    @property
    def acks(self) -> list[Ack]:
        """The last ack of every worker that sent one."""
        return [link.last_ack for link in self._links.values() if link.last_ack]

    @property
    def complete(self) -> bool:
        """Every slot has a worker that serves."""
        return all(link is not None and self._serves(link) for link in self._current)

    @property
    def hopeless(self) -> bool:
        """No worker ever served, and a slot has failed three times; or nobody is there to send
        a better snapshot than the one that was refused."""
        if self.served:
            return False
        refused = any(link.refused for link in self._links.values())
        return max(self._failures) >= 3 or (refused and not self._config.state_dir)

    @property
    def unsent(self) -> bool:
        """Some worker has not taken all that it was sent."""
        return any(link.channel.pending for link in self._links.values())

    def start(self) -> None:
        """Start a worker in every slot."""
        for slot in range(self._config.workers):
            self._start(slot)

    def adopt(self, workers: Iterable[RunningWorker], next_worker: int) -> None:
        """Go on with workers of a predecessor, until those started by us serve."""
        self.next_worker = next_worker
        now = self._now()
        for left in workers:
            link = WorkerHandle(
                left.worker,
                left.slot % self._config.workers,
                Process(left.pid, partial(self._ended, left.worker)),
                self._channel(left.worker, socket.socket(fileno=left.channel), left.unread),
                started_at=now,
                heard_at=now,
                last_ack=left.last_ack,
            )
            if left.draining_seconds is not None:
                link.draining_until = now + left.draining_seconds
            self._links[left.worker] = link
            link.process.watch()
            link.channel.start()
            self._sync(link)
            self.served = True

    def hand_over(self) -> tuple[RunningWorker, ...]:
        """The workers, for a successor. Nothing may be unsent."""
        now = self._now()
        return tuple(
            RunningWorker(
                worker=link.worker,
                slot=link.slot,
                pid=link.process.pid,
                channel=link.channel.fileno(),
                unread=link.channel.unread,
                last_ack=link.last_ack,
                draining_seconds=link.draining_until and link.draining_until - now,
            )
            for link in self._links.values()
        )

    def offer(self, snapshot: Snapshot, listeners: Open) -> None:
        """From now on this snapshot and these listeners hold."""
        self._snapshot = snapshot
        self._listeners = listeners
        for link in self._links.values():
            self._sync(link)

    def replace_all(self) -> None:
        """Replace every worker, one slot after the other."""
        self._to_replace = collections.deque(range(self._config.workers))
        self._replace_next()

    def drain(self, seconds: float) -> None:
        """Tell all workers to accept no more and to end, within `seconds` at last."""
        self._ending = True
        until = self._now() + seconds
        for link in list(self._links.values()):
            link.drain(until)

    def kill(self) -> None:
        """End all workers at once."""
        self._ending = True
        for link in self._links.values():
            link.process.signal(signal.SIGKILL)

    def close(self) -> None:
        """Let go of the channels; the processes are left to themselves."""
        self._ending = True
        for link in self._links.values():
            link.channel.close()

    def tick(self, paused: bool) -> None:
        """Look for workers that are late. After a pause of our own none of them is blamed."""
        now = self._now()
        for link in list(self._links.values()):
            if paused:
                link.heard_at = now
                link.waiting_since = link.waiting_since and now
            cause = complaint(link, now, self._config.ack_seconds, self._config.silence_seconds)
            if cause:
                _log.warning("worker %d (pid %d) killed: %s", link.worker, link.process.pid, cause)
                link.process.signal(signal.SIGKILL)
        self._replace_next()

    def _start(self, slot: int) -> None:
        if self._ending:
            return
        worker, self.next_worker = self.next_worker, self.next_worker + 1
        ours, theirs = socket.socketpair()
        config = WorkerConfig(
            worker=worker,
            channel=theirs.fileno(),
            slot=slot,
            of=self._config.workers,
            cells=self._cells.fd,
            rows=self._cells.workers,
            row=self._free_rows.pop() if self._free_rows else -1,
            access_log=self._config.access_log,
            spans=self._config.spans,
        )
        argv = [
            sys.executable,
            "-P",
            "-m",
            "proxy.worker",
            msgspec.json.encode(config).decode(),
        ]
        try:
            with theirs:
                process = spawn(
                    argv,
                    partial(self._ended, worker),
                    descriptors=[theirs.fileno(), self._cells.fd],
                )
        except OSError as error:
            _log.error("worker %d cannot be started: %s", worker, error)
            ours.close()
            self._free(config.row)
            self._start_again(slot, failed=True)
            return
        channel = self._channel(worker, ours)
        now = self._now()
        link = WorkerHandle(
            worker, slot, process, channel, started_at=now, heard_at=now, row=config.row
        )
        self._links[worker] = link
        self._current[slot] = link
        channel.start()
        self._sync(link)
        self._on_live()

    def _channel(self, worker: int, sock: socket.socket, unread: bytes = b"") -> Channel:
        return Channel(sock, partial(self._received, worker), partial(self._cut, worker), unread)

    def _cut(self, worker: int) -> None:
        """A channel ended. When a drained worker is done that is how its end begins; of any
        other it means that we could no longer tell it anything."""
        link = self._links.get(worker)
        if link is not None and not link.draining:
            link.process.signal(signal.SIGKILL)

    def _ended(self, worker: int, status: int) -> None:
        link = self._links.pop(worker)
        link.channel.close()
        self._free(link.row)
        lived = self._now() - link.started_at
        level = logging.INFO if link.draining and status == 0 else logging.WARNING
        _log.log(level, "worker %d (pid %d) ended: %s", worker, link.process.pid, cause_of(status))
        if self._current[link.slot] is link:
            self._current[link.slot] = None
            self._start_again(link.slot, failed=lived < SHORT_LIFE)
        self._on_live()

    def _start_again(self, slot: int, failed: bool) -> None:
        self._failures[slot] = self._failures[slot] + 1 if failed else 0
        delay = restart_delay(self._failures[slot])
        asyncio.get_running_loop().call_later(delay, self._start, slot)

    def _free(self, row: int) -> None:
        if row >= 0:
            self._cells.clear(row)
            self._free_rows.append(row)

    def _received(self, worker: int, message: Message, _descriptor: int) -> None:
        link = self._links.get(worker)
        if link is None:
            return
        link.heard_at = self._now()
        before = self._serves(link)
        match message:
            case Ack():
                link.acked(message)
                self._note_good(link.held)
            case SnapshotRefused(generation=generation, reason=reason):
                _log.error("worker %d refused snapshot %s: %s", worker, generation, reason)
                link.refuses(generation)
            case Accepting():
                link.accepts(message)
            case Resync():
                link.resync()
        self._sync(link)
        if not before and self._serves(link):
            self._now_serving(link)
        if not isinstance(message, Accepting | Resync):
            self._on_message(message)

    def _note_good(self, held: Snapshot | None) -> None:
        if held and (self.good is None or self.good.generation < held.generation):
            self.good = held

    def _now_serving(self, link: WorkerHandle) -> None:
        self.served = True
        until = self._now() + self._config.drain
        for other in self._links.values():
            if other.slot == link.slot and other.worker < link.worker:
                other.drain(until)
        self._replace_next()
        self._on_serving()

    def _replace_next(self) -> None:
        if self._to_replace and self.complete and not self._ending:
            self._start(self._to_replace.popleft())

    def _sync(self, link: WorkerHandle) -> None:
        link.sync(self._snapshot, self._listeners, self._now(), self.good)

    def _serves(self, link: WorkerHandle) -> bool:
        return link.serving(self._listeners)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
