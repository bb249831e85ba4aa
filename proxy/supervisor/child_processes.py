"""The child processes next to the workers (control process, keeper, …): start, restart, stop.

Owned by `supervisor`. `ChildConfig` (proxy.ipc.config) describes each of them; `process` starts
it; the feed server serves the socket that it may inherit.
"""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping

from proxy.ipc.config import FEED_VARIABLE, ChildConfig
from proxy.ipc.sockets import ListeningSockets, OpenSockets, adopt, open_address
from proxy.ipc.watchdog import LAST_END_VARIABLE, WATCHDOG_VARIABLE
from proxy.supervisor.process import Process, describe_exit, spawn
from proxy.supervisor.upgrade import close_unused

_log = logging.getLogger(__name__)
_FAST_STOP_SECONDS = 2.0
"""Time for a child to end after SIGTERM in a fast shutdown; then it gets SIGKILL."""
_START_SECONDS = 60.0
"""Time for a watched child until its first sign of life: it imports its modules and opens its
state, which takes a second or two, and far longer on an overloaded machine."""
_READ_BYTES = 4096
"""Bytes read from a watchdog's pipe at once; a sign of life is one byte."""

AdoptFeed = Callable[[socket.socket], Awaitable[None]]


def next_backoff(config: ChildConfig, last: float, lifetime: float) -> float:
    """Return the seconds to wait before a child's next start.

    `lifetime` is how long it ran (seconds), `last` the previous backoff (0 at its first start).
    """
    if not last or lifetime > config.backoff_longest:
        return config.backoff_first
    return min(last * 2, config.backoff_longest)


