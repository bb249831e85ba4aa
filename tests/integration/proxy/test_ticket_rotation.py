"""TLS sessions through a running supervisor with two workers, while the ticket keys change."""

import asyncio
import socket
import ssl
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from proxy.ipc.config import SupervisorConfig
from proxy.wire.snapshot import CertificateFiles, Listener, ListenerTls
from tests.processes.supervised import snapshot, supervised
from tests.processes.traffic import origin
from tests.support.certificate_authority import Authority
from tests.support.waiting import wait_until

SECONDS = 1.5
"""Time between two rotations: long for a few handshakes, short for a test."""
TRIES = 6
"""Sessions that are tried: the machine may stand still for a whole interval."""
ENOUGH = 8
"""Handshakes that two workers share: one gets all of them in 1 of 128 cases."""


class Connected(NamedTuple):
    """The outcome of one connection: its session, whether it resumed the one that was given, and
    the time before and after."""

    session: ssl.SSLSession
    resumed: bool
    begun: float
    done: float


class Sessions:
    """Connects to a server with and without sessions."""

    def __init__(self, tls: ssl.SSLContext, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.address = host, int(port)
        self.tls = tls

    def _connect(self, session: ssl.SSLSession | None) -> Connected:
        begun = time.monotonic()
        with (
            socket.create_connection(self.address, 30) as plain,
            self.tls.wrap_socket(plain, server_hostname="localhost", session=session) as client,
        ):
            # A ticket of TLS 1.3 arrives with the response.
            client.sendall(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
            assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
            made, resumed = client.session, bool(client.session_reused)
        assert made is not None
        return Connected(made, resumed, begun, time.monotonic())

    async def new(self) -> Connected:
        return await asyncio.to_thread(self._connect, None)

    async def resume(self, made: Connected) -> Connected:
        return await asyncio.to_thread(self._connect, made.session)


@pytest.mark.parametrize(
    "version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda each: each.name
)
async def test_sessions_outlive_one_rotation_and_not_two(
    tmp_path: Path, version: ssl.TLSVersion
) -> None:
    authority = Authority(tmp_path)
    issued = authority.issue("localhost")
    tls = authority.client_context()
    tls.minimum_version = tls.maximum_version = version
    files = ListenerTls(certificates=(CertificateFiles(issued.cert, issued.key),))
    async with origin() as behind:
        config = SupervisorConfig(
            listen=("127.0.0.1:0",),
            listeners=(Listener("127.0.0.1:0", tls=files),),
            workers=2,
            snapshot=snapshot(1, behind.port),
            announce=True,
            ticket_seconds=SECONDS,
        )
        with supervised(tmp_path, config) as running:
            sessions = Sessions(tls, await running.listening())
            for _ in range(TRIES):
                if await outlives_one(sessions) >= ENOUGH:
                    break
            else:
                pytest.fail("no session was used often enough between two rotations")


async def outlives_one(sessions: Sessions) -> int:
    """Use a session until it is refused by both workers. Return how often it was resumed after
    its first rotation."""
    made = await sessions.new()
    assert not made.resumed
    after, refused = 0, 0

    async def use() -> bool:
        nonlocal after, refused
        again = await sessions.resume(made)
        if again.resumed:
            # Its secret was current when it was made, and was kept for at most two intervals.
            assert not refused or again.begun < made.done + 3 * SECONDS
            refused = 0
            if again.begun > made.done + SECONDS:
                after += 1
        else:
            # It was current, or the one before, for one interval at least. A worker may make
            # tickets with the one before for a moment.
            assert again.done > made.begun + 0.5 * SECONDS
            refused += 1
        return refused >= ENOUGH

    await wait_until(use, 60, "refused by both workers")
    fresh = await sessions.new()
    assert (await sessions.resume(fresh)).resumed or time.monotonic() > fresh.begun + SECONDS
    return after
