"""Compression of responses, on real sockets."""

import asyncio
import gzip
import sys
import zlib
from typing import Any

import pytest

from proxy.http1.chunked import ChunkedReader
from proxy.wire.filters import Compression, Cors, Filters
from proxy.wire.snapshot import HeaderEdit
from tests.support.http2 import http2_client, http2_scene
from tests.support.proxy_policies import route
from tests.support.proxy_scene import Client, Visit, answers, get, on_uvloop, scene, service

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

TEXT = b"<p>All work and no play makes a dull page.</p>\n" * 200
RULES = Compression(types=("text/*", "application/json"), min_size=100)


def compressed(**more: Any) -> Any:
    return route(filters=Filters(compression=RULES), **more)


def response(body: bytes = TEXT, *lines: str, media_type: str = "text/html") -> bytes:
    more = "".join(f"{line}\r\n" for line in (f"Content-Type: {media_type}", *lines))
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body


def chunked(*pieces: bytes, trailers: bytes = b"", media_type: str = "text/html") -> bytes:
    head = f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: {media_type}\r\n\r\n"
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return head.encode() + body + b"0\r\n" + trailers + b"\r\n"


def unpack(body: bytes, coding: str | None) -> bytes:
    if coding == "zstd":
        return bytes(zstd.decompress(body))
    return gzip.decompress(body) if coding == "gzip" else body


def field(head: bytes, name: str) -> str | None:
    """Return the only value of a field; None without one."""
    found = [
        line.partition(b":")[2].strip().decode()
        for line in head.split(b"\r\n")
        if line.lower().startswith(name.encode() + b":")
    ]
    assert len(found) <= 1, found
    return found[0] if found else None


async def read_response(client: Client) -> tuple[bytes, bytes]:
    """Read a response with a length or in chunks; return head and body."""
    head = await client.head()
    if b"transfer-encoding: chunked" in head.lower():
        reader, body = ChunkedReader(raw=False), b""
        while not reader.done:
            body += reader.feed(await asyncio.wait_for(client.reader.read(1 << 16), 30))
        return head, body
    return head, await client.exactly(int(field(head, "content-length") or "0"))


@pytest.mark.parametrize(
    ("accept", "coding"),
    [
        ("gzip", "gzip"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("zstd;q=0.5, gzip;q=0.8", "gzip"),
        ("*", "zstd"),
        ("*;q=0.1, zstd;q=0", "gzip"),
        ("GZIP", "gzip"),
        ("identity", None),
        ("gzip;q=0", None),
        ("gzip;q=x", None),
        ("br", None),
        ("", None),
    ],
)
@on_uvloop
async def test_the_coding_is_the_one_that_the_client_likes_best(
    accept: str, coding: str | None
) -> None:
    async with scene() as s:
        origin = await s.origin(answers(response(TEXT, 'ETag: "1"', "Accept-Ranges: bytes")))
        s.install(service(origin), routes=(compressed(),))
        client = await s.client()
        for _ in range(2):
            await client.send(get("/", f"Accept-Encoding: {accept}"))
            head, body = await read_response(client)
            assert field(head, "content-encoding") == coding
            assert unpack(body, coding) == TEXT
            assert field(head, "vary") == "Accept-Encoding"
            assert field(head, "etag") == ('W/"1"' if coding else '"1"')
            assert (field(head, "accept-ranges") is None) == (coding is not None)
            assert coding is None or len(body) < len(TEXT) / 5


@pytest.mark.parametrize(
    "answer",
    [
        response(TEXT, media_type="image/png"),
        response(TEXT, "Content-Encoding: br"),
        response(TEXT, "Cache-Control: public, No-Transform"),
        response(TEXT, "Content-Range: bytes 0-1/2"),
        response(TEXT, "Repr-Digest: sha-256=:AA==:"),
        response(b"short"),
        response(bytes(range(256)).translate(None, b"\r\n"), media_type="text/x"),
    ],
)
@on_uvloop
async def test_responses_that_are_not_compressed(answer: bytes) -> None:
    async with scene() as s:
        origin = await s.origin(answers(answer))
        s.install(service(origin), routes=(compressed(),))
        head, body = await read_response(await s.ask(get("/", "Accept-Encoding: gzip, zstd")))
        assert body == answer.partition(b"\r\n\r\n")[2]
        assert field(head, "content-encoding") in (None, "br")


@on_uvloop
async def test_head_http10_and_empty_responses_keep_their_form() -> None:
    async with scene() as s:
        bodyless = b"HTTP/1.1 304 Not Modified\r\nContent-Type: text/html\r\n\r\n"
        long = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 9400\r\n\r\n"
        origin = await s.origin(answers(bodyless, long))
        s.install(service(origin), routes=(compressed(),))
        client = await s.ask(get("/", "Accept-Encoding: gzip"))
        assert b"Content-Encoding" not in await client.head()
        await client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n")
        head = await client.head()
        assert field(head, "content-length") == "9400"
        assert field(head, "vary") == "Accept-Encoding"
        old = await s.origin(answers(response()))
        s.install(service(old), routes=(compressed(),))
        client = await s.ask(get("/", "Accept-Encoding: gzip", version="1.0"))
        assert (await read_response(client))[1] == TEXT


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
@on_uvloop
async def test_large_bodies_in_pieces(coding: str) -> None:
    """With a length, in chunks and until the end of the connection."""
    large = b"".join(b"line %d\n" % number for number in range(100_000))
    pieces = [large[at : at + 10_000] for at in range(0, len(large), 10_000)]

    async def until_close(visit: Visit) -> None:
        await visit.head()
        await visit.send(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n" + large)

    for script in (
        answers(response(large)),
        answers(chunked(*pieces, trailers=b"X-Sum: 1\r\n")),
        until_close,
    ):
        async with scene() as s:
            origin = await s.origin(script)
            s.install(service(origin), routes=(compressed(),))
            client = await s.client()
            for _ in range(2):
                await client.send(get("/", f"Accept-Encoding: {coding}"))
                head, body = await read_response(client)
                assert field(head, "content-length") is None
                assert unpack(body, coding) == large


@pytest.mark.parametrize("media_type", ["text/event-stream", "application/json"])
@on_uvloop
async def test_parts_of_a_stream_arrive_one_by_one(media_type: str) -> None:
    event = b'data: {"n": 1}\n\n'
    more = asyncio.Event()

    async def script(visit: Visit) -> None:
        await visit.head()
        whole = chunked(event, media_type=media_type)
        await visit.send(whole.removesuffix(b"0\r\n\r\n"))
        await more.wait()
        await visit.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(event), event))

    async with scene() as s:
        origin = await s.origin(script)
        s.install(service(origin), routes=(compressed(),))
        client = await s.ask(get("/", "Accept-Encoding: gzip"))
        assert field(await client.head(), "content-encoding") == "gzip"
        reader, unpacker, seen = ChunkedReader(raw=False), zlib.decompressobj(31), b""
        while seen != event:
            seen += unpacker.decompress(reader.feed(await client.exactly(1)))
        more.set()
        while not reader.done:
            seen += unpacker.decompress(reader.feed(await client.exactly(1)))
        assert seen == event * 2


