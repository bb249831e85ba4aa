"""The other processes of a mesh (control process, keeper, …), kept running."""

import asyncio
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Mapping

from proxy.config import FEED_VARIABLE, ChildConfig
from proxy.crew import cause_of
from proxy.process import Process, spawn
from proxy.sockets import Listening

_log = logging.getLogger(__name__)


def next_backoff(config: ChildConfig, last: float, lived: float) -> float:
    """Seconds to wait before the next start of a child that lived for `lived` seconds and
    was started `last` seconds after the end before (0: its first start)."""
    if not last or lived > config.backoff_longest:
        return config.backoff_first
    return min(last * 2, config.backoff_longest)


class Child:
    """One process that is started again whenever it ends, until `stop`.

    `adopt_feed` serves one end of a socket pair as a feed connection. `listening` has the open
    address for each environment variable that is to name it.
    """

    def __init__(
        self,
        config: ChildConfig,
        adopt_feed: Callable[[socket.socket], Awaitable[None]],
        listening: Mapping[str, Listening],
    ) -> None:
        self.config = config
        self._adopt_feed = adopt_feed
        self._listening = listening
        self._ended = asyncio.Event()
        self.process: Process | None = None

    async def run(self) -> None:
        """Keep it running until cancelled. The process itself is left to `stop`."""
        loop = asyncio.get_running_loop()
        backoff = 0.0
        while True:
            started = loop.time()
            try:
                await self._start()
                await self._ended.wait()
            except OSError as error:
                _log.error("child %s cannot be started: %s", self.config.name, error)
            backoff = next_backoff(self.config, backoff, loop.time() - started)
            _log.warning("child %s starts again in %.1f s", self.config.name, backoff)
            await asyncio.sleep(backoff)

    def reload(self) -> None:
        """Pass SIGHUP on, where it is wanted."""
        if self.config.reload and self.process is not None:
            self.process.signal(signal.SIGHUP)

    async def stop(self, patience: float) -> None:
        """SIGTERM and, after `patience` seconds, SIGKILL; returns when it has ended."""
        if self.process is None:
            return
        self.process.signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._ended.wait(), patience)
        except TimeoutError:
            _log.warning("child %s killed: still there after %g s", self.config.name, patience)
            self.process.signal(signal.SIGKILL)
            await self._ended.wait()

    def close(self) -> None:
        """Give its addresses back."""
        for listening in self._listening.values():
            listening.close()

    async def _start(self) -> None:
        self._ended.clear()
        env = dict(self.config.env)
        descriptors = []
        for variable, listening in self._listening.items():
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
        _log.warning("child %s ended: %s", self.config.name, cause_of(status))
        self.process = None
        self._ended.set()
