"""The descriptor of a connection to an endpoint has one owner."""

import asyncio
import socket
from typing import cast

import pytest

from proxy.transport.connect import hand_over
from tests.support.proxy_scene import on_uvloop


class Ended(asyncio.Protocol):
    """A protocol that ends its connection as soon as it has one."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).abort()


class Kept(asyncio.Protocol):
    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)


@on_uvloop
async def test_a_connection_that_ends_at_once_gives_up_its_descriptor() -> None:
    sock, peer = socket.socketpair()
    with peer:
        await hand_over(asyncio.get_running_loop(), sock, Ended())
        assert sock.fileno() == -1, "the number may be that of another connection"
        assert peer.recv(1) == b""


@on_uvloop
async def test_a_cancelled_connection_gives_up_its_descriptor() -> None:
    sock, peer = socket.socketpair()
    with peer:
        under_way = asyncio.ensure_future(
            hand_over(asyncio.get_running_loop(), sock, asyncio.Protocol())
        )
        await asyncio.sleep(0)
        under_way.cancel()
        with pytest.raises(asyncio.CancelledError):
            await under_way
        assert sock.fileno() == -1


@on_uvloop
async def test_a_connection_owns_its_descriptor_until_it_ends() -> None:
    sock, peer = socket.socketpair()
    with peer:
        protocol = Kept()
        await hand_over(asyncio.get_running_loop(), sock, protocol)
        assert sock.fileno() >= 0
        protocol.transport.write(b"x")
        assert peer.recv(1) == b"x"
        protocol.transport.abort()
        await asyncio.sleep(0)
        assert sock.fileno() == -1