@on_uvloop
async def test_a_broken_body_stays_broken() -> None:
    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.send(response(TEXT * 20)[: len(TEXT)])

    async with scene() as s:
        origin = await s.origin(script)
        s.install(service(origin), routes=(compressed(),))
        client = await s.ask(get("/", "Accept-Encoding: gzip"))
        await client.head()
        rest = await client.rest()
        assert not rest.endswith(b"0\r\n\r\n")


@on_uvloop
async def test_other_filters_and_edits_apply_too() -> None:
    filters = Filters(compression=RULES, cors=Cors(("https://a.test",)))
    edits = HeaderEdit(set=(("X-Own", "1"),))
    async with scene() as s:
        origin = await s.origin(answers(response(TEXT, "Vary: Accept")))
        s.install(service(origin), routes=(route(filters=filters, response_headers=edits),))
        client = await s.ask(get("/", "Accept-Encoding: gzip", "Origin: https://a.test"))
        head, body = await read_response(client)
        assert gzip.decompress(body) == TEXT
        assert field(head, "x-own") == "1"
        assert field(head, "access-control-allow-origin") == "https://a.test"
        for line in (b"Vary: Accept", b"Vary: Origin", b"Vary: Accept-Encoding"):
            assert line + b"\r\n" in head


@on_uvloop
async def test_a_tunnel_passes_through() -> None:
    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.send(b"HTTP/1.1 101 Ok\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nhello")
        await visit.send(await visit.read(4))

    async with scene() as s:
        origin = await s.origin(script)
        s.install(service(origin), routes=(compressed(),))
        ask = get("/", "Connection: Upgrade", "Upgrade: echo", "Accept-Encoding: gzip")
        client = await s.ask(ask)
        assert b" 101 " in await client.head()
        assert await client.exactly(5) == b"hello"
        await client.send(b"ping")
        assert await client.exactly(4) == b"ping"


@on_uvloop
async def test_compression_over_http2() -> None:
    async with http2_scene() as s:
        for answer in (response(), chunked(TEXT[:5000], TEXT[5000:], trailers=b"X-Sum: 1\r\n")):
            origin = await s.origin(answers(answer))
            s.install(service(origin), routes=(compressed(),))
            async with http2_client(s) as client:
                for coding in ("gzip", "zstd"):
                    wanted = [(b"accept-encoding", coding.encode())]
                    found = await client.get(b"/", fields=wanted)
                    assert found.status == 200
                    assert found.code == 0
                    if found.get(b"content-encoding") is not None:
                        assert found.get(b"content-encoding") == coding.encode()
                        assert unpack(bytes(found.body), coding) == TEXT
                    else:
                        assert found.trailers == [(b"x-sum", b"1")], "it came whole, with trailers"
                        assert bytes(found.body) == TEXT


@on_uvloop
async def test_the_service_learns_when_a_request_arrived() -> None:
    async with scene() as s:
        origin = await s.origin(answers(response(b"ok")))
        for trusted, expected in (((), None), (("127.0.0.1",), b"t=1")):
            s.install(
                service(origin),
                routes=(route(filters=Filters(request_start=True)),),
                trusted_proxies=trusted,
            )
            client = await s.ask(get("/", "X-Request-Start: t=1"))
            await read_response(client)
            lines = origin.visits[-1].raw.split(b"\r\n")
            origin.visits[-1].raw = b""
            (line,) = [each for each in lines if each.lower().startswith(b"x-request-start:")]
            value = line.partition(b": ")[2]
            if expected is not None:
                assert value == expected
            else:
                assert float(value.removeprefix(b"t=")) > 1.7e9
