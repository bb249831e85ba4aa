"""TLS to endpoints: verified, resumed, and refused with the reason."""

import asyncio
import contextlib
import socket
import ssl
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.wire.snapshot import Balance, Endpoint, Parking, Retries, Service, UpstreamTls
from tests.support.certificate_authority import Authority, server_context
from tests.support.proxy_policies import service_report
from tests.support.proxy_scene import OK, Visit, answers, get, named_ok, on_uvloop, post, scene
from tests.support.waiting import wait_until


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def trusting(authority: Authority, name: str = "orders.test", **more: Any) -> UpstreamTls:
    return UpstreamTls(ca=authority.ca, server_name=name, **more)


def report_problems(lines: list[str]) -> dict[str, Any]:
    return {"on_problem": lines.append}


async def check_requests(authority: Authority) -> None:
    tls = server_context(authority.issue("orders.test"))
    async with scene() as s:
        origins = await s.serve(answers(OK), server_tls=tls, tls=trusting(authority))
        client = await s.ask(get())
        assert (await client.response())[0] == 200
        body = b"x" * 300_000
        await client.send(post(body))
        assert (await client.response())[0] == 200
        assert len(origins[0].visits) == 1, "the connection is used again"


@on_uvloop
async def test_requests_over_tls(authority: Authority) -> None:
    await check_requests(authority)


async def test_requests_over_tls_on_the_event_loop_of_python(authority: Authority) -> None:
    await check_requests(authority)


@on_uvloop
async def test_many_connections_at_the_same_time(authority: Authority) -> None:
    """The session of a connection whose handshake is not complete cannot be resumed."""
    tls = server_context(authority.issue("orders.test"))
    async with scene() as s:
        await s.serve(answers(OK), server_tls=tls, tls=trusting(authority))
        clients = [await s.client() for _ in range(10)]
        await asyncio.gather(*(client.send(get()) for client in clients))
        for client in clients:
            assert (await client.response())[0] == 200


@on_uvloop
async def test_large_bodies_stream_in_both_directions(authority: Authority) -> None:
    size = 3_000_000

    async def echo(visit: Visit) -> None:
        await visit.head()
        body = await visit.read(size)
        await visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (size, body))

    tls = server_context(authority.issue("orders.test"))
    async with scene() as s:
        await s.serve(echo, server_tls=tls, tls=trusting(authority))
        body = uuid.uuid4().bytes * (size // 16)
        client = await s.client()
        sending = asyncio.ensure_future(client.send(post(body)))
        status, _, received = await client.response()
        await sending
        assert (status, received == body) == (200, True)


@pytest.mark.parametrize(
    ("name", "dates", "trusted", "said"),
    [
        ("orders.test", (0, 30), False, "its certificate is signed by an unknown CA"),
        ("other.test", (0, 30), True, "its certificate is not for orders.test"),
        ("orders.test", (-9, -2), True, "its certificate has expired"),
        ("orders.test", (2, 9), True, "its certificate is not valid yet"),
    ],
)
@on_uvloop
async def test_a_bad_certificate_is_refused_with_the_reason(
    tmp_path: Path,
    authority: Authority,
    name: str,
    dates: tuple[int, int],
    trusted: bool,
    said: str,
) -> None:
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other", "Other CA")
    tls = server_context(authority.issue(name, since=dates[0], until=dates[1]))
    lines: list[str] = []
    async with scene(report_problems(lines)) as s:
        origins = await s.serve(
            answers(OK), server_tls=tls, tls=trusting(authority if trusted else other)
        )
        client = await s.ask(get())
        status, _, body = await client.response()
        assert (status, b"no TLS connection to the origin" in body) == (502, True)
        assert lines == [f"shop: no TLS connection to shop-0: {said}"]
        assert dict(service_report(s).failures) == {"tls": 1}  # type: ignore[attr-defined]
        assert origins[0].visits == []


@on_uvloop
async def test_self_signed_and_not_tls_at_all(tmp_path: Path, authority: Authority) -> None:
    (tmp_path / "own").mkdir()
    own = Authority(tmp_path / "own", "orders.test")
    (tmp_path / "own" / "ca.key").write_bytes(own.private_key())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.ca, tmp_path / "own" / "ca.key")
    lines: list[str] = []
    async with scene(report_problems(lines)) as s:
        await s.serve(answers(OK), server_tls=context, tls=trusting(authority))
        assert (await (await s.ask(get())).response())[0] == 502
        assert "self-signed" in lines.pop()
    async with scene(report_problems(lines)) as s:
        await s.serve(bad_greeting, tls=trusting(authority))
        assert (await (await s.ask(get())).response())[0] == 502
        assert lines == ["shop: no TLS connection to shop-0: it does not speak TLS"]


