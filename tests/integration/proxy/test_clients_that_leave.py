"""Clients that leave before their response: every request has its line in the access log, and is
counted."""

import json
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from proxy.http2.codec import ErrorCode
from proxy.observe.access_log import AccessLog
from proxy.wire.filters import Filters, ForwardAuth
from proxy.wire.snapshot import Fault, Limits, Service
from tests.support.http2 import NO_LIMIT, Http2Client, http2_client, http2_scene
from tests.support.proxy_policies import route
from tests.support.proxy_scene import Client, Scene, Visit, on_uvloop, service
from tests.support.waiting import wait_until

PATHS = [f"/{number}" for number in range(3)]
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n"
HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"
GONE = (499, "client-gone")
GOAWAY, CONTINUATION = 7, 9
HEADERS, END_HEADERS = 1, 4


async def silent(visit: Visit) -> None:
    await visit.wait_closed()


def sends(data: bytes) -> Callable[[Visit], Any]:
    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.send(data)
        await visit.wait_closed()

    return script


async def parked(s: Scene) -> Callable[[], bool]:
    s.install(Service("shop", "1"))
    (state,) = s.plane.services.values()
    return lambda: len(state.waiting) == len(PATHS)


async def queued(s: Scene) -> Callable[[], bool]:
    origin = await s.origin(silent)
    s.install(service(origin, limits=Limits(service_in_flight=1)))
    (state,) = s.plane.services.values()
    return lambda: len(state.waiting) == len(PATHS) - 1


async def delayed(s: Scene) -> Callable[[], bool]:
    origin = await s.origin(silent)
    s.install(service(origin), routes=(route(fault=Fault(share=1.0, delay=60.0)),))
    (state,) = s.plane.services.values()
    return lambda: state.in_flight == len(PATHS)


async def asked_about(s: Scene) -> Callable[[], bool]:
    """Held by a filter of the route, before the service counts it."""
    origin, auth = await s.origin(silent), await s.origin(silent)
    filters = Filters(forward_auth=ForwardAuth("auth", timeout=2.0))
    s.install(service(origin), service(auth, name="auth"), routes=(route(filters=filters),))
    return lambda: len(auth.visits) == len(PATHS)


async def unanswered(s: Scene) -> Callable[[], bool]:
    (origin,) = await s.serve(silent)
    return lambda: len(origin.visits) == len(PATHS)


async def half_answered(s: Scene) -> Callable[[], bool]:
    await s.serve(sends(HALF))
    return lambda: answering(s) == len(PATHS)


async def streamed(s: Scene) -> Callable[[], bool]:
    await s.serve(sends(STREAM))
    return lambda: answering(s) == len(PATHS)


def answering(s: Scene) -> int:
    """Return the number of requests whose response has begun."""
    return sum(c.exchange is not None and bool(c.exchange.first_byte_at) for c in s.plane.clients)


MOMENTS = {
    each.__name__: each
    for each in (parked, queued, delayed, asked_about, unanswered, half_answered, streamed)
}


async def check(s: Scene, log: AccessLog, expected: dict[str, tuple[int, str]]) -> None:
    """Check the lines of all requests by path, and that each is counted once."""
    await wait_until(lambda: not s.plane.clients, 5)
    lines = [json.loads(line) for line in log.take().decode().splitlines()]
    lines = [each for each in lines if each.get("service") != "auth"]
    seen = {each["target"]: (each["status"], each.get("failure", "")) for each in lines}
    assert len(lines) == len(expected)
    assert seen == expected
    report = s.plane.report(0, 1)
    failures = sum(sum(each.failures.values()) for each in report.services if each.name == "shop")
    assert failures + sum(report.refused.values()) == len(expected)


@asynccontextmanager
async def logged_scene() -> AsyncIterator[tuple[Scene, AccessLog]]:
    log = AccessLog("json", 1.0)
    async with http2_scene({"access_log": log}) as s:
        yield s, log


def reset_by_tcp(client: Http2Client | Client) -> None:
    """Close a connection so that the peer gets a reset."""
    found = client.writer.get_extra_info("socket")
    found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.writer.transport.abort()


