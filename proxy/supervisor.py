"""The root of a mesh: holds the listening sockets, the workers, the last good snapshot.

Small and boring on purpose: nothing here looks at a request, resolves a policy or talks to a
container engine, so there is little that could end it, and everything else may end and come
back. It owns four things and wires them: `sockets`, the `Crew` of workers, the `Feed` to the
control process, and the children.
"""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Iterable
from pathlib import Path

from proxy import lastgood
from proxy.address import BadAddress
from proxy.children import Child
from proxy.config import ChildConfig, SupervisorConfig
from proxy.crew import Crew
from proxy.feed import Feed
from proxy.link import Open
from proxy.sockets import open_address
from proxy.wire.report import (
    Hello,
    ListenFailed,
    Listening,
    Message,
    Resync,
    Workers,
)
from proxy.wire.snapshot import (
    Generation,
    Listener,
    MissingService,
    Snapshot,
    SnapshotUpdate,
    apply,
)

_log = logging.getLogger(__name__)
_TICK = 0.25
_PAUSE = 1.0
"""When a tick comes this much too late, it was us who did not run, not the workers."""
_KILLED_CHILD = 2.0
"""Patience with a child when the end has to be at once."""


class CannotStart(Exception):
    """An address cannot be had or the workers do not start; the text says why."""


