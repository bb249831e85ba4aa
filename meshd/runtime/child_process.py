"""The end of a program that this process runs for a while, such as `iptables` or a build.

`docker` and `swarm` use it where a program has to end with its caller, also with one that is
cancelled.
"""

import asyncio
import contextlib
from asyncio.subprocess import Process
from typing import Final

BLOCK: Final = 65536
"""Bytes that are read at once."""
PIPE_SECONDS: Final = 2.0
"""Seconds after the kill in which the pipes must end: another program that the killed one started
can hold them."""


async def end(process: Process, patience: float = 0.0) -> None:
    """End a program, and wait until it has ended and its pipes are closed.

    It is killed, or asked to end first, for `patience` seconds. What it still writes is dropped:
    `Process.wait` alone does not return as long as a pipe is full.
    """
    if process.stdin is not None:
        process.stdin.close()
    if process.returncode is None and patience:
        process.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await _wait(process)
    if process.returncode is None:
        process.kill()
    try:
        async with asyncio.timeout(PIPE_SECONDS):
            await _wait(process)
    except TimeoutError:
        process._transport.close()  # type: ignore[attr-defined]  # it has no public method for it


async def _wait(process: Process) -> None:
    await asyncio.gather(_drop(process.stdout), _drop(process.stderr))
    await process.wait()


async def _drop(source: asyncio.StreamReader | None) -> None:
    """Read to the end."""
    while source is not None and await source.read(BLOCK):
        pass
