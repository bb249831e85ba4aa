"""Too few file descriptors: who is connected is served, others wait, and no origin is blamed."""

import contextlib
import errno
import itertools
import re
import socket
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.request import connection_pool
from proxy.wire.snapshot import Limits
from tests.support.certificate_authority import Authority
from tests.support.ports import free_port
from tests.support.proxy_policies import service_report
from tests.support.proxy_scene import OK, answers, get, on_uvloop, post, scene
from tests.support.raw_http import Message, Origin, Proxy, Wire, hello
from tests.support.raw_http import get as raw_get
from tests.support.waiting import elapse_blocking, wait_until_blocking

LIMIT = 120


@pytest.fixture
def clients() -> Iterator[list[Wire]]:
    made: list[Wire] = []
    yield made
    for client in made:
        client.close()


def slow(wire: Wire) -> None:
    """Take a moment for each request, so that each needs a separate connection."""
    while True:
        wire.request()
        elapse_blocking(0.1, "the origin works")
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


def counted(admin: int, name: str, labels: str = "") -> float:
    """Return the sum of a metric."""
    with urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=60) as answer:
        text = answer.read().decode()
    pattern = rf"^{name}(?:_total)?{{.*{re.escape(labels)}.*}} (\S+)$"
    return sum(float(value) for value in re.findall(pattern, text, re.MULTILINE))


def test_clients_wait_and_connected_ones_are_served(
    clients: list[Wire], capfd: pytest.CaptureFixture[str]
) -> None:
    origin = Origin()
    origin.play(slow)
    admin = free_port()
    proxy = Proxy([origin.port], "--drain", "0s", "--admin", f"127.0.0.1:{admin}", files=LIMIT)
    try:
        clients += [proxy.connect() for _ in range(150)]
        elapse_blocking(0.3, "the proxy accepts as many as it may")
        for client in clients[:55]:
            client.send(raw_get())
        served: list[Message] = [client.response() for client in clients[:55]]
        assert {answer.status for answer in served} == {200}
        for client in clients[:55]:
            client.close()
        # Those that waited are accepted as the others leave.
        for client in clients[55:]:
            client.send(raw_get())
            assert client.response().status == 200
            client.close()
        wait_until_blocking(
            lambda: counted(admin, "meshd_descriptor_shortages", 'what="accept"') > 0,
            5, "the pause is counted", interval=0.2,
        )  # fmt: skip
        assert counted(admin, "meshd_ejections") == 0
        with proxy.connect() as late:
            late.send(raw_get())
            assert late.response().status == 200
    finally:
        proxy.stop()
        origin.close()
    logged = capfd.readouterr().err
    assert "the limit of open files is 120): accepting connections is paused" in logged


