"""Opens sockets to endpoints, and makes transports of them; has a socket end by a reset.

`proxy.request.connection_pool`, `proxy.peer` and `proxy.tcp` use it.
"""

import asyncio
import socket
import struct
from collections.abc import Sequence
from typing import Any, Final

import uvloop

from proxy.transport.silence import notice_silence

ATTEMPT_DELAY: Final = 0.25
"""Seconds before the next address of a host is tried as well: the Connection Attempt Delay that
RFC 8305 recommends."""
RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER with zero seconds: closing the socket sends a reset."""


def reset_on_close(sock: socket.SocketType) -> None:
    """Have the close of a socket send a reset."""
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


async def connect_first(
    loop: asyncio.AbstractEventLoop, hosts: Sequence[str], port: int, *, remote: bool = False
) -> tuple[str, socket.socket]:
    """Connect to the first of several IP addresses that accepts (RFC 8305); return it with the
    socket. `remote`: it is on another machine, which may be lost.

    The next address is tried when the one before has failed, or after `ATTEMPT_DELAY`. Raises the
    last OSError if none accepts.
    """
    waiting = list(hosts)
    pending: set[asyncio.Task[tuple[str, socket.socket]]] = set()
    error = OSError("no address")
    try:
        while waiting or pending:
            if waiting:
                pending.add(asyncio.ensure_future(_connect(loop, waiting.pop(0), port, remote)))
            done, pending = await asyncio.wait(
                pending,
                timeout=ATTEMPT_DELAY if waiting else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in done:
                failure = task.exception()
                if failure is None:
                    pending |= done - {task}
                    return task.result()
                if not isinstance(failure, OSError):
                    raise failure
                error = failure
        raise error
    finally:
        for task in pending:
            task.add_done_callback(_close_unused)
            task.cancel()


def _close_unused(task: "asyncio.Task[tuple[str, socket.socket]]") -> None:
    """Close the connection of an attempt that another one was faster than."""
    if not task.cancelled() and task.exception() is None:
        task.result()[1].close()


async def _connect(
    loop: asyncio.AbstractEventLoop, host: str, port: int, remote: bool
) -> tuple[str, socket.socket]:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    if remote:
        notice_silence(sock)
    await connect_socket(loop, sock, (host, port))
    return host, sock


async def connect_socket(
    loop: asyncio.AbstractEventLoop, sock: socket.socket, where: str | tuple[str, int]
) -> None:
    """Connect a socket; close it if that fails."""
    try:
        sock.setblocking(False)
        await loop.sock_connect(sock, where)
    except BaseException:
        sock.close()
        raise


def send_first(sock: socket.SocketType, data: bytes) -> None:
    """Send the first bytes of a connection; close the socket if that fails. Raises OSError. A new
    connection takes far more bytes at once than a header has."""
    try:
        sock.send(data)
    except BaseException:
        sock.close()
        raise


async def hand_over(
    loop: asyncio.AbstractEventLoop, sock: socket.socket, protocol: asyncio.Protocol, **tls: Any
) -> None:
    """Make a transport of a connected socket. It owns the descriptor from then on. `tls`: the
    arguments of `loop.create_connection` about TLS."""
    ended = True
    try:
        transport, _ = await loop.create_connection(lambda: protocol, sock=sock, **tls)
        ended = transport.is_closing()
    finally:
        if ended and isinstance(loop, uvloop.Loop):
            # A connection that ends before uvloop has returned it leaves the socket object open
            # after its descriptor was closed. The object would close the number once more when it
            # is collected: by then it may be another connection's.
            sock.detach()
