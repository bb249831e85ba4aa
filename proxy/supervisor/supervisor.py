"""The root of a mesh: holds the listening sockets, the workers, the last good snapshot.

Small and boring on purpose: nothing here looks at a request, resolves a policy or talks to a
container engine, so there is little that could end it, and everything else may end and come
back. It wires four things: the `Listeners`, the `Crew` of workers, the `Feed` to the control
process, and the children.
"""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Iterable
from pathlib import Path

from proxy.ipc.address import BadAddress
from proxy.ipc.config import SupervisorConfig
from proxy.supervisor import snapshot_file, upgrade
from proxy.supervisor.child_processes import Children
from proxy.supervisor.feed_server import Feed
from proxy.supervisor.listeners import Listeners, reason
from proxy.supervisor.upgrade import Handover
from proxy.supervisor.worker_pool import WorkerPool
from proxy.wire.report import Hello, Message, Resync, Workers
from proxy.wire.snapshot import Generation, MissingService, Snapshot, SnapshotUpdate, apply

_log = logging.getLogger(__name__)
_TICK = 0.25
_PAUSE = 1.0
"""When a tick comes this much too late, it was us who did not run, not the workers."""


class StartError(Exception):
    """An address cannot be had or the workers do not start; the text says why."""


class Supervisor:
    """See the module. `config_file` is where `config` was read from, for a successor;
    `inherited` is what a predecessor left."""

    def __init__(
        self, config: SupervisorConfig, config_file: str, inherited: Handover | None
    ) -> None:
        self._config = config
        self._config_file = config_file
        self._inherited = inherited
        self._snapshot = Snapshot(generation=Generation())
        self._listeners = Listeners(config.listen, config.workers)
        self._feed = Feed(self._greeting, self._publish)
        self._crew = WorkerPool(config, self._worker_told, self._workers_changed, self._announce)
        self._children = Children(config.children, self._feed.adopt)
        self._unsaved = asyncio.Event()
        self._saved = self._snapshot
        self._end = asyncio.Event()
        self._at_once = asyncio.Event()
        self._upgrading: asyncio.Task[None] | None = None
        self._announced = False
        self._had_terminal = os.isatty(1)

    async def run(self) -> int:
        """Serve until told to end; the exit code. Raises CannotStart before anything was
        served."""
        self._restore()
        self._open_addresses()
        await self._open_feed()
        self._write_pid_file()
        self._handle_signals()
        tasks = [asyncio.create_task(self._watch()), asyncio.create_task(self._keep_saved())]
        self._crew.offer(self._snapshot, self._listeners.open)
        if self._inherited is not None:
            self._crew.adopt(self._inherited.workers, self._inherited.next_worker)
            self._children.adopt(self._inherited.children)
        self._crew.start()
        self._children.start()
        try:
            await self._end.wait()
            return await self._shut_down()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._crew.close()
            self._feed.close()
            self._remove_pid_file()

    # What is served

    def _restore(self) -> None:
        """The snapshot to begin with: the predecessor's, the stored or the configured one."""
        stored = None
        if self._config.state_dir:
            try:
                os.makedirs(self._config.state_dir, mode=0o700, exist_ok=True)
                stored = snapshot_file.load(self._stored_at)
            except snapshot_file.Unreadable as error:
                _log.warning("stored snapshot left aside: %s", error)
            except OSError as error:
                raise StartError(f"state directory: {error}") from error
        if self._inherited is not None:
            stored = self._inherited.snapshot
        self._snapshot = stored or self._config.snapshot or self._snapshot

    @property
    def _stored_at(self) -> Path:
        return Path(self._config.state_dir) / "snapshot.bin"

    def _open_addresses(self) -> None:
        """Our own addresses must open; those of a restored snapshot may have gone."""
        given = self._inherited.child_sockets if self._inherited else {}
        if self._inherited is not None:
            self._listeners.adopt(self._inherited.listening, self._snapshot)
        self._listeners.sync(self._snapshot)
        for address, why in self._listeners.failed.items():
            if address in self._config.listen:
                raise StartError(f"cannot listen on {address}: {why}")
            _log.error("cannot listen on %s: %s", address, why)
        try:
            self._children.open_sockets(given)
        except (OSError, BadAddress) as error:
            raise StartError(
                f"cannot listen on {' '.join(error.__notes__)}: {reason(error)}"
            ) from error

    def _publish(self, update: SnapshotUpdate) -> Message | None:
        """Take a new snapshot. The answer refuses a generation that is not above ours, or
        asks for all of it."""
        if update.generation <= self._snapshot.generation:
            _log.warning("refused %s: holding %s", update.generation, self._snapshot.generation)
            return self._hello()
        try:
            self._snapshot = apply(self._snapshot, update)
        except MissingService:
            return Resync(worker=0)
        before = self._listeners.message()
        self._listeners.sync(self._snapshot)
        self._crew.offer(self._snapshot, self._listeners.open)
        if self._listeners.message() != before:
            self._feed.relay(self._listeners.message())
        for failure in self._listeners.failures():
            _log.error("cannot listen on %s: %s", failure.address, failure.error)
            self._feed.relay(failure)
        return None

    async def _keep_saved(self) -> None:
        """Write the newest snapshot that a worker routes by whenever there is one; in a thread,
        for disks can hang."""
        while self._config.state_dir:
            await self._unsaved.wait()
            self._unsaved.clear()
            good = self._crew.good
            if good is None:
                continue
            try:
                await asyncio.to_thread(snapshot_file.save, self._stored_at, good)
                self._saved = good
            except OSError as error:
                _log.error("the snapshot could not be stored: %s", error)

    # What is told

    def _hello(self) -> Hello:
        return Hello(role="supervisor", generation=self._snapshot.generation)

    def _greeting(self) -> Iterable[Message]:
        yield self._hello()
        yield self._listeners.message()
        yield Workers(self._crew.live)
        yield from self._crew.acks
        yield from self._listeners.failures()

    def _worker_told(self, message: Message) -> None:
        good = self._crew.good
        if good is not None and good.generation > self._saved.generation:
            self._unsaved.set()
        self._feed.relay(message)

    def _workers_changed(self) -> None:
        self._feed.relay(Workers(self._crew.live))
        self._give_up_where_hopeless()

    def _give_up_where_hopeless(self) -> None:
        if self._crew.hopeless:
            self._end.set()

    def _announce(self) -> None:
        """Print where we listen, once, when every worker accepts."""
        if self._announced or not self._crew.complete:
            return
        self._announced = True
        for address in self._config.listen:
            bound = self._listeners.bound(address)
            _log.info("listening on %s with %d workers", bound, self._config.workers)
            if self._config.announce and self._inherited is None:
                print(f"listening on {bound}", flush=True)

    # What runs

    async def _open_feed(self) -> None:
        if self._config.state_dir:
            path = Path(self._config.state_dir) / "feed.sock"
            try:
                await self._feed.open(path)
            except OSError as error:
                raise StartError(f"cannot listen on {path}: {reason(error)}") from error

    async def _watch(self) -> None:
        """Look at the workers now and then, knowing whether we ourselves were held up."""
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(_TICK)
            self._crew.tick(paused=loop.time() - before > _TICK + _PAUSE)
            self._give_up_where_hopeless()

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told_to_end)
        loop.add_signal_handler(signal.SIGHUP, self._told_to_reload)
        loop.add_signal_handler(signal.SIGUSR2, self._told_to_upgrade)
        upgrade.unblock_signals()

    def _told_to_end(self) -> None:
        if self._end.is_set():
            self._at_once.set()
        self._end.set()

    def _told_to_reload(self) -> None:
        """SIGHUP: replace the workers and let children read their files again. When it came
        because our terminal went away, nobody is left to reload for."""
        if self._had_terminal and not os.isatty(1):
            self._told_to_end()
            return
        _log.info("reloading: replacing the workers one after the other")
        self._crew.replace_all()
        self._children.reload()

    def _told_to_upgrade(self) -> None:
        """SIGUSR2: go on as what is installed now."""
        if self._upgrading is None or self._upgrading.done():
            self._upgrading = asyncio.create_task(self._upgrade())

    async def _upgrade(self) -> None:
        problem = await upgrade.try_out(self._config_file)
        if problem is None and self._crew.unsent:
            problem = "a worker has not taken its last message yet; try again"
        if problem is not None or self._end.is_set():
            _log.error("not upgraded: %s", problem)
            return
        _log.info("upgrading: becoming the installed version")
        left = Handover(
            snapshot=self._snapshot,
            listening=self._listeners.hand_over(),
            workers=self._crew.hand_over(),
            next_worker=self._crew.next_worker,
            children=self._children.hand_over(),
            child_sockets=self._children.hand_over_sockets(),
        )
        upgrade.become_successor(left, self._config_file)

    async def _shut_down(self) -> int:
        """Drain the workers, then end the children, last started first."""
        if self._crew.hopeless:
            _log.error("the workers do not start; their own messages say why")
        _log.info("draining for up to %g s", self._config.drain)
        await self._children.hold()
        self._crew.drain(self._config.drain)
        self._listeners.close()
        while self._crew.live:
            if self._at_once.is_set():
                self._crew.kill()
                await asyncio.sleep(_TICK / 5)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK / 5):
                    await self._at_once.wait()
        await self._children.stop(self._at_once)
        return 1 if self._at_once.is_set() or not self._crew.served else 0

    def _write_pid_file(self) -> None:
        if self._config.pid_file:
            try:
                Path(self._config.pid_file).write_text(f"{os.getpid()}\n")
            except OSError as error:
                raise StartError(f"pid file: {error}") from error

    def _remove_pid_file(self) -> None:
        if self._config.pid_file:
            Path(self._config.pid_file).unlink(missing_ok=True)
