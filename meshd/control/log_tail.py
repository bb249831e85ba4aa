"""The output of a service's replicas: the last lines, and new lines as they are written.

Used by the control facade. The runtime keeps the output, and `meshd.store.output_archive` that of
ended replicas; this module only reads it.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Final

import structlog

from meshd.control.lookup import Lookup
from meshd.model.errors import NotFound
from meshd.model.output import (
    ALL_LINES,
    CATCH_UP_LINES,
    OutputCursor,
    OutputLine,
    OutputQuery,
    ReplicaLine,
    UnreadLines,
    select_lines,
)
from meshd.model.replica import Replica
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

    def __init__(
        self, runtime: Runtime, lookup: Lookup, archive: OutputArchive, clock: Callable[[], float]
    ) -> None:
        self._runtime = runtime
        self._lookup = lookup
        self._archive = archive
        self._clock = clock

    async def logs(self, project: str, service: str, query: OutputQuery) -> Sequence[ReplicaLine]:
        """See `Control.logs`."""
        present = [replica.name for replica in self._lookup.replicas(project, service)]
        ended: dict[str, list[OutputLine]] = {}
        if query.previous:
            ended = dict(await asyncio.to_thread(self._archive.read, project, service))
        known = list(ended) if query.previous else present
        _check_replica(service, query, known)
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

    def follow(self, project: str, service: str, query: OutputQuery) -> AsyncIterator[ReplicaLine]:
        """See `Control.follow`."""
        known = [replica.name for replica in self._lookup.replicas(project, service)]
        _check_replica(service, query, known)

        def present() -> dict[str, Replica] | None:
            try:
                replicas = self._lookup.replicas(project, service)
            except NotFound:
                return None
            return {each.name: each for each in replicas if query.replica in ("", each.name)}

        return _Follow(self._runtime, present, query, self._clock()).lines()


def _check_replica(service: str, query: OutputQuery, known: Sequence[str]) -> None:
    """Raise NotFound if a replica is asked for that is not known."""
    if query.replica and query.replica not in known:
        word = "ended replicas with kept output" if query.previous else "replicas"
        names = ", ".join(known) or "none"
        raise NotFound(f"no replica {query.replica!r}; {word} of {service}: {names}")


class _Follow:
    """Follows the replicas that `present` returns, None once their service was removed: of those
    that it finds first, or that were created before `began`, what `query` asks for, of later ones
    all lines."""

    def __init__(
        self,
        runtime: Runtime,
        present: Callable[[], Mapping[str, Replica] | None],
        query: OutputQuery,
        began: float,
    ) -> None:
        self._runtime = runtime
        self._present = present
        self._query = query
        self._began = began
        self._queue: asyncio.Queue[ReplicaLine] = asyncio.Queue(BUFFERED_LINES)
        self._cursors: dict[str, OutputCursor] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def lines(self) -> AsyncIterator[ReplicaLine]:
        """Yield lines until the service was removed and all of its output was read."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        try:
            while True:
                if loop.time() >= due:
                    is_removed = self._refresh()
                    if is_removed and not self._tasks and self._queue.empty():
                        return
                    due = loop.time() + REFRESH
                line = None
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(REFRESH):
                        line = await self._queue.get()
                if line is not None:
                    yield line
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _refresh(self) -> bool:
        """Begin to follow new replicas and those that run again, and forget those that are gone.
        Return whether the service was removed. Raises what ended a task."""
        found = self._present()
        replicas = found or {}
        for name, task in list(self._tasks.items()):
            if task.done():
                task.result()
                if name not in replicas:
                    del self._tasks[name]
                    self._cursors.pop(name, None)
        for replica in replicas.values():
            known = self._tasks.get(replica.name)
            is_due = known is None or (known.done() and replica.phase not in ENDED)
            if replica.listed and is_due:
                self._tasks[replica.name] = asyncio.create_task(self._follow(replica))
        return found is None

    async def _follow(self, replica: Replica) -> None:
        """Put the lines of a replica into the queue until it has ended. When the stream of the
        runtime ends earlier, because the runtime failed or the container was restarted, continue
        after the last line, with growing pauses."""
        name = replica.name
        pause = RETRY_FIRST
        while True:
            try:
                async with aclosing(self._unread(replica)) as lines:
                    async for line in lines:
                        pause = RETRY_FIRST
                        await self._queue.put(line)
            except ReplicaNotFound as error:
                _log.debug("output is not there", replica=name, error=str(error))
            except RuntimeFailure as error:
                _log.debug("output is not followed", replica=name, error=str(error), retry=pause)
            now = (self._present() or {}).get(name)
            if now is None or now.phase in ENDED:
                return
            await asyncio.sleep(pause)
            pause = min(2.0 * pause, RETRY_LONGEST)

    async def _unread(self, replica: Replica) -> AsyncGenerator[ReplicaLine]:
        """Yield the lines of a replica that were not yet read, to the end of the runtime's stream.
        Raises ReplicaNotFound, RuntimeFailure."""
        name = replica.name
        if name in self._cursors:
            query = OutputQuery(CATCH_UP_LINES, since=self._cursors[name].at or self._began)
        else:
            tail = ALL_LINES if replica.created_at > self._began else self._query.tail
            query = OutputQuery(tail, since=self._query.since)
        cursor = self._cursors.setdefault(name, OutputCursor())
        unread = UnreadLines(cursor)
        async with aclosing(self._runtime.follow(name, query)) as lines:  # type: ignore[type-var]
            async for line in lines:
                if unread.includes(line):
                    cursor = self._cursors[name] = cursor.after(line)
                    yield ReplicaLine(name, line.at, line.text)