async def bad_greeting(visit: Visit) -> None:
    await visit.reader.read(100)
    await visit.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    await visit.wait_closed()


@on_uvloop
async def test_another_endpoint_is_tried_and_the_bad_one_is_ejected(authority: Authority) -> None:
    good = server_context(authority.issue("orders.test"))
    bad = server_context(authority.issue("other.test"))
    ejected: list[tuple[Any, ...]] = []
    async with scene({"on_ejected": lambda *found: ejected.append(found)}) as s:
        a = await s.origin(answers(named_ok(b"a")), bad)
        b = await s.origin(answers(named_ok(b"b")), good)
        endpoints = tuple(
            Endpoint(id=f"shop-{n}", host="127.0.0.1", port=o.port) for n, o in enumerate((a, b))
        )
        balance = Balance("round-robin")
        s.install(Service("shop", "1", endpoints, balance=balance, tls=trusting(authority)))
        client = await s.client()
        for _ in range(30):
            await client.send(get())
            assert (await client.response())[2] == b"b"
        assert [found[1] for found in ejected] == ["shop-0"]
        assert "its certificate is not for orders.test" in ejected[0][3]


@on_uvloop
async def test_parking_does_not_wait_for_a_certificate_to_become_valid(
    authority: Authority,
) -> None:
    tls = server_context(authority.issue("other.test"))
    async with scene() as s:
        await s.serve(
            answers(OK),
            server_tls=tls,
            tls=trusting(authority),
            parking=Parking(timeout=20.0, on_refusal=True),
        )
        client = await s.ask(get())
        status, _, _ = await asyncio.wait_for(client.response(), 5)
        assert status == 502


@on_uvloop
async def test_insecure_accepts_any_certificate(authority: Authority) -> None:
    tls = server_context(authority.issue("other.test", until=30))
    async with scene() as s:
        await s.serve(answers(OK), server_tls=tls, tls=UpstreamTls(server_name="x", insecure=True))
        assert (await (await s.ask(get())).response())[0] == 200


@on_uvloop
async def test_an_address_as_the_name(authority: Authority) -> None:
    tls = server_context(authority.issue("orders.test", "127.0.0.1"))
    async with scene() as s:
        await s.serve(answers(OK), server_tls=tls, tls=trusting(authority, "127.0.0.1"))
        assert (await (await s.ask(get())).response())[0] == 200


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@on_uvloop
async def test_sessions_are_resumed(authority: Authority, version: ssl.TLSVersion) -> None:
    tls = server_context(authority.issue("orders.test"))
    tls.minimum_version = tls.maximum_version = version
    resumed = []

    async def note(visit: Visit) -> None:
        resumed.append(visit.writer.get_extra_info("ssl_object").session_reused)
        await visit.head()
        await visit.send(OK)

    async with scene() as s:
        # Connection: close of the origin's script makes each request a new connection.
        await s.serve(note, server_tls=tls, tls=trusting(authority), retries=Retries(attempts=0))
        for number in range(4):
            client = await s.ask(get("/", f"X-Number: {number}"))
            assert (await client.response())[0] == 200
            (state,) = s.plane.services["shop"].endpoints.values()
            await wait_until(lambda state=state: not state.idle, 5, "closed")
        assert resumed == [False, True, True, True]