class Supervisor:
    """See the module. `run` returns the exit code."""

    def __init__(self, config: SupervisorConfig) -> None:
        self._config = config
        self._snapshot = Snapshot(generation=Generation())
        self._open: Open = {}
        self._failed: dict[str, str] = {}
        self._feed = Feed(self._greeting, self._publish)
        self._crew = Crew(config, self._feed.relay, self._workers_changed, self._announce)
        self._children: list[Child] = []
        self._child_tasks: list[asyncio.Task[None]] = []
        self._unsaved = asyncio.Event()
        self._signals = 0
        self._end = asyncio.Event()
        self._at_once = asyncio.Event()
        self._announced = False
        self._had_terminal = os.isatty(1)

    async def run(self) -> int:
        """Serve until told to end. Raises CannotStart before anything was served."""
        self._restore()
        self._open_first()
        self._children = [self._child(each) for each in self._config.children]
        await self._open_feed()
        self._write_pid_file()
        self._handle_signals()
        tasks = [asyncio.create_task(self._watch()), asyncio.create_task(self._keep_saved())]
        self._crew.offer(self._snapshot, self._open)
        self._crew.start()
        self._start_children()
        try:
            await self._end.wait()
            return await self._shut_down()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._feed.close()
            self._remove_pid_file()

    # What is served

    def _restore(self) -> None:
        """The snapshot to begin with: the stored one, or the configured one."""
        stored = None
        if self._config.state_dir:
            try:
                os.makedirs(self._config.state_dir, mode=0o700, exist_ok=True)
                stored = lastgood.load(self._stored_at)
            except lastgood.Unreadable as error:
                _log.warning("stored snapshot left aside: %s", error)
            except OSError as error:
                raise CannotStart(f"state directory: {error}") from error
        self._snapshot = stored or self._config.snapshot or self._snapshot

    @property
    def _stored_at(self) -> Path:
        return Path(self._config.state_dir) / "snapshot.bin"

    def _wanted(self) -> dict[str, Listener]:
        """The listeners that should be open; the snapshot may say more about ours."""
        ours = {address: Listener(address) for address in self._config.listen}
        return ours | {listener.address: listener for listener in self._snapshot.listeners}

    def _open_first(self) -> None:
        """Our own addresses must open; those of a restored snapshot may have gone."""
        self._sync_listeners()
        for address, why in self._failed.items():
            if address in self._config.listen:
                raise CannotStart(f"cannot listen on {address}: {why}")
            _log.error("cannot listen on %s: %s", address, why)

    def _sync_listeners(self) -> None:
        """Open what is wanted and closed, close what is open and not wanted."""
        wanted = self._wanted()
        self._failed = {}
        still: Open = {}
        for address, (_, listening) in self._open.items():
            if address in wanted:
                still[address] = (wanted[address], listening)
            else:
                listening.close()
        for address in wanted.keys() - still.keys():
            try:
                still[address] = (wanted[address], open_address(address, self._config.workers))
            except (OSError, BadAddress) as error:
                self._failed[address] = reason(error)
        self._open = still

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
        before = self._listening()
        self._sync_listeners()
        self._crew.offer(self._snapshot, self._open)
        self._unsaved.set()
        if self._listening() != before:
            self._feed.relay(self._listening())
        for message in self._failures():
            _log.error("cannot listen on %s: %s", message.address, message.error)
            self._feed.relay(message)
        return None

    async def _keep_saved(self) -> None:
        """Write the newest snapshot whenever it changed; in a thread, for disks can hang."""
        while self._config.state_dir:
            await self._unsaved.wait()
            self._unsaved.clear()
            try:
                await asyncio.to_thread(lastgood.save, self._stored_at, self._snapshot)
            except OSError as error:
                _log.error("the snapshot could not be stored: %s", error)

    # What is told

    def _hello(self) -> Hello:
        return Hello(role="supervisor", generation=self._snapshot.generation)

    def _listening(self) -> Listening:
        return Listening({asked: listening.bound for asked, (_, listening) in self._open.items()})

    def _failures(self) -> list[ListenFailed]:
        return [ListenFailed(address, error) for address, error in self._failed.items()]

    def _greeting(self) -> Iterable[Message]:
        yield self._hello()
        yield self._listening()
        yield Workers(self._crew.live)
        yield from self._crew.acks
        yield from self._failures()

    def _workers_changed(self) -> None:
        self._feed.relay(Workers(self._crew.live))
        if self._crew.hopeless:
            self._end.set()

    def _announce(self) -> None:
        """Print where we listen, once, when every worker accepts."""
        if self._announced or not self._crew.complete:
            return
        self._announced = True
        for address in self._config.listen:
            bound = self._open[address][1].bound
            _log.info("listening on %s with %d workers", bound, self._config.workers)
            if self._config.announce:
                print(f"listening on {bound}", flush=True)

    # What runs

    async def _open_feed(self) -> None:
        if self._config.state_dir:
            path = Path(self._config.state_dir) / "feed.sock"
            try:
                await self._feed.open(path)
            except OSError as error:
                raise CannotStart(f"cannot listen on {path}: {reason(error)}") from error

    def _child(self, config: ChildConfig) -> Child:
        """A child with the sockets that it is to get."""
        sockets = {}
        for variable, address in config.listen.items():
            try:
                sockets[variable] = open_address(address, 1)
            except (OSError, BadAddress) as error:
                raise CannotStart(f"cannot listen on {address}: {reason(error)}") from error
        return Child(config, self._feed.adopt, sockets)

    def _start_children(self) -> None:
        self._child_tasks = [asyncio.create_task(child.run()) for child in self._children]

    async def _watch(self) -> None:
        """Look at the workers now and then, knowing whether we ourselves were held up."""
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(_TICK)
            self._crew.tick(paused=loop.time() - before > _TICK + _PAUSE)

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told_to_end)
        loop.add_signal_handler(signal.SIGHUP, self._told_to_reload)

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
        for child in self._children:
            child.reload()

    async def _shut_down(self) -> int:
        """Drain the workers, then end the children, last started first."""
        if self._crew.hopeless:
            _log.error("the workers do not start; their own messages say why")
        _log.info("draining for up to %g s", self._config.drain)
        for task in self._child_tasks:
            task.cancel()
        self._crew.drain(self._config.drain)
        for _, listening in self._open.values():
            listening.close()
        while self._crew.live:
            if self._at_once.is_set():
                self._crew.kill()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._at_once.wait(), _TICK / 5)
            await asyncio.sleep(0)
        for child in reversed(self._children):
            patience = _KILLED_CHILD if self._at_once.is_set() else child.config.stop_seconds
            await child.stop(patience)
            child.close()
        return 1 if self._at_once.is_set() or not self._crew.served else 0

    def _write_pid_file(self) -> None:
        if self._config.pid_file:
            try:
                Path(self._config.pid_file).write_text(f"{os.getpid()}\n")
            except OSError as error:
                raise CannotStart(f"pid file: {error}") from error

    def _remove_pid_file(self) -> None:
        if self._config.pid_file:
            Path(self._config.pid_file).unlink(missing_ok=True)


def reason(error: Exception) -> str:
    """What went wrong, without numbers that help nobody."""
    return (isinstance(error, OSError) and error.strerror) or str(error)
