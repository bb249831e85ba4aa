"""A local Unix socket that leads to a Docker Engine on a host behind SSH.

`meshd.runtime.swarm.setup.hosts` opens one for each `ssh://` address. Each connection runs
`docker system dial-stdio` there, as the Docker command line does; `ssh` finds its keys and settings
itself.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from meshd.runtime import child_process
from meshd.runtime.base import RuntimeUnavailable

CONNECT_SECONDS: Final = 10
"""Seconds for the connection of `ssh`."""
END_SECONDS: Final = 1.0
"""Seconds for `ssh` to end by itself once its input has ended. Killing it at that moment would
take its exit code from the event loop, which then prints a warning."""
BLOCK: Final = 65536
"""Bytes that are copied at once."""
MAX_SAID: Final = 2000
"""Bytes kept of what `ssh` says on standard error: the reason of a failure."""


def ssh_command(address: str) -> list[str]:
    """Return the command that connects to the engine at `ssh://[USER@]HOST[:PORT]`. Raises
    RuntimeUnavailable if the address is not valid."""
    try:
        parts = urlsplit(address)
        host, port, user = parts.hostname, parts.port, parts.username
    except ValueError:
        host = port = user = None
    words = (host or "-", user or "u")
    if parts.path.strip("/") or any(word.startswith("-") for word in words):
        raise RuntimeUnavailable(f"{address} is not valid; expected ssh://[USER@]HOST[:PORT]")
    options = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_SECONDS}"]
    if port is not None:
        options += ["-p", str(port)]
    return ["ssh", *options, f"{user}@{host}" if user else str(host), "docker system dial-stdio"]


class SshTunnel:
    """Connections to one engine. `said`: what `ssh` said last on standard error."""

    def __init__(self, address: str) -> None:
        self._command = ssh_command(address)
        self._ending: set[asyncio.Task[None]] = set()
        self.said = ""

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Path]:
        """Yield the path of the socket, for this user only."""
        connections: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(self._connect(reader, writer))
            connections.add(task)

            def end(ended: asyncio.Task[None]) -> None:
                connections.discard(ended)
                writer.close()  # also if it was cancelled before it began

            task.add_done_callback(end)

        with tempfile.TemporaryDirectory(prefix="meshd-ssh-") as folder:
            path = Path(folder, "engine.sock")
            server = await asyncio.start_unix_server(accept, path)
            try:
                yield path
            finally:
                server.close()
                for task in connections:
                    task.cancel()
                await asyncio.gather(*connections, return_exceptions=True)
                await asyncio.gather(*self._ending)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until either side ends it."""
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command, stdin=pipe, stdout=pipe, stderr=pipe
            )
        except OSError as error:
            self.said = f"ssh cannot be run: {error}"
            return
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        sending = asyncio.ensure_future(_copy(reader, process.stdin))
        complaint = asyncio.ensure_future(process.stderr.read(MAX_SAID))
        try:
            await _copy(process.stdout, writer)
            # Before the connection ends: the client that sees its end asks for the reason.
            self.said = (await complaint).decode(errors="replace").strip()
        finally:
            writer.close()
            process.stdin.close()
            for task in (sending, complaint):
                task.cancel()
            # A task, so that the end of the tunnel does not cancel it.
            ending = asyncio.ensure_future(_end(process, writer, sending, complaint))
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)


async def _end(
    process: asyncio.subprocess.Process,
    writer: asyncio.StreamWriter,
    *copying: asyncio.Future[Any],
) -> None:
    """Wait until a connection and its program have ended."""
    await asyncio.wait(copying)
    with contextlib.suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(END_SECONDS):
            await process.wait()
            await writer.wait_closed()
    writer.transport.abort()  # of a client that does not read
    await child_process.end(process)


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Copy bytes until their end."""
    with contextlib.suppress(ConnectionError):
        while data := await source.read(BLOCK):
            sink.write(data)
            await sink.drain()
        if sink.can_write_eof():
            sink.write_eof()
