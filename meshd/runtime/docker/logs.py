"""The output of a container as lines. Used by `DockerRuntime.logs` and `follow`."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import cast

from meshd.runtime.base import ReplicaNotFound
from meshd.runtime.docker.engine import CONNECT_TIMEOUT, Engine

LINE_CHARACTERS = 8 * 1024
"""Characters; a longer line is returned in pieces."""


async def tail(engine: Engine, name: str, count: int) -> Sequence[str]:
    """Return the last `count` lines, oldest first. Raises ReplicaNotFound."""
    async with engine.request(errors={404: _missing(name)}) as docker:
        container = await docker.containers.get(name)
        pieces = await container.log(stdout=True, stderr=True, tail=count)
    return "".join(pieces).splitlines()


async def follow(engine: Engine, name: str, past: bool = False) -> AsyncIterator[str]:
    """Yield lines from now on until the container ends; with `past`, earlier lines first. Raises
    ReplicaNotFound, RuntimeUnavailable."""
    async with engine.request(CONNECT_TIMEOUT, {404: _missing(name)}) as docker:
        container = await docker.containers.get(name)
    rest = ""
    output = container.log(stdout=True, stderr=True, follow=True, tail="all" if past else 0)
    pieces = cast("AsyncGenerator[str, None]", output)
    async with engine.request(None, {404: _missing(name)}), aclosing(pieces):
        async for piece in pieces:
            *whole, rest = (rest + piece).split("\n")
            for line in whole:
                yield line.rstrip("\r")
            while len(rest) > LINE_CHARACTERS:
                yield rest[:LINE_CHARACTERS]
                rest = rest[LINE_CHARACTERS:]
    if rest:
        yield rest


def _missing(name: str) -> ReplicaNotFound:
    return ReplicaNotFound(f"no container {name} is on the engine")