@asynccontextmanager
async def refusing_server(context: ssl.SSLContext) -> AsyncIterator[int]:
    """Serve one connection with blocking calls, which send an alert when the handshake fails, as
    most servers do. Yield the port."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listening.accept()
        with connection, contextlib.suppress(ssl.SSLError):
            context.wrap_socket(connection, server_side=True)

    running = asyncio.ensure_future(asyncio.to_thread(serve))
    try:
        yield listening.getsockname()[1]
        await running
    finally:
        listening.close()


@on_uvloop
async def test_a_server_that_asks_for_a_client_certificate(
    tmp_path: Path, authority: Authority
) -> None:
    tls = server_context(authority.issue("orders.test"), client_ca=authority.ca)
    lines: list[str] = []
    own = authority.issue("proxy.test")
    async with scene(report_problems(lines)) as s:
        await s.serve(
            answers(OK),
            server_tls=tls,
            tls=trusting(authority, cert=own.cert, key=own.key),
        )
        assert (await (await s.ask(get())).response())[0] == 200
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other", "Other CA").issue("other.test")
    for cert, key in (("", ""), (other.cert, other.key)):
        async with scene(report_problems(lines)) as s, refusing_server(tls) as port:
            endpoints = (Endpoint(id="shop-0", host="127.0.0.1", port=port),)
            config = trusting(authority, cert=cert, key=key)
            s.install(Service("shop", "1", endpoints, tls=config))
            # A POST is not sent twice, but nothing was read of this one.
            assert (await (await s.ask(post(b"x"))).response())[0] == 502
            assert dict(service_report(s).failures) == {"tls": 1}  # type: ignore[attr-defined]
    assert lines == [
        "shop: no TLS connection to shop-0: it requires a client certificate",
        "shop: no TLS connection to shop-0: it does not trust the CA of the client certificate",
    ]


@on_uvloop
async def test_a_new_certificate_of_the_ca_is_read_without_a_restart(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.transport.upstream_tls.FILE_CHECK", 0.0)
    trusted = tmp_path / "trusted.pem"
    (tmp_path / "other").mkdir()
    trusted.write_text(Path(Authority(tmp_path / "other", "Other CA").ca).read_text())
    tls = server_context(authority.issue("orders.test"))
    async with scene() as s:
        config = UpstreamTls(ca=str(trusted), server_name="orders.test")
        await s.serve(answers(OK), server_tls=tls, tls=config)
        client = await s.ask(get())
        assert (await client.response())[0] == 502
        trusted.write_text(Path(authority.ca).read_text())
        await client.send(get())
        assert (await client.response())[0] == 200
        trusted.unlink()
        await client.send(get("/", "Connection: close"))
        assert (await client.response())[0] == 200, "a file that is gone changes nothing"


@on_uvloop
async def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    lines: list[str] = []
    async with scene(report_problems(lines)) as s:
        config = UpstreamTls(ca=str(tmp_path / "no.pem"), server_name="orders.test")
        await s.serve(answers(OK), tls=config)
        assert (await (await s.ask(get())).response())[0] == 502
        assert lines == [
            f"shop: no TLS connection to shop-0: {tmp_path}/no.pem cannot be read: No such file or "
            "directory"
        ]


@on_uvloop
async def test_other_settings_open_new_connections(authority: Authority) -> None:
    tls = server_context(authority.issue("orders.test"))
    async with scene() as s:
        (origin,) = await s.serve(answers(OK), server_tls=tls, tls=trusting(authority))
        client = await s.ask(get())
        assert (await client.response())[0] == 200
        endpoints = (Endpoint(id="shop-0", host="127.0.0.1", port=origin.port),)
        s.install(Service("shop", "2", endpoints, tls=trusting(authority, "no.test")))
        await client.send(get())
        assert (await client.response())[0] == 502


@on_uvloop
async def test_a_websocket_over_tls(authority: Authority) -> None:
    async def tunnel(visit: Visit) -> None:
        await visit.head()
        await visit.send(
            b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        assert await visit.read(4) == b"ping"
        await visit.send(b"pong")

    tls = server_context(authority.issue("orders.test"))
    async with scene() as s:
        await s.serve(tunnel, server_tls=tls, tls=trusting(authority))
        client = await s.ask(
            get(
                "/",
                "Connection: Upgrade",
                "Upgrade: websocket",
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
                "Sec-WebSocket-Version: 13",
            )
        )
        assert b" 101 " in await client.head()
        await client.send(b"ping")
        assert await client.exactly(4) == b"pong"
        assert await client.rest() == b""