@pytest.mark.parametrize("departure", ["stream reset", "GOAWAY", "FIN", "TCP reset"])
@pytest.mark.parametrize("body", [False, True], ids=["no body", "half of a body"])
@pytest.mark.parametrize("moment", MOMENTS)
@on_uvloop
async def test_requests_of_http2(moment: str, body: bool, departure: str) -> None:
    async with logged_scene() as (s, log):
        reached = await MOMENTS[moment](s)
        async with http2_client(s) as client:
            for path in PATHS:
                stream = await client.request(
                    b"POST", path.encode(), body=b"half" if body else None, complete=not body
                )
            await wait_until(reached, 5)
            if departure == "stream reset":
                for stream in client.answers:
                    client.codec.reset(stream, ErrorCode.CANCEL)
                await client.flush()
                await wait_until(lambda: s.plane.streams_in_flight == 0, 5)
            elif departure == "GOAWAY":
                client.codec.terminate(ErrorCode.NO_ERROR)
                await client.flush()
            elif departure == "FIN":
                client.writer.close()
            else:
                reset_by_tcp(client)
        await check(s, log, dict.fromkeys(PATHS, GONE))


@pytest.mark.parametrize("departure", ["FIN", "TCP reset"])
@pytest.mark.parametrize("body", [False, True], ids=["no body", "half of a body"])
@pytest.mark.parametrize("moment", MOMENTS)
@on_uvloop
async def test_requests_of_http1(moment: str, body: bool, departure: str) -> None:
    async with logged_scene() as (s, log):
        reached = await MOMENTS[moment](s)
        framing = b"Content-Length: 8\r\n\r\nhalf" if body else b"Content-Length: 0\r\n\r\n"
        clients = [
            await s.ask(b"POST %b HTTP/1.1\r\nHost: shop.test\r\n%b" % (path.encode(), framing))
            for path in PATHS
        ]
        await wait_until(reached, 5)
        for client in clients:
            if departure == "FIN":
                client.close()
            else:
                reset_by_tcp(client)
        await check(s, log, dict.fromkeys(PATHS, GONE))


Sent = Callable[[Http2Client, str], bytes]


def cancelled(client: Http2Client, path: str, *fields: tuple[bytes, bytes]) -> bytes:
    """Return a request and its reset."""
    head = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"shop.test")]
    head.append((b":path", path.encode()))
    stream = client.codec.send_request([*head, *fields], complete=True)
    data = client.codec.output(NO_LIMIT)
    client.codec.reset(stream, ErrorCode.CANCEL)
    return data + client.codec.output(NO_LIMIT)


@on_uvloop
async def test_a_reset_in_the_same_read_as_its_request() -> None:
    async with logged_scene() as (s, log):
        await s.serve(silent)
        async with http2_client(s) as client:
            await client.until(lambda: bool(client.codec.peer_settings()))
            await client.send(b"".join(cancelled(client, path) for path in PATHS))
        await check(s, log, dict.fromkeys(PATHS, GONE))


@on_uvloop
async def test_a_reset_behind_a_request_that_the_codec_refuses() -> None:
    """The client's error code must not hide why the stream ended."""
    async with logged_scene() as (s, log):
        await s.serve(silent)
        async with http2_client(s) as client:
            await client.until(lambda: bool(client.codec.peer_settings()))
            await client.send(cancelled(client, "/", (b"connection", b"close")))
            await wait_until(lambda: log.pending_bytes, 5)
        (line,) = [json.loads(each) for each in log.take().decode().splitlines()]
        assert (line["status"], line["failure"]) == (400, "bad-request")
        assert s.plane.report(0, 1).refused == {"bad-request": 1}


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack("!HBBBL", 0, len(payload), kind, flags, stream) + payload


BREAKS = {
    "by the codec": (frame(GOAWAY, 0, 1, bytes(8)), GONE),
    "by the guard": (frame(0, 0, 1), GONE),
    "by a flood": (
        frame(HEADERS, 0, 99, b"\x82") + frame(CONTINUATION, 0, 99, b"\x84") * 100,
        (400, "bad-request"),
    ),
}
"""Bytes that end the connection, and the lines of the requests before them."""


@pytest.mark.parametrize("name", BREAKS)
@on_uvloop
async def test_requests_in_the_same_read_as_an_error_of_the_connection(name: str) -> None:
    last, outcome = BREAKS[name]
    async with logged_scene() as (s, log):
        await s.serve(silent)
        async with http2_client(s) as client:
            await client.until(lambda: bool(client.codec.peer_settings()))
            for path in PATHS:
                head = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", path.encode())]
                client.codec.send_request([*head, (b":authority", b"shop.test")], complete=True)
            await client.send(client.codec.output(NO_LIMIT) + last)
            await client.until_closed()
            assert [code for _, code in client.going] != [0]
        await check(s, log, {**dict.fromkeys(PATHS, outcome), "": (400, "bad-request")})
