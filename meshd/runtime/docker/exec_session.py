"""A command in a running container, with its input, output and exit code.

`meshd exec` uses it, directly with the engine: the daemon is not part of the session, which may
last for hours. Hooks of deployments use `meshd.runtime.docker.logs.execute` instead.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

from aiodocker.execs import Exec
from aiodocker.stream import Stream

from meshd.runtime.base import ReplicaNotFound, StartFailed
from meshd.runtime.docker.engine import Engine

STDERR: Final = 2
"""The number of standard error in the engine's stream."""
POLL_SECONDS: Final = 0.02
"""Seconds between two questions for the exit code; the engine knows it soon after the output has
ended."""


class ExecSession:
    """A command that runs. `read` until it returns None, then ask for `exit_code`."""

    def __init__(self, process: Exec, stream: Stream) -> None:
        self._process = process
        self._stream = stream

    async def read(self) -> tuple[int, bytes] | None:
        """Return the next output as (1 for standard output or 2 for standard error, bytes). None at
        the end. With a terminal all of it is standard output."""
        message = await self._stream.read_out()
        return None if message is None else (message.stream, message.data)

    async def write(self, data: bytes) -> None:
        """Send input."""
        await self._stream.write_in(data)

    def end_input(self) -> None:
        """Say that no more input comes. No effect on a connection with TLS, which cannot say so."""
        response = self._stream._resp  # aiodocker has no public method for it
        connection = response.connection if response is not None else None
        transport = connection.transport if connection is not None else None
        if transport is not None and transport.can_write_eof():
            transport.write_eof()

    async def resize(self, columns: int, lines: int) -> None:
        """Set the size of the terminal."""
        await self._process.resize(w=columns, h=lines)

    async def exit_code(self) -> int:
        """Return the exit code of the command; 126 or 127 if it could not be run."""
        while True:
            code = (await self._process.inspect())["ExitCode"]
            if code is not None:
                return int(code)
            await asyncio.sleep(POLL_SECONDS)


@contextlib.asynccontextmanager
async def run_in_container(
    engine: Engine,
    container: str,
    command: Sequence[str],
    *,
    terminal: bool,
    user: str = "",
    directory: str = "",
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[ExecSession]:
    """Run a command in a container and yield its session. `terminal` gives it a terminal.

    Raises ReplicaNotFound if the container does not run, StartFailed with the engine's own text,
    and RuntimeUnavailable.
    """
    absent = ReplicaNotFound(f"no container {container} runs on this engine")
    async with engine.request(None, {404: absent, 409: absent}, StartFailed) as docker:
        process = await docker.containers.container(container).exec(
            list(command),
            stdin=True,
            tty=terminal,
            user=user,
            workdir=directory or None,
            environment=dict(environment or {}),
        )
        async with process.start(detach=False) as stream:
            yield ExecSession(process, stream)
