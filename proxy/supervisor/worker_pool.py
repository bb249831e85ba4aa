"""The pool of worker processes: one that serves in each slot, plus those that drain.

Owned by `supervisor`; keeps one `WorkerHandle` per process. Two rules are enough. A slot without
a worker gets one. As soon as the newest worker of a slot serves, the older ones of that slot
drain. So a crash and a binary upgrade are the same case, and a new worker that fails
to start leaves the old one serving.
"""

import asyncio
import logging
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import msgspec

from proxy.ipc.channel import Channel
from proxy.ipc.config import SupervisorConfig, WorkerConfig
from proxy.ipc.shared_memory import SharedCells
from proxy.supervisor.process import Process, describe_exit, spawn
from proxy.supervisor.ticket_rotation import TicketRotation
from proxy.supervisor.upgrade import RunningWorker
from proxy.supervisor.worker_handle import (
    OpenListeners,
    WorkerHandle,
    kill_reason,
    restart_delay,
)
from proxy.wire.report import Accepting, Ack, Message, Resync, SnapshotRefused
from proxy.wire.snapshot import Generation, Snapshot

_log = logging.getLogger(__name__)
EARLY_EXIT_SECONDS = 5.0
"""A worker that ends sooner after its start counts as failed; a start takes about 0.3 s."""
_TUNNEL_END_SECONDS = 5.0
"""Time that a worker gets for the ends of its last tunnels; a client has 2 s to answer."""
_END_SECONDS = 2.0
"""Time that a worker gets, after its requests have had theirs, to write its log and to end."""
_START_ATTEMPTS = 3
"""Consecutive failures in one slot, with no worker ever serving, after which the start fails."""


