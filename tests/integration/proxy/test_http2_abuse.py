"""Floods over HTTP/2: the connection ends with the right error code, memory and CPU stay bounded,
and other clients notice nothing."""

import asyncio
import resource
import time

import pytest

from proxy.http2 import abuse
from proxy.http2.codec import Codec, ErrorCode
from tests.support.http2 import http2_client, http2_scene
from tests.support.proxy_scene import OK, Scene, Visit, answers, on_uvloop
from tests.support.waiting import BUSY, elapse, wait_until

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, _, PING, _, WINDOW_UPDATE, CONTINUATION = range(10)
ACK_OR_END = 1
END_HEADERS = 4
CALM = ErrorCode.ENHANCE_YOUR_CALM
GET = b"\x82\x86\x84\x41\x01a"
"""GET / of the host `a`, in HPACK: three fields of the static table, and a literal."""


def frame(kind: int, stream: int, flags: int = 0, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def request(stream: int, *, end: bool = True) -> bytes:
    return frame(HEADERS, stream, END_HEADERS | (ACK_OR_END if end else 0), GET)


def bomb() -> bytes:
    """A field of 4 KiB that is put into the table once, and then named a thousand times."""
    value = b"\x40\x01x\x7f\xa1\x1e" + bytes([97]) * 4000
    return frame(HEADERS, 1, END_HEADERS | ACK_OR_END, GET + value + b"\xbe" * 1000)


def continuations() -> bytes:
    """A header block without an end."""
    return frame(HEADERS, 1, 0, GET) + frame(CONTINUATION, 1, 0, b"") * 50_000


FLOODS: dict[str, tuple[bytes, int]] = {
    "rapid reset": (
        b"".join(
            request(stream) + frame(RST_STREAM, stream, 0, bytes(4)) for stream in range(1, 4001, 2)
        ),
        CALM,
    ),
    "continuation": (continuations(), CALM),
    "large continuation": (
        frame(HEADERS, 1, 0, GET) + frame(CONTINUATION, 1, 0, b"\x40\x01x\x01y" * 3000) * 40,
        CALM,
    ),
    "settings": (frame(SETTINGS, 0) * 20_000, CALM),
    "ping": (frame(PING, 0, 0, bytes(8)) * 20_000, CALM),
    "empty data": (request(1, end=False) + frame(DATA, 1) * 20_000, CALM),
    "padded data beyond the window": (
        request(1, end=False) + frame(DATA, 1, 8, b"\xff" + bytes(255)) * 20_000,
        ErrorCode.FLOW_CONTROL_ERROR,
    ),
    "window update": (
        request(1, end=False) + frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\1") * 20_000,
        CALM,
    ),
    "priority": (frame(PRIORITY, 1, 0, bytes(5)) * 20_000, CALM),
    "unknown frames": (frame(0x42, 0, 0, bytes(8)) * 20_000, CALM),
    "hpack bomb": (bomb(), CALM),
    "field list beyond the limit": (
        frame(HEADERS, 1, 0, GET)
        + b"".join(
            frame(CONTINUATION, 1, 0, b"\0\x01x\x7f\x81\x7c" + bytes([97]) * 16_000)
            for _ in range(12)
        )
        + frame(CONTINUATION, 1, END_HEADERS),
        CALM,
    ),
    "zero increment": (frame(WINDOW_UPDATE, 0, 0, bytes(4)), ErrorCode.PROTOCOL_ERROR),
    "too large frame": (frame(DATA, 1, 0, bytes(20_000)), ErrorCode.FRAME_SIZE_ERROR),
    "data without a stream": (frame(DATA, 1, 0, b"x"), ErrorCode.PROTOCOL_ERROR),
    "broken hpack": (frame(HEADERS, 1, END_HEADERS | ACK_OR_END, b"\xff" * 20), 9),
}


async def flood(at: Scene, data: bytes) -> int:
    """Send a flood until the connection ends; return the code of the last GOAWAY frame."""
    client = await at.ask(PREFACE + frame(SETTINGS, 0))
    received = bytearray()

    async def read() -> None:
        while piece := await client.reader.read(65536):
            received.extend(piece)

    async def send() -> None:
        for start in range(0, len(data), 65536):
            await client.send(data[start : start + 65536])

    results = await asyncio.wait_for(
        asyncio.gather(read(), send(), return_exceptions=True), 20 * BUSY
    )
    assert all(each is None or isinstance(each, ConnectionError) for each in results), results
    client.close()
    code, rest = -1, bytes(received)
    while len(rest) >= 9:
        size = int.from_bytes(rest[:3])
        if rest[3] == 7:
            code = int.from_bytes(rest[13:17])
        rest = rest[9 + size :]
    return code


@pytest.mark.parametrize("name", FLOODS)
@on_uvloop
async def test_a_flood_ends_its_connection(name: str) -> None:
    data, code = FLOODS[name]
    async with http2_scene() as s:
        await s.serve(lambda visit: visit.wait_closed())
        cpu = time.process_time()
        assert await flood(s, data) == code
        assert time.process_time() - cpu < 1.0 * BUSY
        await wait_until(lambda: not s.plane.clients)
        assert not s.plane.streams_in_flight


@on_uvloop
async def test_a_field_list_between_the_limits_gets_431() -> None:
    async with http2_scene() as s:
        await s.serve(answers(OK))
        async with http2_client(s) as client:
            large = [(b"x-%d" % number, b"v" * 16_000) for number in range(5)]
            assert (await client.get(fields=large)).status == 431
            many = [(b"x-%d" % number, b"v") for number in range(300)]
            assert (await client.get(fields=many)).status == 431
            assert (await client.get()).status == 200


@on_uvloop
async def test_what_clients_do_is_no_flood() -> None:
    async with http2_scene() as s:
        await s.serve(answers(OK))
        async with http2_client(s) as client:
            for number in range(3 * int(abuse.CONTROL_BURST)):
                await client.send(frame(PING, 0, 0, bytes(8)))
                if not number % 100:
                    stream = await client.request()
                    client.codec.reset(stream, ErrorCode.CANCEL)
                assert (await client.get()).status == 200
            assert not client.going


@on_uvloop
async def test_tiny_windows_hold_little_memory() -> None:
    size = 1024 * 1024

    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size // 65536):
            await visit.send(bytes(65536))

    async with http2_scene() as s:
        await s.serve(script)
        raw = await s.ask(PREFACE + frame(SETTINGS, 0, 0, b"\0\4\0\0\0\1"))
        await raw.send(b"".join(request(stream) for stream in range(1, 200, 2)))
        await wait_until(lambda: s.plane.streams_in_flight == 100)
        (connection,) = [each for each in s.plane.clients if each.exchange is None]
        codec: Codec = connection.codec  # type: ignore[attr-defined]
        await wait_until(lambda: codec.unsent_on_all() > 0)
        highest = 0
        for _ in range(25):
            highest = max(highest, codec.unsent_on_all())
            await elapse(0.02, "origins send what they can")
        assert highest < 100 * size // 2, "at most a read or two of each stream"
        async with http2_client(s) as other:
            assert len((await other.get()).body) == size


@on_uvloop
async def test_other_clients_notice_nothing_of_floods() -> None:
    async with http2_scene() as s:
        await s.serve(answers(OK))
        floods = [data for name, (data, _) in FLOODS.items() if name != "rapid reset"]
        done = asyncio.Event()

        async def attack() -> None:
            for _ in range(3):
                for data in floods:
                    await flood(s, data)
            done.set()

        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        attacker = asyncio.get_running_loop().create_task(attack())
        slowest = 0.0
        async with http2_client(s) as client:
            while not done.is_set():
                start = time.monotonic()
                assert (await client.get()).status == 200
                slowest = max(slowest, time.monotonic() - start)
                await elapse(0.001, "a client thinks")
        await attacker
        # The attacker and the client share this process with the proxy.
        assert slowest < 1.0 * BUSY
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < 64 * 1024, f"{grown} KiB"
