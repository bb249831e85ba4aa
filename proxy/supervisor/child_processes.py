"""The other processes of a mesh (control process, keeper, …), kept running."""

import asyncio
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping

from proxy.ipc.config import FEED_VARIABLE, ChildConfig
from proxy.ipc.sockets import ListeningSockets, OpenSockets, adopt, open_address
from proxy.supervisor.process import Process, cause_of, spawn
from proxy.supervisor.upgrade import close_unused

_log = logging.getLogger(__name__)
_AT_ONCE = 2.0
"""Patience in seconds with a child when the end has to be at once."""

AdoptFeed = Callable[[socket.socket], Awaitable[None]]


def next_backoff(config: ChildConfig, last: float, lived: float) -> float:
    """Seconds to wait before the next start of a child that lived for `lived` seconds and
    was started `last` seconds after the end before (0: its first start)."""
    if not last or lived > config.backoff_longest:
        return config.backoff_first
    return min(last * 2, config.backoff_longest)


class ChildProcess:
    """One process that is started again whenever it ends, until it is held.

    `adopt_feed` serves one end of a socket pair as a feed connection. `listening` has the
    open address for each environment variable that is to name it.
    """

    def __init__(self, config: ChildConfig, adopt_feed: AdoptFeed) -> None:
        self.config = config
        self.listening: dict[str, ListeningSockets] = {}
        self.process: Process | None = None
        self._adopt_feed = adopt_feed
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Keep it running until cancelled. The process itself is left to `stop`."""
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
            _log.warning("child %s starts again in %.1f s", self.config.name, backoff)
            await asyncio.sleep(backoff)

    def adopt(self, pid: int) -> None:
        """Go on with a process that runs already."""
        self.process = Process(pid, self._on_end)
        self.process.watch()

    async def stop(self, at_once: asyncio.Event) -> None:
        """SIGTERM and, when it takes too long or has to be at once, SIGKILL; returns when it
        has ended."""
        if self.process is None:
            return
        self.process.signal(signal.SIGTERM)
        hurry = asyncio.create_task(self._hurry(at_once))
        await self._ended.wait()
        hurry.cancel()

    async def _hurry(self, at_once: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(self.config.stop_seconds):
                await at_once.wait()
            await asyncio.sleep(_AT_ONCE)
        except TimeoutError:
            pass
        if self.process is not None:
            _log.warning("child %s killed: it did not end", self.config.name)
            self.process.signal(signal.SIGKILL)

    async def _start(self) -> None:
        self._ended.clear()
        env = dict(self.config.env)
        descriptors = []
        for variable, listening in self.listening.items():
            descriptors.append(listening.slots[0].fileno())
            env[variable] = str(descriptors[-1])
        theirs: socket.socket | None = None
        if self.config.feed:
            ours, theirs = socket.socketpair()
            env[FEED_VARIABLE] = str(theirs.fileno())
            descriptors.append(theirs.fileno())
            await self._adopt_feed(ours)
        try:
            self.process = spawn(
                self.config.argv,
                self._on_end,
                env=env,
                descriptors=descriptors,
                death_signal=signal.SIGTERM,
            )
        finally:
            if theirs is not None:
                theirs.close()
        _log.info("child %s started (pid %d)", self.config.name, self.process.pid)

    def _on_end(self, status: int) -> None:
        _log.info("child %s ended: %s", self.config.name, cause_of(status))
        self.process = None
        self._ended.set()


class Children:
    """All of them: started in the order of the configuration, ended in the reverse order."""

    def __init__(self, configs: Iterable[ChildConfig], adopt_feed: AdoptFeed) -> None:
        self._children = [ChildProcess(config, adopt_feed) for config in configs]
        self._tasks: list[asyncio.Task[None]] = []

    def open_sockets(self, given: Mapping[str, OpenSockets]) -> None:
        """Open the addresses that children listen on, or go on with those of a predecessor.
        Raises OSError or BadAddress, with the address as a note."""
        used = []
        for child in self._children:
            for variable, address in child.config.listen.items():
                key = f"{child.config.name}/{variable}"
                if key in given:
                    used.append(key)
                    listening = adopt(given[key].bound, given[key].descriptors, 1)
                else:
                    listening = _open(address)
                    _log.info("%s listens on %s", child.config.name, listening.bound)
                child.listening[variable] = listening
        close_unused(given, used)

    def start(self) -> None:
        """Start and keep running."""
        self._tasks = [asyncio.create_task(child.run()) for child in self._children]

    def adopt(self, pids: Mapping[str, int]) -> None:
        """Go on with processes that run already; those that are not ours any more are told
        to end."""
        ours = {child.config.name: child for child in self._children}
        for name, pid in pids.items():
            if name in ours:
                ours[name].adopt(pid)
            else:
                left = Process(pid, lambda _status: None)
                left.watch()
                left.signal(signal.SIGTERM)

    def reload(self) -> None:
        """Pass SIGHUP on to those that want it."""
        for child in self._children:
            if child.config.reload and child.process is not None:
                child.process.signal(signal.SIGHUP)

    async def hold(self) -> None:
        """Start none again."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def stop(self, at_once: asyncio.Event) -> None:
        """End them one after the other; returns when all have ended."""
        for child in reversed(self._children):
            await child.stop(at_once)
            for listening in child.listening.values():
                listening.close()

    def hand_over(self) -> dict[str, int]:
        """The processes, for a successor."""
        return {c.config.name: c.process.pid for c in self._children if c.process is not None}

    def hand_over_sockets(self) -> dict[str, OpenSockets]:
        """The open addresses, for a successor."""
        return {
            f"{child.config.name}/{variable}": listening.hand_over()
            for child in self._children
            for variable, listening in child.listening.items()
        }


def _open(address: str) -> ListeningSockets:
    try:
        return open_address(address, 1)
    except (OSError, ValueError) as error:
        error.add_note(address)
        raise