class WorkerPool:
    """Starts, updates, watches and replaces the workers.

    Callbacks:

    - `on_message`: gets the messages of the workers (acks, reports, wakes, ejections)
    - `on_live_changed`: called when the set of worker processes changes
    - `on_serving`: called when `is_complete` may have become true

    Attributes:

    - `next_worker`: id of the next worker to start
    - `last_good`: the newest snapshot that some worker has installed
    - `has_served`: whether any worker has served since the start
    """

    def __init__(
        self,
        config: SupervisorConfig,
        on_message: Callable[[Message], None],
        on_live_changed: Callable[[], None],
        on_serving: Callable[[], None],
    ) -> None:
        self._config = config
        self._on_message = on_message
        self._on_live_changed = on_live_changed
        self._on_serving = on_serving
        self._handles: dict[int, WorkerHandle] = {}
        self._current: list[WorkerHandle | None] = [None] * config.workers
        self._failures = [0] * config.workers
        self.next_worker = 1
        # Twice as many rows as slots: workers that are killed and their successors.
        self._cells = SharedCells.create(2 * config.workers)
        self._free_rows = list(range(2 * config.workers))
        self.ticket_rotation = TicketRotation(time.monotonic(), config.ticket_seconds)
        self._snapshot = Snapshot(generation=Generation())
        self.last_good: Snapshot | None = None
        self._listeners: OpenListeners = {}
        self._stopping = False
        self.has_served = False

    @property
    def live(self) -> tuple[int, ...]:
        """Ids of the running workers, draining ones included."""
        return tuple(sorted(self._handles))

    @property
    def acks(self) -> list[Ack]:
        """The last ack of every worker that sent one."""
        return [handle.last_ack for handle in self._handles.values() if handle.last_ack]

    @property
    def is_complete(self) -> bool:
        """Whether every slot has a worker that serves."""
        return all(handle is not None and self._is_serving(handle) for handle in self._current)

    @property
    def has_failed(self) -> bool:
        """Whether the start has failed for good.

        No worker ever served, and either one slot has failed `_START_ATTEMPTS` times, or the
        snapshot was refused and no control process can publish a better one.
        """
        if self.has_served:
            return False
        refused = any(handle.refused for handle in self._handles.values())
        return max(self._failures) >= _START_ATTEMPTS or (refused and not self._config.state_dir)

    @property
    def has_unsent(self) -> bool:
        """Whether a message to some worker is still queued."""
        return any(handle.channel.pending for handle in self._handles.values())

    def start(self) -> None:
        """Start a worker in every slot."""
        for slot in range(self._config.workers):
            self._start(slot)

    def adopt(self, workers: Iterable[RunningWorker], next_worker: int) -> None:
        """Take over workers of the version before; they drain once newly started ones serve."""
        self.next_worker = next_worker
        now = self._now()
        for running in workers:
            until = None
            if running.draining_seconds is not None:
                until = now + running.draining_seconds
            handle = WorkerHandle(
                running.worker,
                running.slot % self._config.workers,
                Process(running.pid, partial(self._handle_end, running.worker)),
                self._channel(
                    running.worker, socket.socket(fileno=running.channel), running.unread
                ),
                started_at=now,
                heard_at=now,
                last_ack=running.last_ack,
                draining_until=until,
                keeps_tunnels=running.keeps_tunnels,
                protocol=running.protocol,
            )
            self._handles[running.worker] = handle
            handle.process.watch()
            handle.channel.start()
            self._sync(handle)
            self.has_served = True

    def export(self) -> tuple[RunningWorker, ...]:
        """Return the workers, for an upgrade. No message may be queued (`has_unsent`)."""
        now = self._now()
        return tuple(
            RunningWorker(
                worker=handle.worker,
                slot=handle.slot,
                pid=handle.process.pid,
                channel=handle.channel.fileno(),
                unread=handle.channel.unread,
                last_ack=handle.last_ack,
                draining_seconds=handle.draining_until and handle.draining_until - now,
                keeps_tunnels=handle.keeps_tunnels,
                protocol=handle.protocol,
            )
            for handle in self._handles.values()
        )

    def publish(self, snapshot: Snapshot, listeners: OpenListeners) -> None:
        """Set the current snapshot and listeners, and send them to every worker."""
        self._snapshot = snapshot
        self._listeners = listeners
        for handle in list(self._handles.values()):
            self._sync(handle)
            self._check_serving(handle)  # an address that it did not accept on may be gone
        self._on_serving()

    def reopen_logs(self) -> None:
        """Tell every worker to open the file of the access log again."""
        for handle in self._handles.values():
            handle.reopen_log()

    def drain(self, seconds: float) -> None:
        """Tell all workers to stop accepting, finish their requests and tunnels and end within
        `seconds`."""
        self._stopping = True
        until = self._now() + seconds + _END_SECONDS
        for handle in list(self._handles.values()):
            handle.drain(until, tunnels=False)

    def kill(self) -> None:
        """Kill all workers."""
        self._stopping = True
        for handle in self._handles.values():
            handle.process.signal(signal.SIGKILL)

    def close(self) -> None:
        """Close the channels. The processes themselves are not touched."""
        self._stopping = True
        for handle in self._handles.values():
            handle.channel.close()

    def tick(self, paused: bool) -> None:
        """Kill workers that are overdue.

        `paused` means that the supervisor itself did not run for a while; all timers restart,
        since messages may only have been read late.
        """
        now = self._now()
        if self.ticket_rotation.rotate(time.monotonic()):
            for handle in self._handles.values():
                self._sync(handle)
        for handle in list(self._handles.values()):
            if paused:
                handle.restart_timers(now)
            reason = kill_reason(
                handle, now, self._config.ack_seconds, self._config.silence_seconds
            )
            if reason:
                _log.warning(
                    "worker %d (pid %d) killed: %s", handle.worker, handle.process.pid, reason
                )
                handle.process.signal(signal.SIGKILL)

    def _start(self, slot: int) -> None:
        if self._stopping:
            return
        worker, self.next_worker = self.next_worker, self.next_worker + 1
        own_end, worker_end = socket.socketpair()
        state = self._config.state_dir
        config = WorkerConfig(
            worker=worker,
            channel=worker_end.fileno(),
            slot=slot,
            of=self._config.workers,
            cells=self._cells.fd,
            rows=self._cells.workers,
            row=self._free_rows.pop() if self._free_rows else -1,
            access_log=self._config.access_log,
            spans=self._config.spans,
            drain=self._config.drain,
            taps=str(Path(state, "tap")) if state else "",
            records=str(Path(state, "records")) if state and self._config.record else "",
            peer=self._config.peer,
        )
        argv = [
            sys.executable,
            "-P",
            "-m",
            "proxy.worker",
            msgspec.json.encode(config).decode(),
        ]
        try:
            with worker_end:
                process = spawn(
                    argv,
                    partial(self._handle_end, worker),
                    descriptors=[worker_end.fileno(), self._cells.fd],
                )
        except OSError as error:
            _log.error("worker %d cannot be started: %s", worker, error)
            own_end.close()
            self._free_row(config.row)
            self._restart(slot, failed=True)
            return
        channel = self._channel(worker, own_end)
        now = self._now()
        handle = WorkerHandle(
            worker, slot, process, channel, started_at=now, heard_at=now, row=config.row
        )
        self._handles[worker] = handle
        self._current[slot] = handle
        channel.start()
        self._sync(handle)
        self._on_live_changed()

    def _channel(self, worker: int, sock: socket.socket, unread: bytes = b"") -> Channel:
        return Channel(
            sock,
            partial(self._handle_message, worker),
            partial(self._handle_channel_closed, worker),
            unread,
        )

    def _handle_channel_closed(self, worker: int) -> None:
        """Kill a worker that can no longer be reached.

        A drained worker closes its channel before it exits; that one ends without help.
        """
        handle = self._handles.get(worker)
        if handle is not None and not handle.is_draining:
            handle.process.signal(signal.SIGKILL)

    def _handle_end(self, worker: int, status: int) -> None:
        handle = self._handles.pop(worker)
        handle.channel.close()
        self._free_row(handle.row)
        lifetime = self._now() - handle.started_at
        level = logging.INFO if handle.is_draining and status == 0 else logging.WARNING
        _log.log(
            level, "worker %d (pid %d) ended: %s", worker, handle.process.pid, describe_exit(status)
        )
        if self._current[handle.slot] is handle:
            self._current[handle.slot] = None
            self._restart(handle.slot, failed=lifetime < EARLY_EXIT_SECONDS)
        self._on_live_changed()

    def _restart(self, slot: int, failed: bool) -> None:
        self._failures[slot] = self._failures[slot] + 1 if failed else 0
        delay = restart_delay(self._failures[slot])
        asyncio.get_running_loop().call_later(delay, self._start, slot)

    def _free_row(self, row: int) -> None:
        if row >= 0:
            self._cells.clear(row)
            self._free_rows.append(row)

    def _handle_message(self, worker: int, message: Message, _descriptor: int) -> None:
        handle = self._handles.get(worker)
        if handle is None:
            return
        handle.on_message(self._now())
        match message:
            case Ack():
                handle.on_ack(message)
                self._update_last_good(handle.acked)
            case SnapshotRefused(generation=generation, reason=reason):
                _log.error("worker %d refused snapshot %s: %s", worker, generation, reason)
                handle.on_refused(generation)
            case Accepting():
                handle.on_accepting(message)
            case Resync():
                handle.on_resync()
        self._sync(handle)
        self._check_serving(handle)
        self._on_serving()
        if not isinstance(message, Accepting | Resync):
            self._on_message(message)

    def _update_last_good(self, acked: Snapshot | None) -> None:
        if acked and (self.last_good is None or self.last_good.generation < acked.generation):
            self.last_good = acked

    def _check_serving(self, handle: WorkerHandle) -> None:
        """Drain the older workers of the slot of a worker once it serves."""
        if handle.has_served or not self._is_serving(handle):
            return
        handle.has_served = self.has_served = True
        longest = max((each.drain_tunnels for each in self._snapshot.services), default=0.0)
        until = self._now() + max(self._config.drain, longest) + _TUNNEL_END_SECONDS
        for other in self._handles.values():
            if other.slot == handle.slot and other.worker < handle.worker:
                other.drain(until, tunnels=True)

    def _sync(self, handle: WorkerHandle) -> None:
        handle.send_secrets(self.ticket_rotation.secrets)
        handle.sync(self._snapshot, self._listeners, self._now(), self.last_good)

    def _is_serving(self, handle: WorkerHandle) -> bool:
        return handle.is_serving(self._listeners)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