class Watchdog:
    """The supervisor's end of a child's signs of life (`proxy.ipc.watchdog`).

    - `descriptor`: the pipe's read end; -1 while no process is watched
    """

    def __init__(self, silence_seconds: float) -> None:
        self.descriptor = -1
        self._silence_seconds = silence_seconds
        self._heard_at = 0.0
        self._is_started = False

    def open(self, now: float) -> int:
        """Open a pipe for a process that starts now; return the end that the process gets."""
        self.close()
        self.descriptor, child_end = os.pipe()
        os.set_blocking(self.descriptor, False)
        self._heard_at, self._is_started = now, False
        return child_end

    def adopt(self, descriptor: int, now: float) -> None:
        """Take over the pipe of a process that is already running."""
        self.descriptor = descriptor
        self._heard_at, self._is_started = now, True

    def close(self) -> None:
        """Stop watching."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def restart_timer(self, now: float) -> None:
        """Count silence from now, after the supervisor itself was paused."""
        self._heard_at = now

    def kill_reason(self, now: float) -> str | None:
        """Return why the process must be killed and replaced; None if it is alive."""
        if self.descriptor < 0:
            return None
        try:
            heard = os.read(self.descriptor, _READ_BYTES)
        except BlockingIOError:
            heard = b""
        if heard:
            self._heard_at, self._is_started = now, True
        allowed = self._silence_seconds if self._is_started else _START_SECONDS
        if now - self._heard_at <= allowed:
            return None
        self._heard_at = now
        return f"no sign of life for {allowed:g} s"


class ChildProcess:
    """One process, restarted whenever it ends.

    - `adopt_feed`: serves one end of a socket pair as a feed connection
    - `listening`: the open address for each environment variable that names it
    - `process`: the running process; None while there is none
    """

    def __init__(self, config: ChildConfig, adopt_feed: AdoptFeed) -> None:
        self.config = config
        self.listening: dict[str, ListeningSockets] = {}
        self.process: Process | None = None
        self._adopt_feed = adopt_feed
        self._ended = asyncio.Event()
        self._watchdog = Watchdog(config.silence_seconds)
        self._kill_reason = ""
        self._last_end = ""

    def open_sockets(self, inherited: Mapping[str, OpenSockets]) -> None:
        """Open the addresses it listens on, or take over those of the version before.

        Raises OSError or BadAddress, with the address as a note.
        """
        for variable, address in self.config.listen.items():
            key = self.socket_key(variable)
            if key in inherited:
                listening = adopt(inherited[key].bound, inherited[key].descriptors, 1)
            else:
                listening = _open(address)
                _log.info("%s listens on %s", self.config.name, listening.bound)
            self.listening[variable] = listening
        watchdog = inherited.get(self.watchdog_key)
        if watchdog is not None and self.config.silence_seconds:
            self._watchdog.adopt(watchdog.descriptors[0], asyncio.get_running_loop().time())

    @property
    def watchdog_key(self) -> str:
        """The key of the watchdog's pipe in an upgrade's state."""
        return f"{self.config.name}/{WATCHDOG_VARIABLE}"

    def export_sockets(self) -> dict[str, OpenSockets]:
        """Return the open sockets by `socket_key`, and the watchdog's pipe, for an upgrade."""
        sockets = {self.socket_key(v): one.export() for v, one in self.listening.items()}
        if self._watchdog.descriptor >= 0:
            sockets[self.watchdog_key] = OpenSockets("", (self._watchdog.descriptor,))
        return sockets

    def tick(self, paused: bool) -> None:
        """Kill the process if it hangs; `run` then starts a new one. `paused`: the supervisor
        itself was paused."""
        now = asyncio.get_running_loop().time()
        if paused:
            self._watchdog.restart_timer(now)
        reason = self._watchdog.kill_reason(now)
        if reason is not None and self.process is not None:
            _log.error("child %s killed: %s", self.config.name, reason)
            self._kill_reason = reason
            self.process.signal(signal.SIGKILL)

    def socket_key(self, variable: str) -> str:
        """Return the key of a socket in an upgrade's state."""
        return f"{self.config.name}/{variable}"

    async def run(self) -> None:
        """Keep the process running until cancelled. `stop` ends the process itself."""
        loop = asyncio.get_running_loop()
        backoff = 0.0
        while True:
            started = loop.time()
            try:
                if self.process is None:
                    await self._start()
                await self._ended.wait()
            except OSError as error:
                _log.error("child %s cannot be started: %s", self.config.name, error)
            backoff = next_backoff(self.config, backoff, loop.time() - started)
            _log.warning("child %s restarts in %.1f s", self.config.name, backoff)
            await asyncio.sleep(backoff)

    def adopt(self, pid: int) -> None:
        """Take over a process that is already running."""
        self.process = Process(pid, self._handle_end)
        self.process.watch()

    async def stop(self, fast_shutdown: asyncio.Event) -> None:
        """Send SIGTERM, wait for the end, and send SIGKILL after the stop timeout.

        The timeout is `stop_seconds`, and much shorter once `fast_shutdown` is set.
        """
        if self.process is None:
            return
        self.process.signal(signal.SIGTERM)
        killer = asyncio.create_task(self._kill_after_timeout(fast_shutdown))
        await self._ended.wait()
        killer.cancel()

    async def _kill_after_timeout(self, fast_shutdown: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(self.config.stop_seconds):
                await fast_shutdown.wait()
            await asyncio.sleep(_FAST_STOP_SECONDS)
        except TimeoutError:
            pass
        if self.process is not None:
            _log.warning("child %s killed: it did not end in time", self.config.name)
            self.process.signal(signal.SIGKILL)

    async def _start(self) -> None:
        self._ended.clear()
        env = dict(self.config.env)
        descriptors = list(self.config.descriptors)
        for variable, listening in self.listening.items():
            descriptors.append(listening.slots[0].fileno())
            env[variable] = str(descriptors[-1])
        child_end: socket.socket | None = None
        if self.config.feed:
            own_end, child_end = socket.socketpair()
            env[FEED_VARIABLE] = str(child_end.fileno())
            descriptors.append(child_end.fileno())
            await self._adopt_feed(own_end)
        watchdog_end = -1
        if self.config.silence_seconds:
            watchdog_end = self._watchdog.open(asyncio.get_running_loop().time())
            env[WATCHDOG_VARIABLE] = str(watchdog_end)
            descriptors.append(watchdog_end)
        if self._last_end:
            env[LAST_END_VARIABLE] = self._last_end
        try:
            self.process = spawn(
                self.config.argv,
                self._handle_end,
                env=env,
                descriptors=descriptors,
                death_signal=signal.SIGTERM,
            )
        finally:
            if child_end is not None:
                child_end.close()
            if watchdog_end >= 0:
                os.close(watchdog_end)
        _log.info("child %s started (pid %d)", self.config.name, self.process.pid)

    def _handle_end(self, status: int) -> None:
        self._last_end = describe_exit(status)
        if self._kill_reason:
            self._last_end += f" by the supervisor: {self._kill_reason}"
            self._kill_reason = ""
        _log.info("child %s ended: %s", self.config.name, self._last_end)
        self._watchdog.close()
        self.process = None
        self._ended.set()


class ChildProcesses:
    """All child processes: started in the order of the configuration, stopped in reverse order."""

    def __init__(self, configs: Iterable[ChildConfig], adopt_feed: AdoptFeed) -> None:
        self._children = [ChildProcess(config, adopt_feed) for config in configs]
        self._tasks: list[asyncio.Task[None]] = []

    def open_sockets(self, inherited: Mapping[str, OpenSockets]) -> None:
        """Open the addresses that children listen on, or take over inherited sockets.

        Raises OSError or BadAddress, with the address as a note.
        """
        for child in self._children:
            child.open_sockets(inherited)
        close_unused(inherited, self.export_sockets())

    def start(self) -> None:
        """Start all, and restart each of them when it ends."""
        self._tasks = [asyncio.create_task(child.run()) for child in self._children]

    def adopt(self, pids: Mapping[str, int]) -> None:
        """Take over running processes, by name. Processes without a configuration get SIGTERM."""
        configured = {child.config.name: child for child in self._children}
        for name, pid in pids.items():
            if name in configured:
                configured[name].adopt(pid)
            else:
                removed = Process(pid, lambda _status: None)
                removed.watch()
                removed.signal(signal.SIGTERM)

    async def restart_upgraded(self, fast_shutdown: asyncio.Event) -> None:
        """After an upgrade, end the children that run the version before; `run` starts them again.
        Others, such as the keeper of local replicas, run on."""
        for child in self._children:
            if child.config.upgrades:
                await child.stop(fast_shutdown)

    def reload(self) -> None:
        """Send SIGHUP to the children that are configured for it."""
        for child in self._children:
            if child.config.reload and child.process is not None:
                child.process.signal(signal.SIGHUP)

    def tick(self, paused: bool) -> None:
        """Kill those that hang. `paused`: the supervisor itself was paused."""
        for child in self._children:
            child.tick(paused)

    async def stop_restarting(self) -> None:
        """Start no process again; those that run keep running."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def stop(self, fast_shutdown: asyncio.Event) -> None:
        """Stop one after the other; return when all have ended."""
        for child in reversed(self._children):
            await child.stop(fast_shutdown)
            for listening in child.listening.values():
                listening.close()

    def export_pids(self) -> dict[str, int]:
        """Return the running processes by name, for an upgrade."""
        return {c.config.name: c.process.pid for c in self._children if c.process is not None}

    def export_sockets(self) -> dict[str, OpenSockets]:
        """Return the open sockets and pipes of all children by key, for an upgrade."""
        return {key: one for child in self._children for key, one in child.export_sockets().items()}


def _open(address: str) -> ListeningSockets:
    try:
        return open_address(address, 1)
    except (OSError, ValueError) as error:
        error.add_note(address)
        raise
