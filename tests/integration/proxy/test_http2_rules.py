"""Transcripts of clients that break a rule of HTTP/2 or HPACK, section by section: the connection
or the stream ends with the right error code. They replace h2spec where that is not installed."""

import asyncio
from collections.abc import Iterator

import pytest

from proxy.http2.codec import ErrorCode
from tests.support.http2 import http2_scene
from tests.support.proxy_scene import Client, on_uvloop
from tests.support.waiting import BUSY

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY = range(8)
WINDOW_UPDATE, CONTINUATION, UNKNOWN = 8, 9, 0x42
ACK = END_STREAM = 1
END_HEADERS, PADDED = 4, 8
WHOLE = END_STREAM | END_HEADERS
RESERVED = 1 << 31
LARGEST_WINDOW = (1 << 31) - 1
PROTOCOL, FLOW, CLOSED = 1, 3, 5
SIZE, COMPRESSION = 6, 9
GET = b"\x82\x86\x84\x41\x01a"
"""GET / of the host `a`, in HPACK: three fields of the static table, and a literal."""
MARK = b"the mark"


def frame(kind: int, stream: int, flags: int = 0, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def fields(*lines: tuple[str, str]) -> bytes:
    """Return a field block of literals."""
    pairs = [(name.encode(), value.encode()) for name, value in lines]
    return b"".join(b"\0%c%b%c%b" % (len(n), n, len(v), v) for n, v in pairs)


def setting(number: int, value: int) -> bytes:
    return frame(SETTINGS, 0, 0, number.to_bytes(2) + value.to_bytes(4))


def number(value: int) -> bytes:
    return value.to_bytes(4)


def request(*lines: tuple[str, str], without: str = "") -> bytes:
    """Return a request with more fields at its end, and without one."""
    usual = {":method": "GET", ":scheme": "http", ":path": "/", ":authority": "a"}
    kept = [(name, value) for name, value in usual.items() if name != without]
    return frame(HEADERS, 1, WHOLE, fields(*kept, *lines))


OPEN = frame(HEADERS, 1, END_HEADERS, GET)
HALF_CLOSED = frame(HEADERS, 1, WHOLE, GET)
BEGUN = frame(HEADERS, 1, END_STREAM, GET[:2])

CONNECTIONS = {
    "4.2 a SETTINGS frame that is too large": (frame(SETTINGS, 0, 0, bytes(16386)), SIZE),
    "4.2 a HEADERS frame that is too large": (frame(HEADERS, 1, WHOLE, bytes(16385)), SIZE),
    "4.3 PRIORITY inside a field block": (BEGUN + frame(PRIORITY, 1, 0, bytes(5)), PROTOCOL),
    "4.3 HEADERS inside a field block": (BEGUN + frame(HEADERS, 3, WHOLE, GET), PROTOCOL),
    "4.3 an unknown frame inside a field block": (BEGUN + frame(UNKNOWN, 0), PROTOCOL),
    "4.3 another stream inside a field block": (BEGUN + frame(CONTINUATION, 3), PROTOCOL),
    "5.1 DATA on an idle stream": (frame(DATA, 1, END_STREAM, b"x"), PROTOCOL),
    "5.1 RST_STREAM on an idle stream": (frame(RST_STREAM, 1, 0, bytes(4)), PROTOCOL),
    "5.1 WINDOW_UPDATE on an idle stream": (frame(WINDOW_UPDATE, 1, 0, number(9)), PROTOCOL),
    "5.1 CONTINUATION on an idle stream": (frame(CONTINUATION, 1, END_HEADERS), PROTOCOL),
    "5.1 DATA behind the end": (HALF_CLOSED + frame(DATA, 1, 0, b"x"), CLOSED),
    "5.1 HEADERS behind the end": (HALF_CLOSED * 2, CLOSED),
    "5.1 CONTINUATION behind the end": (HALF_CLOSED + frame(CONTINUATION, 1, 4, GET), PROTOCOL),
    "5.1 HEADERS behind a reset": (OPEN + frame(RST_STREAM, 1, 0, number(8)) + OPEN, CLOSED),
    "5.1.1 an even stream": (frame(HEADERS, 2, WHOLE, GET), PROTOCOL),
    "5.1.1 a smaller stream": (frame(HEADERS, 5, WHOLE, GET) + HALF_CLOSED, PROTOCOL),
    "6.1 DATA on no stream": (OPEN + frame(DATA, 0, 0, b"x"), PROTOCOL),
    "6.1 too much padding": (OPEN + frame(DATA, 1, PADDED, b"\x09x"), PROTOCOL),
    "6.2 HEADERS on no stream": (frame(HEADERS, 0, WHOLE, GET), PROTOCOL),
    "6.2 too much padding": (frame(HEADERS, 1, WHOLE | PADDED, b"\x60" + GET), PROTOCOL),
    "6.3 PRIORITY on no stream": (frame(PRIORITY, 0, 0, bytes(5)), PROTOCOL),
    "6.4 RST_STREAM on no stream": (frame(RST_STREAM, 0, 0, bytes(4)), PROTOCOL),
    "6.4 the length of RST_STREAM": (OPEN + frame(RST_STREAM, 1, 0, bytes(3)), SIZE),
    "6.5 an acknowledgement with contents": (frame(SETTINGS, 0, ACK, bytes(6)), SIZE),
    "6.5 SETTINGS on a stream": (frame(SETTINGS, 1, 0, bytes(6)), PROTOCOL),
    "6.5 the length of SETTINGS": (frame(SETTINGS, 0, 0, bytes(3)), SIZE),
    "6.5.2 push that is neither on nor off": (setting(2, 2), PROTOCOL),
    "6.5.2 a window that is too large": (setting(4, LARGEST_WINDOW + 1), FLOW),
    "6.5.2 frames that are too small": (setting(5, (1 << 14) - 1), PROTOCOL),
    "6.5.2 frames that are too large": (setting(5, 1 << 24), PROTOCOL),
    "6.6 PUSH_PROMISE of a client": (OPEN + frame(PUSH_PROMISE, 1, 4, number(3) + GET), PROTOCOL),
    "6.7 PING on a stream": (frame(PING, 1, 0, bytes(8)), PROTOCOL),
    "6.7 the length of PING": (frame(PING, 0, 0, bytes(6)), SIZE),
    "6.8 GOAWAY on a stream": (frame(GOAWAY, 1, 0, bytes(8)), PROTOCOL),
    "6.9 an increment of 0": (frame(WINDOW_UPDATE, 0, 0, bytes(4)), PROTOCOL),
    "6.9 the length of WINDOW_UPDATE": (frame(WINDOW_UPDATE, 0, 0, bytes(3)), SIZE),
    "6.9.1 a window beyond the limit": (frame(WINDOW_UPDATE, 0, 0, number(LARGEST_WINDOW)), FLOW),
    "6.10 CONTINUATION behind the last": (OPEN + frame(CONTINUATION, 1, 4, GET), PROTOCOL),
    "6.10 CONTINUATION on no stream": (BEGUN + frame(CONTINUATION, 0, 4, GET[2:]), PROTOCOL),
    "HPACK 2.3.3 an index beyond the tables": (frame(HEADERS, 1, WHOLE, GET + b"\xff\0"), 9),
    "HPACK 5.2 padding of a string": (frame(HEADERS, 1, WHOLE, GET + b"\0\x81\0\0"), COMPRESSION),
    "HPACK 6.1 index 0": (frame(HEADERS, 1, WHOLE, GET + b"\x80"), COMPRESSION),
    "HPACK 6.3 a table that is too large": (frame(HEADERS, 1, WHOLE, b"\x3f\xe2\x1f" + GET), 9),
    "HPACK 4.2 a new size behind a field": (frame(HEADERS, 1, WHOLE, GET + b"\x20"), COMPRESSION),
}
"""Bytes behind the first SETTINGS, and the code with which the connection ends."""

STREAMS = {
    "8.2.1 a name in upper case": (request(("X-A", "1")), PROTOCOL),
    "8.2.1 a line end in a value": (request(("x-a", "1\r\nb: 2")), PROTOCOL),
    "8.2.2 a field of the connection": (request(("connection", "close")), PROTOCOL),
    "8.2.2 transfer-encoding": (request(("transfer-encoding", "chunked")), PROTOCOL),
    "8.2.2 te other than trailers": (request(("te", "trailers, deflate")), PROTOCOL),
    "8.3 an unknown pseudo-field": (request((":other", "1")), PROTOCOL),
    "8.3 a pseudo-field of responses": (request((":status", "200")), PROTOCOL),
    "8.3 a pseudo-field behind others": (
        request(("x-a", "1"), (":method", "GET"), without=":method"),
        PROTOCOL,
    ),
    "8.3.1 no method": (request(without=":method"), PROTOCOL),
    "8.3.1 no scheme": (request(without=":scheme"), PROTOCOL),
    "8.3.1 no path": (request(without=":path"), PROTOCOL),
    "8.3.1 an empty path": (request((":path", ""), without=":path"), PROTOCOL),
    "8.3.1 two methods": (request((":method", "GET")), PROTOCOL),
    "8.3.1 two schemes": (request((":scheme", "http")), PROTOCOL),
    "8.3.1 two paths": (request((":path", "/")), PROTOCOL),
    "8.1 more contents than announced": (
        frame(HEADERS, 1, END_HEADERS, GET + fields(("content-length", "1")))
        + frame(DATA, 1, END_STREAM, b"xx"),
        PROTOCOL,
    ),
    "8.1 less contents than announced": (
        frame(HEADERS, 1, END_HEADERS, GET + fields(("content-length", "3")))
        + frame(DATA, 1, END_STREAM, b"x"),
        PROTOCOL,
    ),
    "8.1 trailers that do not end the stream": (
        OPEN + frame(HEADERS, 1, END_HEADERS, fields(("x-a", "1"))),
        PROTOCOL,
    ),
    "8.1 a pseudo-field in trailers": (
        OPEN + frame(HEADERS, 1, WHOLE, fields((":method", "GET"))),
        PROTOCOL,
    ),
}
"""Bytes behind the first SETTINGS, and the code with which stream 1 alone ends."""

ACCEPTED = {
    "4.1 an unknown frame": frame(UNKNOWN, 0, 0xFF, bytes(9)),
    "4.1 unknown flags": frame(PING, 0, 0xFE, bytes(8)),
    "4.1 the reserved bit": frame(PING, RESERVED, 0, bytes(8)),
    "4.3 a field block in pieces": BEGUN + frame(CONTINUATION, 1, 0, GET[2:3])
    + frame(CONTINUATION, 1, END_HEADERS, GET[3:]),
    "5.1 PRIORITY on an idle stream": frame(PRIORITY, 1, 0, bytes(4) + b"\x0f"),
    "5.1 WINDOW_UPDATE behind the end": HALF_CLOSED + frame(WINDOW_UPDATE, 1, 0, number(9)),
    "5.1 a reset behind the end": HALF_CLOSED + frame(RST_STREAM, 1, 0, number(8)),
    "6.1 padding": OPEN + frame(DATA, 1, PADDED | END_STREAM, b"\x02x\0\0"),
    "6.2 padding": frame(HEADERS, 1, WHOLE | PADDED, b"\x02" + GET + bytes(2)),
    "6.5.2 an unknown setting": setting(0xFF, 1),
    "6.5.3 a window of nothing, and one of everything": setting(4, 0) + setting(4, LARGEST_WINDOW),
    "HPACK 4.2 a smaller table first": frame(HEADERS, 1, WHOLE, b"\x20" + GET),
}  # fmt: skip
"""Bytes behind the first SETTINGS with which nothing is wrong."""


def frames(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield type, flags, stream and payload of each whole frame."""
    while len(data) >= 9 and len(data) >= 9 + int.from_bytes(data[:3]):
        size = int.from_bytes(data[:3])
        yield data[3], data[4], int.from_bytes(data[5:9]), data[9 : 9 + size]
        data = data[9 + size :]


async def read_reaction(client: Client) -> tuple[dict[int, int], int]:
    """Read up to the answer to a PING with the mark, or the end; return the codes of resets by
    stream, and the code of the last GOAWAY; -1 for none."""
    data = b""
    async with asyncio.timeout(8 * BUSY):
        while True:
            seen = list(frames(data))
            marked = any((kind, payload) == (PING, MARK) for kind, _, _, payload in seen)
            piece = b"" if marked else await client.reader.read(65536)
            if not piece:
                break
            data += piece
    resets = {each[2]: int.from_bytes(each[3]) for each in seen if each[0] == RST_STREAM}
    ends = [int.from_bytes(each[3][4:8]) for each in seen if each[0] == GOAWAY]
    return resets, ends[-1] if ends else -1


async def react(data: bytes) -> tuple[dict[int, int], int]:
    """Return how a connection reacts to bytes behind its first SETTINGS."""
    async with http2_scene() as s:
        await s.serve(lambda visit: visit.wait_closed())
        client = await s.ask(PREFACE + frame(SETTINGS, 0) + data + frame(PING, 0, 0, MARK))
        found = await read_reaction(client)
        client.close()
        return found


@pytest.mark.parametrize("name", CONNECTIONS)
@on_uvloop
async def test_the_connection_ends(name: str) -> None:
    data, code = CONNECTIONS[name]
    assert (await react(data))[1] == code


@pytest.mark.parametrize("name", STREAMS)
@on_uvloop
async def test_the_stream_ends_alone(name: str) -> None:
    data, code = STREAMS[name]
    assert await react(data) == ({1: code}, -1)


@pytest.mark.parametrize("name", ACCEPTED)
@on_uvloop
async def test_nothing_ends(name: str) -> None:
    assert await react(ACCEPTED[name]) == ({}, -1)


@on_uvloop
async def test_the_first_frame_is_not_settings() -> None:
    """Section 3.4."""
    async with http2_scene() as s:
        await s.serve(lambda visit: visit.wait_closed())
        client = await s.ask(PREFACE + frame(PING, 0, 0, bytes(8)) + frame(SETTINGS, 0))
        assert (await read_reaction(client))[1] == ErrorCode.PROTOCOL_ERROR
        client.close()
