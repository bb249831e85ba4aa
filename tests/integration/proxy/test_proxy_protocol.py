"""PROXY headers: read from trusted load balancers before anything else, and sent to endpoints."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from meshd.discovery.probe import ProbeOpening, probe
from meshd.spec.model import HealthCheck
from proxy.transport.proxy_header import ProxiedAddress, build_header
from proxy.wire.snapshot import Endpoint, Listener, RateLimit, Retries, Service, UpstreamTls
from proxy.worker import proxy_header_reader
from proxy.worker.handover import Handover
from tests.support.certificate_authority import Authority, server_context
from tests.support.proxy_policies import route
from tests.support.proxy_scene import (
    OK,
    Client,
    Scene,
    Visit,
    answers,
    get,
    on_uvloop,
    post,
    scene,
)
from tests.support.tcp_scene import ask, echo, tcp_scene
from tests.support.tcp_server import start_server
from tests.support.waiting import wait_until

FROM = ProxiedAddress("203.0.113.9", 40000, "198.51.100.2", 443)


@asynccontextmanager
async def behind_balancer(
    networks: tuple[str, ...] = ("127.0.0.0/8",), plane: dict[str, Any] | None = None
) -> AsyncIterator[Scene]:
    """A scene whose listener expects PROXY headers from `networks`."""
    async with scene(plane) as s:
        listener = Listener("127.0.0.1:0", proxy_protocol=networks)
        await s.hand_over(Handover(s.plane, s.attachments), listener)
        yield s


async def note_head(visit: Visit) -> None:
    while True:
        head = await visit.head()
        await visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(head), head))


@pytest.mark.parametrize("version", ["v1", "v2"])
@on_uvloop
async def test_the_client_is_the_one_in_the_header(version: str) -> None:
    async with behind_balancer() as s:
        await s.serve(note_head)
        header = build_header(version, FROM)
        # Both in one packet, and each byte in its own.
        client = await s.ask(header + get())
        _, _, body = await client.response()
        assert b"X-Forwarded-For: 203.0.113.9\r\n" in body
        await client.send(get())
        assert b"X-Forwarded-For: 203.0.113.9\r\n" in (await client.response())[2]
        slow = await s.client()
        slow.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in header + get():
            await slow.send(bytes([byte]))
        assert b"X-Forwarded-For: 203.0.113.9\r\n" in (await slow.response())[2]


@on_uvloop
async def test_a_drain_waits_for_a_header_that_is_due() -> None:
    async with behind_balancer() as s:
        await s.serve(note_head)
        room = s.plane.room_for_clients()
        client = await s.client()
        await wait_until(lambda: s.plane.room_for_clients() == room - 1, 10, "accepted")
        s.plane.start_drain(20.0)
        assert s.plane.active() == 1
        await client.send(build_header("v1", FROM) + get())
        assert (await client.response())[0] == 200
        await wait_until(lambda: not s.plane.active(), 10, "drained")


@on_uvloop
async def test_it_counts_for_rate_limits() -> None:
    async with behind_balancer() as s:
        (origin,) = await s.serve(answers(OK))
        s.install(
            Service("shop", "2", (Endpoint("shop-0", "127.0.0.1", origin.port),)),
            routes=(route(rate_limit=RateLimit(0.001, 1)),),
        )
        for host, status in (("203.0.113.1", 200), ("203.0.113.2", 200), ("203.0.113.1", 429)):
            header = build_header("v2", ProxiedAddress(host, 1, "127.0.0.1", 1))
            client = await s.ask(header + get())
            assert (await client.response())[0] == status


@on_uvloop
async def test_a_header_without_an_address_leaves_the_own_one() -> None:
    async with behind_balancer() as s:
        await s.serve(note_head)
        for version in ("v1", "v2"):
            client = await s.ask(build_header(version) + get())
            assert b"X-Forwarded-For: 127.0.0.1\r\n" in (await client.response())[2]


@on_uvloop
async def test_from_other_networks_there_is_no_header() -> None:
    async with behind_balancer(("10.0.0.0/8",)) as s:
        await s.serve(note_head)
        client = await s.ask(get())
        assert b"X-Forwarded-For: 127.0.0.1\r\n" in (await client.response())[2]
        client = await s.ask(build_header("v1", FROM) + get())
        assert (await client.response())[0] == 400


@pytest.mark.parametrize(
    "sent",
    [get(), b"PROXY TCP4 a b 1 2\r\n" + get(), b"\r\n\r\n\x00\r\nQUIT\n\x99" + b"\x00" * 20],
)
@on_uvloop
async def test_a_missing_or_bad_header_ends_the_connection(sent: bytes) -> None:
    lines: list[str] = []
    async with behind_balancer(plane={"on_problem": lines.append}) as s:
        (origin,) = await s.serve(answers(OK))
        client = await s.ask(sent)
        with pytest.raises(ConnectionResetError):
            await client.rest()
        assert lines[0].startswith(
            "127.0.0.1:0: a connection from 127.0.0.1 has no PROXY header: it"
        )
        assert dict(s.plane.report(0.0, 1.0).refused) == {"proxy-header": 1}
        assert origin.visits == []


@on_uvloop
async def test_a_header_that_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy_header_reader, "HEADER_SECONDS", 0.05)
    lines: list[str] = []
    async with behind_balancer(plane={"on_problem": lines.append}) as s:
        await s.serve(answers(OK))
        for sent in (b"", b"PROXY TCP4 "):
            client = await s.ask(sent)
            with pytest.raises(ConnectionResetError):
                await client.rest()
        assert "none arrived in time" in lines[0]


# --- to endpoints


async def read_header(visit: Visit) -> bytes:
    """Read a header of version 1."""
    line = await visit.reader.readline()
    assert line.startswith(b"PROXY ")
    return line


@on_uvloop
async def test_an_endpoint_sees_the_clients_address_and_port() -> None:
    seen = []

    async def script(visit: Visit) -> None:
        seen.append(await read_header(visit))
        while True:
            await visit.head()
            await visit.send(OK)

    async with scene() as s:
        await s.serve(script, proxy_protocol="v1")
        client = await s.client()
        port = client.writer.get_extra_info("sockname")[1]
        for _ in range(3):
            await client.send(get())
            assert (await client.response())[0] == 200
        assert seen == [b"PROXY TCP4 127.0.0.1 127.0.0.1 %d %d\r\n" % (port, s.port)]


@on_uvloop
async def test_each_client_has_its_own_connections() -> None:
    async def script(visit: Visit) -> None:
        header = await read_header(visit)
        while True:
            await visit.head()
            await visit.send(
                b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(header), header)
            )

    async with scene() as s:
        (origin,) = await s.serve(script, proxy_protocol="v1")
        clients = [await s.client() for _ in range(4)]

        async def ask(client: Client) -> None:
            port = b" %d " % client.writer.get_extra_info("sockname")[1]
            await client.send(get())
            assert port in (await client.response())[2]

        for _ in range(3):
            for client in clients:
                await ask(client)
            await asyncio.gather(*map(ask, clients))
        assert len(origin.visits) == 4, "a connection each, used again"
        # The connection of a client that has gone ends with it.
        clients.pop().close()
        (state,) = s.plane.services["shop"].endpoints.values()
        await wait_until(lambda: state.connections == 3, 5, "closed")


@on_uvloop
async def test_the_header_comes_before_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    context = server_context(authority.issue("orders.test"))
    seen = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The line is read from the socket byte by byte, so that TLS begins behind it.
        transport = writer.transport
        seen.append(await reader.readexactly(28))
        transport.pause_reading()
        tls = await asyncio.get_running_loop().start_tls(
            transport, transport.get_protocol(), context, server_side=True
        )
        assert tls is not None
        tls.write(OK)

    server = await start_server(serve)
    port = server.port
    async with scene() as s:
        tls = UpstreamTls(ca=authority.ca, server_name="orders.test")
        endpoints = (Endpoint("shop-0", "127.0.0.1", port),)
        s.install(Service("shop", "1", endpoints, tls=tls, proxy_protocol="v2"))
        client = await s.ask(get())
        assert (await client.response())[0] == 200
        own = client.writer.get_extra_info("sockname")[1]
        assert seen == [build_header("v2", ProxiedAddress("127.0.0.1", own, "127.0.0.1", s.port))]
    await server.close()


@on_uvloop
async def test_a_retry_sends_the_header_again() -> None:
    seen = []

    async def script(visit: Visit) -> None:
        seen.append(await read_header(visit))
        await visit.head()
        if len(seen) > 1:
            await visit.send(OK)

    async with scene() as s:
        await s.serve(script, script, proxy_protocol="v1", retries=Retries(attempts=1))
        client = await s.ask(get())
        assert (await client.response())[0] == 200
        assert len(seen) == 2
        assert seen[0] == seen[1]


@on_uvloop
async def test_a_post_uses_the_connection_of_its_client() -> None:
    async def script(visit: Visit) -> None:
        await read_header(visit)
        while True:
            await visit.head()
            await visit.read(2)
            await visit.send(OK)

    async with scene() as s:
        (origin,) = await s.serve(script, proxy_protocol="v1")
        client = await s.client()
        for _ in range(3):
            await client.send(post(b"ab"))
            assert (await client.response())[0] == 200
        assert len(origin.visits) == 1


@on_uvloop
async def test_tcp_connections_have_headers_too() -> None:
    """One is read from a load balancer, and passed on to the endpoint in front of the bytes."""
    seen = []

    async def script(visit: Visit) -> None:
        seen.append(await read_header(visit))
        await echo(visit)

    async with tcp_scene() as s:
        await s.serve(script, proxy_protocol="v1")
        client = await s.client()
        assert await ask(client, b"hello") == b"hello"
        port = client.writer.get_extra_info("sockname")[1]
        assert seen.pop() == b"PROXY TCP4 127.0.0.1 127.0.0.1 %d %d\r\n" % (port, s.port)

        listener = Listener(
            "127.0.0.1:0", kind="published", service="db", proxy_protocol=("127.0.0.1",)
        )
        await s.hand_over(Handover(s.plane, s.attachments, s.tcp.start), listener)
        port = s.port
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        behind = Client(reader, writer)
        await behind.send(build_header("v2", FROM))
        assert await ask(behind, b"hello") == b"hello"
        assert seen == [b"PROXY TCP4 203.0.113.9 127.0.0.1 40000 %d\r\n" % port]
        (session,) = [each for each in s.plane.clients if each.source == "203.0.113.9"]
        assert session.address == b"203.0.113.9"
        behind.close()


async def test_probes_send_a_header_too() -> None:
    heads = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readline())
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 204 Fine\r\n\r\n")
        writer.close()

    server = await start_server(serve)
    port = server.port
    opening = ProbeOpening(proxy_protocol="v1")
    assert await probe("127.0.0.1", port, HealthCheck(timeout=5), "", opening) is None
    assert heads == [b"PROXY UNKNOWN\r\n"]
    await server.close()
