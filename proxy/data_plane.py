"""The request path of one worker, behind one small door: install snapshots, make protocols,
tell what is busy, report.

The worker process around it opens sockets, speaks to the supervisor and keeps time with it;
nothing outside this module touches connections or endpoint state.
"""

import asyncio
import time
from collections.abc import Callable

from proxy.wire.report import Report
from proxy.wire.snapshot import Generation, Listener, Snapshot


def _ignore_busy() -> None:
    """Nobody asked to be told."""


def _ignore_wake(service: str) -> None:
    """Nobody asked to be told."""


def _ignore_ejected(service: str, endpoint: str, until: float, cause: str) -> None:
    """Nobody asked to be told."""


class DataPlane:
    """Everything that one worker routes by and every connection that it holds.

    `worker` numbers the process in its reports. Callbacks may be assigned before `install`:
    `on_busy_changed()` each time a draining or vanished endpoint falls to zero in flight,
    `on_wake(service)` when the first request is parked for a service, and
    `on_ejected(service, endpoint, until, cause)` with `until` in Unix time.
    """

    def __init__(
        self,
        worker: int,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.worker = worker
        self.loop = loop
        self.clock = clock
        self.workers = 1
        self.on_busy_changed: Callable[[], None] = _ignore_busy
        self.on_wake: Callable[[str], None] = _ignore_wake
        self.on_ejected: Callable[[str, str, float, str], None] = _ignore_ejected
        self._sequence = 0
        self._generation = Generation()

    def install(self, snapshot: Snapshot) -> None:
        """Route by `snapshot` from the next request on; live endpoint state stays, by id."""
        self._generation = snapshot.generation

    def protocol_factory(self, listener: Listener) -> Callable[[], asyncio.Protocol]:
        """What to give to `loop.create_server` for the sockets of `listener`."""
        del listener
        return asyncio.Protocol

    def busy(self) -> tuple[str, ...]:
        """Ids of draining or vanished endpoints that still have requests or tunnels here."""
        return ()

    def active(self) -> int:
        """Client connections with a request or a tunnel under way."""
        return 0

    def report(self, start: float, end: float) -> Report:
        """Counts since the last call, over (`start`, `end`] in Unix time."""
        self._sequence += 1
        return Report(
            worker=self.worker,
            sequence=self._sequence,
            start=start,
            end=end,
            generation=self._generation,
        )

    def start_drain(self) -> None:
        """End keep-alive: answer with `Connection: close`, close idle client connections."""

    def close(self) -> None:
        """Break off every connection and stop the clock."""
