"""A TCP connection for which the proxy has no file descriptor waits, and no endpoint is blamed."""

import errno
import socket

import pytest

from proxy.tcp import sockets
from proxy.wire.snapshot import Endpoint
from tests.support.proxy_scene import on_uvloop
from tests.support.tcp_scene import ask, echo, tcp_scene


def test_a_connection_waits_for_a_file_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    connect, left = sockets.connect, 2

    def short(endpoint: Endpoint) -> socket.socket:
        nonlocal left
        left -= 1
        if left >= 0:
            raise OSError(errno.EMFILE, "Too many open files")
        return connect(endpoint)

    monkeypatch.setattr(sockets, "connect", short)

    @on_uvloop
    async def run() -> None:
        async with tcp_scene() as s:
            await s.serve(echo)
            client = await s.client()
            assert await ask(client, b"x") == b"x"
            assert s.plane.descriptors.shortages == 2
            assert s.plane.descriptors.to_endpoints == 1
            report = s.report()
            (endpoint,) = report.endpoints
            assert (report.failures, endpoint.failed) == ({}, 0)
            client.close()
            await s.sessions(0)
            assert s.plane.descriptors.to_endpoints == 0

    run()
