"""The output of a service's replicas: the last lines, and new lines as they are written.

Used by the control facade. The runtime keeps the output, and `meshd.store.output_archive` that of
ended replicas; this module only reads it.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Final

import structlog

from meshd.control.lookup import Lookup
from meshd.model.errors import NotFound
from meshd.model.output import OutputLine, OutputQuery, ReplicaLine, select_lines
from meshd.model.replica_phase import ENDED
from meshd.runtime.base import ReplicaNotFound, Runtime, RuntimeFailure
from meshd.store.output_archive import OutputArchive

_log = structlog.stdlib.get_logger(__name__)
REFRESH: Final = 0.2
"""Seconds after which `follow` looks for new replicas."""
RETRY_FIRST, RETRY_LONGEST = 0.2, 5.0
"""Seconds until the output of a replica is followed again after a failure; doubled up to the
second."""
BUFFERED_LINES: Final = 1000
"""Lines that wait for a slow client at most; then reading from the replicas pauses."""


class LogTail:
    """Reads the output of one service at a time, and that of its ended replicas from `archive`."""

    def __init__(self, runtime: Runtime, lookup: Lookup, archive: OutputArchive) -> None:
        self._runtime = runtime
        self._lookup = lookup
        self._archive = archive

    async def logs(self, project: str, service: str, query: OutputQuery) -> Sequence[ReplicaLine]:
        """See `Control.logs`."""
        present = [replica.name for replica in self._lookup.replicas(project, service)]
        ended: dict[str, list[OutputLine]] = {}
        if query.previous:
            ended = dict(await asyncio.to_thread(self._archive.read, project, service))
        known = list(ended) if query.previous else present
        if query.replica and query.replica not in known:
            word = "ended replicas with kept output" if query.previous else "replicas"
            names = ", ".join(known) or "none"
            raise NotFound(f"no replica {query.replica!r}; {word} of {service}: {names}")
        lines: list[ReplicaLine] = []
        for name in [query.replica] if query.replica else known:
            try:
                found: Sequence[OutputLine] = (
                    select_lines(ended[name], query)
                    if query.previous
                    else await self._runtime.timed_logs(name, query)
                )
            except ReplicaNotFound:
                continue
            lines += [ReplicaLine(name, at, text) for at, text in found]
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
        """Put the lines of a replica into the queue, to their end or until it is gone. While the
        runtime does not answer, try again with growing pauses."""
        pause = RETRY_FIRST
        while True:
            try:
                async with aclosing(self._runtime.follow(name)) as lines:  # type: ignore[type-var]
                    async for line in lines:
                        pause = RETRY_FIRST
                        await queue.put((name, line))
                return
            except ReplicaNotFound:
                return
            except RuntimeFailure as error:
                _log.debug("output is not followed", replica=name, error=str(error), retry=pause)
            await asyncio.sleep(pause)
            pause = min(2.0 * pause, RETRY_LONGEST)
