"""The output of a replica as lines, from whatever node it runs on.

The managers collect it from the node of the task. Used by `SwarmRuntime`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from itertools import chain
from typing import Any, Final

from aiodocker.multiplexed import multiplexed_result_list, multiplexed_result_stream

from meshd.model.output import OutputCursor, OutputLine, OutputQuery, TimedLines, select_lines
from meshd.runtime.base import ReplicaNotFound
from meshd.runtime.docker.engine import Engine
from meshd.runtime.docker.logs import left_out, parameters_of

PATIENCE: Final = 10.0
"""Seconds for the output of an ended or running task; a node that is gone does not send any."""
POLL: Final = 0.5
"""Seconds of silence after which it is checked whether a task that is followed has ended."""


class TaskLogs:
    """Reads output. `is_terminal` returns whether a replica has a terminal, whose output has no
    frames, and raises ReplicaNotFound; `has_ended` whether it has ended or was removed."""

    def __init__(
        self,
        engine: Engine,
        is_terminal: Callable[[str], Awaitable[bool]],
        has_ended: Callable[[str], Awaitable[bool]],
    ) -> None:
        self._engine = engine
        self._is_terminal = is_terminal
        self._has_ended = has_ended

    async def tail(self, name: str, count: int) -> Sequence[str]:
        """Return the last lines, oldest first. Raises ReplicaNotFound."""
        return "".join(await self._read(name, tail=count)).splitlines()

    async def timed_tail(self, name: str, query: OutputQuery) -> Sequence[OutputLine]:
        """Return the lines that are asked for, oldest first. Swarm knows no end of a period, so
        that one is cut here. Raises ReplicaNotFound."""
        limits: dict[str, Any] = {"tail": query.tail}
        if query.until or query.since:
            limits["tail"] = "all"
        lines = TimedLines()
        pieces = await self._read(name, timestamps=1, **limits)
        found = [*chain.from_iterable(map(lines.feed, pieces)), *lines.end()]
        return select_lines(found, query)

    async def follow(self, name: str, query: OutputQuery) -> AsyncIterator[OutputLine]:
        """Yield the lines that are asked for, then new ones until the replica ends. Swarm does not
        end the stream with the task: it is over when the task has ended and nothing more arrives.
        Raises ReplicaNotFound, RuntimeUnavailable."""
        terminal = await self._is_terminal(name)
        params = {"stdout": 1, "stderr": 1, "follow": 1, **parameters_of(query)}
        lines, cursor = TimedLines(), OutputCursor()
        async with (
            self._engine.request(None, {404: _missing(name)}) as docker,
            docker._query(f"services/{name}/logs", params=params) as response,
        ):
            pieces = aiter(multiplexed_result_stream(response, is_tty=terminal))  # type: ignore[no-untyped-call]
            waiting: asyncio.Task[str | None] | None = None
            ended = False
            try:
                while True:
                    waiting = waiting or asyncio.ensure_future(anext(pieces, None))
                    done, _ = await asyncio.wait((waiting,), timeout=POLL)
                    if not done:
                        if ended:
                            break
                        ended = await self._has_ended(name)
                        continue
                    piece, waiting = waiting.result(), None
                    if piece is None:
                        break
                    for line in lines.feed(piece):
                        cursor = cursor.after(line)
                        yield line
            finally:
                if waiting is not None:
                    waiting.cancel()
                response.close()
        for line in lines.end():
            cursor = cursor.after(line)
            yield line
        for line in await left_out(cursor, lambda query: self.timed_tail(name, query)):
            yield line

    async def _read(self, name: str, **params: Any) -> Sequence[str]:
        terminal = await self._is_terminal(name)
        wanted = {"stdout": 1, "stderr": 1, **params}
        async with (
            self._engine.request(PATIENCE, {404: _missing(name)}) as docker,
            docker._query(f"services/{name}/logs", params=wanted) as response,
        ):
            return await multiplexed_result_list(response, is_tty=terminal)  # type: ignore[no-any-return, no-untyped-call]


def _missing(name: str) -> ReplicaNotFound:
    return ReplicaNotFound(f"no service {name} is in the Swarm")
