"""The output of replicas, as far as it is kept and as it comes."""

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
LOOK: Final = 0.2
"""Seconds after which new replicas are looked for."""
LINES_BEHIND: Final = 1000


class LogTail:
    """Reads for one service at a time; lines are (replica, line)."""

    def __init__(self, runtime: Runtime, names: Lookup) -> None:
        self._runtime = runtime
        self._names = names

    async def logs(self, project: str, service: str, tail: int) -> Sequence[tuple[str, str]]:
        """See `Control.logs`."""
        lines: list[tuple[str, str]] = []
        for replica in self._names.replicas(project, service):
            try:
                told = await self._runtime.logs(replica.name, tail)
            except ReplicaNotFound:
                continue
            lines += [(replica.name, line) for line in told]
        return lines

    async def follow(self, project: str, service: str) -> AsyncIterator[tuple[str, str]]:
        """See `Control.follow`."""
        self._names.service(project, service)
        queue: asyncio.Queue[tuple[str, str]] = asyncio.Queue(LINES_BEHIND)
        tasks: dict[str, asyncio.Task[None]] = {}
        try:
            while True:
                for replica in self._names.replicas(project, service):
                    if replica.name not in tasks and replica.listed and replica.phase not in ENDED:
                        tasks[replica.name] = asyncio.create_task(
                            self._follow_one(replica.name, queue)
                        )
                line = None
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK):
                        line = await queue.get()
                if line is not None:
                    yield line
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)

    async def _follow_one(self, name: str, queue: asyncio.Queue[tuple[str, str]]) -> None:
        try:
            async with aclosing(self._runtime.follow(name)) as lines:  # type: ignore[type-var]
                async for line in lines:
                    await queue.put((name, line))
        except RuntimeFailure as error:
            _log.debug("following ended", replica=name, error=str(error))