def test_tls_clients_wait_and_connected_ones_are_served(
    clients: list[Wire], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Clients whose handshake is not complete take descriptors too."""
    authority = Authority(tmp_path)
    authority.issue("localhost")
    context = authority.client_context()
    file = tmp_path / "front.yml"
    file.write_text(
        "tls: {cert: localhost.pem, key: localhost.key, handshakes_per_address: 0,"
        " handshake_timeout: 200s}\n"
    )
    origin = Origin()
    origin.play(hello)
    admin = free_port()
    flags = ("--drain", "0s", "--admin", f"127.0.0.1:{admin}", "--config", str(file))
    proxy = Proxy([origin.port], *flags, files=LIMIT)

    def encrypt(client: Wire) -> Wire:
        return Wire(context.wrap_socket(client.sock, server_hostname="localhost"))

    try:
        connected = [encrypt(proxy.connect()) for _ in range(5)]
        clients += connected
        waiting = [proxy.connect() for _ in range(150)]
        clients += waiting
        wait_until_blocking(
            lambda: counted(admin, "meshd_descriptor_shortages", 'what="accept"') > 0,
            5, "accepting is paused", interval=0.2,
        )  # fmt: skip
        for client in connected:
            client.send(raw_get())
            assert client.response().status == 200
            client.close()
        for client in waiting:
            encrypted = encrypt(client)
            encrypted.send(raw_get())
            assert encrypted.response().status == 200
            encrypted.close()
        assert counted(admin, "meshd_ejections") == 0
        wait_until_blocking(
            lambda: counted(admin, "meshd_tls_handshakes", 'outcome="complete"') == 155,
            5, "all handshakes are counted", interval=0.2,
        )  # fmt: skip
    finally:
        proxy.stop()
        origin.close()
    assert "accepting connections is paused" in capfd.readouterr().err


class Shortage:
    """Fails the next `left` connections for lack of a descriptor."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, left: int) -> None:
        self.left = left
        self._dial = connection_pool.dial
        monkeypatch.setattr(connection_pool, "dial", self._try)

    async def _try(self, *arguments: Any) -> None:
        """`arguments` are those of `connection_pool.dial`; the fifth one takes the error."""
        failed = arguments[4]
        if self.left > 0:
            self.left -= 1
            failed(OSError(errno.EMFILE, "Too many open files"))
        else:
            await self._dial(*arguments)


@pytest.mark.parametrize("request_bytes", [get(), post(b"hello")])
@on_uvloop
async def test_a_request_waits_for_a_descriptor(
    request_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[tuple[float, str]] = []
    note = {"on_problem": lambda text: lines.append((time.monotonic(), text))}
    async with scene(note) as s:
        await s.serve(answers(OK))
        Shortage(monkeypatch, 5)
        client = await s.ask(request_bytes)
        assert (await client.response())[0] == 200
        report = service_report(s)
        assert (report.retries, report.failures) == (0, {})
        assert [endpoint.failed for endpoint in report.endpoints] == [0]
        assert s.plane.descriptors.shortages == 5
        assert lines
        assert all("no file descriptor" in text for _, text in lines)
        times = [at for at, _ in lines]
        assert all(later - earlier > 0.9 for earlier, later in itertools.pairwise(times))


@on_uvloop
async def test_a_request_without_a_descriptor_is_503_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with scene() as s:
        await s.serve(answers(OK), limits=Limits(pending_timeout=0.2))
        Shortage(monkeypatch, 1000)
        client = await s.ask(get())
        status, head, body = await client.response()
        assert status == 503
        assert b"Retry-After: " in head
        assert b"file descriptor" in body
        assert service_report(s).failures == {"no-descriptor": 1}


@on_uvloop
async def test_an_idle_connection_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    async with scene() as s:
        await s.serve(answers(OK))
        clients = [await s.ask(get()) for _ in range(3)]
        for client in clients:
            assert (await client.response())[0] == 200
        state = s.plane.services["shop"].endpoints["shop-0"]
        idle = len(state.idle)
        oldest = state.idle[0]
        for upstream in state.idle:
            upstream.idle_since -= 10.0  # idle for too long to carry a POST
        Shortage(monkeypatch, 1)
        client = await s.ask(post(b"hello"))
        assert (await client.response())[0] == 200
        assert oldest.closing
        assert len(state.idle) == idle


def test_the_backlog_is_short_with_few_descriptors() -> None:
    """The kernel hands over all clients that wait at once, before the proxy can look."""
    origin = Origin()
    origin.play(hello)
    proxy = Proxy([origin.port], "--drain", "0s", files=LIMIT)
    made: list[socket.socket] = []
    try:
        for _ in range(300):
            sock = socket.socket()
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                sock.connect(("127.0.0.1", proxy.port))
            made.append(sock)
        elapse_blocking(0.3, "the proxy accepts as many as it may")
        closed = 0
        for sock in made:
            try:
                closed += sock.recv(1) == b""
            except OSError:
                continue
        assert closed == 0
    finally:
        for sock in made:
            sock.close()
        proxy.stop()
        origin.close()
