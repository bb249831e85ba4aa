"""WebSockets over HTTP/2 (RFC 8441) reach endpoints as an upgrade of HTTP/1.1."""

import pytest

from proxy.http2.codec import ErrorCode
from tests.support.http2 import Http2Client, http2_client, http2_scene
from tests.support.proxy_scene import OK, Visit, answers, on_uvloop
from tests.support.waiting import wait_until

SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: x\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
)
PROTOCOL = [(b":protocol", b"websocket")]
FIELDS = [(b"sec-websocket-version", b"13"), (b"sec-websocket-protocol", b"chat")]


async def connect(client: Http2Client) -> int:
    """Ask for a WebSocket; return its stream."""
    head = [
        (b":method", b"CONNECT"),
        *PROTOCOL,
        (b":scheme", b"http"),
        (b":path", b"/chat"),
        (b":authority", b"shop.test"),
        *FIELDS,
    ]
    await client.until(lambda: client.codec.peer_settings().get(8) == 1)
    stream = client.codec.send_request(head, complete=False)
    client.answers[stream] = type(client).new_answer()
    await client.flush()
    return stream


async def echo(visit: Visit) -> None:
    """Accept the WebSocket, and send back what arrives, until the end."""
    await visit.head()
    await visit.send(SWITCH)
    while data := await visit.reader.read(65536):
        visit.raw += data
        await visit.send(data)


@on_uvloop
async def test_bytes_pass_in_both_directions() -> None:
    async with http2_scene() as s:
        (origin,) = await s.serve(echo)
        async with http2_client(s) as client:
            stream = await connect(client)
            answer = client.answers[stream]
            await client.data(stream, b"early ")
            await client.until(lambda: bool(answer.fields))
            assert answer.fields[:2] == [(b":status", b"200"), (b"sec-websocket-protocol", b"chat")]
            assert answer.get(b"sec-websocket-accept") is None
            head = origin.visits[0].raw.partition(b"\r\n\r\n")[0]
            assert head.startswith(b"GET /chat HTTP/1.1\r\nhost: shop.test\r\n")
            assert b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" in head + b"\r\n"
            assert head.lower().count(b"sec-websocket-key: ") == 1
            for piece in (b"a" * 100_000, b"b" * 100_000):
                await client.data(stream, piece)
            await client.until(lambda: len(answer.body) == 200_006)
            assert answer.body == b"early " + b"a" * 100_000 + b"b" * 100_000
            await client.data(stream, b"", complete=True)
            assert (await client.answer(stream)).complete
            await wait_until(lambda: not s.plane.streams_in_flight)


@on_uvloop
async def test_the_end_of_the_origin_ends_the_stream() -> None:
    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.send(SWITCH + b"bye")

    async with http2_scene() as s:
        await s.serve(script)
        async with http2_client(s) as client:
            stream = await connect(client)
            answer = await client.answer(stream)
            assert (answer.status, answer.body, answer.complete) == (200, b"bye", True)


@on_uvloop
async def test_a_reset_reaches_the_origin() -> None:
    async with http2_scene() as s:
        (origin,) = await s.serve(echo)
        async with http2_client(s) as client:
            stream = await connect(client)
            await client.until(lambda: bool(client.answers[stream].fields))
            client.codec.reset(stream, ErrorCode.CANCEL)
            await client.flush()
            await wait_until(origin.visits[0].closed.is_set)
            await wait_until(lambda: not s.plane.streams_in_flight)


@pytest.mark.parametrize(("given", "status"), [(OK, 502), (OK.replace(b"200", b"403"), 403)])
@on_uvloop
async def test_an_origin_that_does_not_switch(given: bytes, status: int) -> None:
    async with http2_scene() as s:
        await s.serve(answers(given))
        async with http2_client(s) as client:
            answer = await client.answer(await connect(client))
            assert (answer.status, answer.complete) == (status, True)
            assert (await client.get()).status == int(given[9:12]), "the connection continues"


@on_uvloop
async def test_a_drain_says_goodbye_between_two_frames() -> None:
    async with http2_scene() as s:
        await s.serve(echo)
        async with http2_client(s) as client:
            stream = await connect(client)
            answer = client.answers[stream]
            await client.until(lambda: bool(answer.fields))
            s.plane.start_drain(0.1)
            s.plane.limit_tunnels(0.1)
            await client.until(lambda: answer.body == b"\x88\x02\x03\xe9")
            await client.data(stream, b"\x88\x80abcd", complete=True)
            await wait_until(lambda: not s.plane.active())
