"""The output of a container as lines, and commands in a running one with their output. Used by
`DockerRuntime.logs`, `follow` and `execute`."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from itertools import chain
from typing import Any, cast

from meshd.model.output import (
    ALL_LINES,
    CATCH_UP_LINES,
    OutputCursor,
    OutputLine,
    OutputQuery,
    TimedLines,
    UnreadLines,
)
from meshd.model.runtime import CommandResult
from meshd.runtime.base import ReplicaNotFound, StartFailed
from meshd.runtime.docker.engine import CONNECT_TIMEOUT, Engine
from meshd.spec.model import ContainerHook

LINE_CHARACTERS = 8 * 1024
"""Characters; a longer line is returned in pieces."""

LINES_KEPT = 20
"""Last lines of output that are returned: enough for the end of a stack trace."""
OUTPUT_KEPT = 16 * 1024
"""Characters of output that are kept for them."""
FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.5
"""Seconds between two questions whether a command whose output ended has ended too."""


async def tail(engine: Engine, name: str, count: int) -> Sequence[str]:
    """Return the last `count` lines, oldest first. Raises ReplicaNotFound."""
    async with engine.request(errors={404: _missing(name)}) as docker:
        container = await docker.containers.get(name)
        pieces = await container.log(stdout=True, stderr=True, tail=count)
    return "".join(pieces).splitlines()


async def timed_tail(engine: Engine, name: str, query: OutputQuery) -> Sequence[OutputLine]:
    """Return the lines that are asked for, oldest first. Raises ReplicaNotFound."""
    lines = TimedLines()
    async with engine.request(errors={404: _missing(name)}) as docker:
        container = await docker.containers.get(name)
        pieces = await container.log(stdout=True, stderr=True, **parameters_of(query))
    return [*chain.from_iterable(map(lines.feed, pieces)), *lines.end()]


async def follow(engine: Engine, name: str, query: OutputQuery) -> AsyncIterator[OutputLine]:
    """Yield the lines that are asked for, then new ones until the container ends. The engine joins
    both, but its stream can end before the last line: what it left out is read afterwards. Raises
    ReplicaNotFound, RuntimeUnavailable."""
    async with engine.request(CONNECT_TIMEOUT, {404: _missing(name)}) as docker:
        container = await docker.containers.get(name)
    lines, cursor = TimedLines(), OutputCursor()
    output = container.log(stdout=True, stderr=True, follow=True, **parameters_of(query))
    pieces = cast("AsyncGenerator[str, None]", output)
    async with engine.request(None, {404: _missing(name)}), aclosing(pieces):
        async for piece in pieces:
            for line in lines.feed(piece):
                cursor = cursor.after(line)
                yield line
    for line in lines.end():
        cursor = cursor.after(line)
        yield line
    for line in await left_out(cursor, lambda query: timed_tail(engine, name, query)):
        yield line


async def left_out(
    cursor: OutputCursor, read: Callable[[OutputQuery], Awaitable[Sequence[OutputLine]]]
) -> Sequence[OutputLine]:
    """Return the lines that a stream of the engine left out at its end; none if it sent nothing."""
    if not cursor.at:
        return ()
    unread = UnreadLines(cursor)
    kept = await read(OutputQuery(CATCH_UP_LINES, cursor.at))
    return [line for line in kept if unread.includes(line)]


def parameters_of(query: OutputQuery) -> dict[str, Any]:
    """Return the parameters of the engine's logs calls that ask for these lines, with times."""
    limits = {"since": query.since, "until": query.until}
    return {
        "timestamps": 1,
        "tail": "all" if query.tail >= ALL_LINES else query.tail,
        **{name: f"{at:.6f}" for name, at in limits.items() if at},
    }


async def execute(engine: Engine, name: str, hook: ContainerHook, seconds: float) -> CommandResult:
    """See `Runtime.execute`."""
    command = " ".join(hook.command)
    absent = ReplicaNotFound(f"container {name} does not run")
    try:
        async with (
            asyncio.timeout(seconds),
            engine.request(None, {404: absent, 409: absent}, StartFailed) as docker,
        ):
            process = await docker.containers.container(name).exec(
                list(hook.command),
                privileged=hook.privileged,
                user=hook.user,
                environment=hook.environment,
                workdir=hook.working_dir or None,
            )
            output: deque[str] = deque()
            length = 0
            async with process.start(detach=False) as stream:
                while (message := await stream.read_out()) is not None:
                    output.append(message.data.decode(errors="replace"))
                    length += len(output[-1])
                    while length > OUTPUT_KEPT and len(output) > 1:
                        length -= len(output.popleft())
            pause = FIRST_PAUSE
            while (code := (await process.inspect())["ExitCode"]) is None:
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
    except TimeoutError as error:
        raise StartFailed(f"{command!r} did not end within {seconds:g} s") from error
    return CommandResult(int(code), tuple("".join(output).splitlines()[-LINES_KEPT:]))


def _missing(name: str) -> ReplicaNotFound:
    return ReplicaNotFound(f"no container {name} is on the engine")
