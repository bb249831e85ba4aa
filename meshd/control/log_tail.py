"""The output of a service's replicas: the last lines, and new lines as they are written.

Used by the control facade. The runtime keeps the output; this module only reads it.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Final

import structlog

from meshd.control.lookup import Lookup
from meshd.model.replica_phase import ENDED
from meshd.runtime.base import ReplicaNotFound, Runtime, RuntimeFailure

_log = structlog.stdlib.get_logger(__name__)
REFRESH: Final = 0.2
"""Seconds after which `follow` looks for new replicas."""
BUFFERED_LINES: Final = 1000
"""Lines that wait for a slow client at most; then reading from the replicas pauses."""


class LogTail:
    """Reads the output of one service at a time. Lines are (replica, line)."""

    def __init__(self, runtime: Runtime, lookup: Lookup) -> None:
        self._runtime = runtime
        self._lookup = lookup

    async def logs(self, project: str, service: str, tail: int) -> Sequence[tuple[str, str]]:
        """See `Control.logs`."""
        lines: list[tuple[str, str]] = []
        for replica in self._lookup.replicas(project, service):
            try:
                found = await self._runtime.logs(replica.name, tail)
            except ReplicaNotFound:
                continue
            lines += [(replica.name, line) for line in found]
        return lines

    async def follow(self, project: str, service: str) -> AsyncIterator[tuple[str, str]]:
        """See `Control.follow`."""
        self._lookup.service(project, service)
        queue: asyncio.Queue[tuple[str, str]] = asyncio.Queue(BUFFERED_LINES)
        tasks: dict[str, asyncio.Task[None]] = {}
        try:
            while True:
                for replica in self._lookup.replicas(project, service):
                    if replica.name not in tasks and replica.listed and replica.phase not in ENDED:
                        tasks[replica.name] = asyncio.create_task(
                            self._follow_replica(replica.name, queue)
                        )
                line = None
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(REFRESH):
                        line = await queue.get()
                if line is not None:
                    yield line
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)

    async def _follow_replica(self, name: str, queue: asyncio.Queue[tuple[str, str]]) -> None:
        try:
            async with aclosing(self._runtime.follow(name)) as lines:  # type: ignore[type-var]
                async for line in lines:
                    await queue.put((name, line))
        except RuntimeFailure as error:
            _log.debug("log follow ended", replica=name, error=str(error))
