"""Every policy that `meshd proxy --config FILE` can set, checked on the wire."""

import asyncio
import json
import re
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import pytest

from tests.processes.supervised import Supervised
from tests.support.proxy_scene import (
    OK,
    Client,
    Origin,
    Script,
    Visit,
    answers,
    get,
    named_ok,
    post,
)
from tests.support.waiting import elapse, settled, wait_until


@asynccontextmanager
async def front(directory: Path, text: str, *origins: Origin) -> AsyncIterator[str]:
    """Run a proxy over these origins with this file; yield its address."""
    file = directory / "front.yml"
    to = ", ".join(f"127.0.0.1:{origin.port}" for origin in origins)
    file.write_text(f"listen: 127.0.0.1:0\nto: [{to}]\n{text}")
    argv = [sys.executable, "-m", "meshd.cli.main", "proxy", "--config", str(file)]
    running = Supervised(argv, directory / f"proxy-{len(list(directory.iterdir()))}.log")
    try:
        yield await running.listening()
    finally:
        running.close()


class Start(Protocol):
    """A function that starts an origin for each script."""

    async def __call__(self, *scripts: Script) -> list[Origin]: ...


@pytest.fixture
async def started() -> AsyncIterator[Start]:
    origins: list[Origin] = []

    async def start(*scripts: Script) -> list[Origin]:
        new = [await Origin(script).start() for script in scripts]
        origins.extend(new)
        return new

    yield start
    for origin in origins:
        origin.stop()
    await elapse(0.05, "the connections of the origins end")


async def connect(address: str) -> Client:
    host, _, port = address.rpartition(":")
    return Client(*await asyncio.open_connection(host, int(port)))


async def ask(address: str, request: bytes) -> tuple[int, bytes, bytes]:
    client = await connect(address)
    await client.send(request)
    try:
        return await client.response()
    finally:
        client.close()


ROUTES = """
x-mesh:
  routes:
    - {path: /, match: "header:X-Deny", redirect: "https://login.test{path}", redirect_status: 303}
    - {path: /, match: ["cookie:beta=1", "header:X-B"], replace: /beta}
    - {path: /strip, strip: true}
    - {path: /moved, redirect: "https://{host}/new{query}"}
    - path: /edit
      request_headers: {set: {Host: inner.test, X-A: new}, add: {X-B: b}, remove: cookie}
      response_headers: {set: {X-Frame-Options: DENY}, remove: [server]}
    - {path: /limited, rate_limit: {rate: 0.01, burst: 2, key: "header:X-Key"}}
    - {path: /broken, fault: {abort: 418}}
    - {path: /slow, fault: {delay: 200ms}}
    - /
    - {host: "*.test", path: /only/here}
  trace: 1
"""


async def test_the_settings_of_a_route(started: Start, tmp_path: Path) -> None:
    (origin,) = await started(
        answers(b"HTTP/1.1 200 OK\r\nServer: s\r\nContent-Length: 2\r\n\r\nok")
    )
    async with front(tmp_path, ROUTES, origin) as address:

        async def asked(path: str, *lines: str) -> bytes:
            """Return the head that the origin saw last."""
            assert (await ask(address, get(path, *lines)))[0] == 200
            return origin.visits[-1].raw[origin.visits[-1].raw.rindex(b"GET ") :]

        assert (await asked("/x//y?z")).startswith(b"GET /x//y?z HTTP/1.1\r\n")
        assert (await asked("/strip/a?b")).startswith(b"GET /a?b HTTP/1.1\r\n")
        beta = await asked("/a", "Cookie: q=2; beta=1", "X-B: any")
        assert beta.startswith(b"GET /beta/a HTTP/1.1\r\n")
        assert (await asked("/a", "Cookie: beta=2", "X-B: any")).startswith(b"GET /a HTTP/1.1")
        seen = await asked("/edit", "X-A: old", "Cookie: c=1")
        assert re.findall(rb"(?mi)^(?:host|x-a|x-b|cookie):.*$", seen) == [
            b"Host: inner.test\r", b"X-A: new\r", b"X-B: b\r",
        ]  # fmt: skip
        _, head, _ = await ask(address, get("/edit"))
        assert b"X-Frame-Options: DENY\r\n" in head
        assert b"Server:" not in head
        status, head, _ = await ask(address, get("/moved/x?y=1"))
        assert (status, b"Location: https://shop.test/new?y=1\r\n" in head) == (308, True)
        status, head, _ = await ask(address, get("/q", "X-Deny: 1"))
        assert (status, b"Location: https://login.test/q\r\n" in head) == (303, True)
        for key in ("a", "b"):
            got = [(await ask(address, get("/limited", f"X-Key: {key}")))[0] for _ in range(3)]
            assert got == [200, 200, 429]
        assert (await ask(address, get("/broken")))[0] == 418
        begun = time.monotonic()
        assert (await ask(address, get("/slow")))[0] == 200
        assert time.monotonic() - begun > 0.19
        # a trace is started, and an earlier one is passed on
        new = re.findall(rb"(?m)^traceparent: 00-[0-9a-f]{32}-[0-9a-f]{16}-01\r$", await asked("/"))
        assert len(new) == 1
        old = "traceparent: 00-" + "a" * 32 + "-" + "b" * 16 + "-00"
        assert (await asked("/", old)).count(b"traceparent") == 1
        assert old.encode() in await asked("/", old)


async def test_a_mirror_of_everything(started: Start, tmp_path: Path) -> None:
    origin, copy = await started(answers(OK), answers(OK))
    text = f"mirror: 127.0.0.1:{copy.port}\nroutes: [/a, {{path: /b, strip: true}}]\n"
    async with front(tmp_path, text, origin) as address:
        for path in ("/a", "/b/c"):
            assert (await ask(address, get(path)))[0] == 200
        await wait_until(
            lambda: b"".join(v.raw for v in copy.visits).count(b"GET ") == 2, 5, "two copies"
        )
        assert {line for v in copy.visits for line in re.findall(rb"GET \S+", v.raw)} == {
            b"GET /a",
            b"GET /c",
        }


async def test_a_mirror_of_a_share(started: Start, tmp_path: Path) -> None:
    origin, copy = await started(answers(OK), answers(OK))
    async with front(
        tmp_path, f"mirror: 127.0.0.1:{copy.port}\nmirror_share: 25%\n", origin
    ) as address:
        client = await connect(address)
        for _ in range(400):
            await client.send(get())
            await client.response()
        client.close()
        copied = await settled(lambda: b"".join(v.raw for v in copy.visits).count(b"GET "), 0.1)
        assert 50 < copied < 150, "a quarter of 400"


async def test_how_endpoints_are_picked(started: Start, tmp_path: Path) -> None:
    origins = await started(*(answers(named_ok(name)) for name in (b"a", b"b", b"c")))
    for algorithm in ("round-robin", "weighted", "random", "least-request"):
        async with front(tmp_path, f"balance: {algorithm}\n", *origins) as address:
            seen = {(await ask(address, get()))[2] for _ in range(40)}
            assert seen == {b"a", b"b", b"c"}, algorithm
    for algorithm in ("hot-cold", "peak-ewma"):
        async with front(tmp_path, f"balance: {algorithm}\n", *origins) as address:
            assert {(await ask(address, get()))[0] for _ in range(10)} == {200}
    for algorithm in ("ring-hash", "maglev"):
        text = f"balance: {{algorithm: {algorithm}, hash_by: 'header:X-User'}}\n"
        async with front(tmp_path, text, *origins) as address:
            for user in range(6):
                request = get("/", f"X-User: {user}")
                assert len({(await ask(address, request))[2] for _ in range(4)}) == 1
    async with front(tmp_path, "balance: {sticky_cookie: stuck}\n", *origins) as address:
        _, head, body = await ask(address, get())
        cookie = re.findall(rb"Set-Cookie: (stuck=\w+);", head)[0].decode()
        same = {(await ask(address, get("/", f"Cookie: {cookie}")))[2] for _ in range(10)}
        assert same == {body}


async def silent(visit: Visit) -> None:
    await visit.head()
    await visit.wait_closed()


@pytest.mark.parametrize(
    ("text", "request_bytes", "status", "least"),
    [
        ("timeouts: {first_byte: 300ms}", get(), 504, 0.3),
        ("timeouts: {request: 300ms}", get(), 504, 0.3),
        ("timeouts: {body: 300ms}", post(b"hello")[:-2], 408, 0.3),
        ("limits: {body: 4}", post(b"hello"), 413, 0.0),
    ],
)
async def test_limits_of_a_request(
    started: Start, tmp_path: Path, text: str, request_bytes: bytes, status: int, least: float
) -> None:
    origins = await started(silent)
    async with front(tmp_path, text + "\nretries: {attempts: 0}\n", *origins) as address:
        begun = time.monotonic()
        assert (await ask(address, request_bytes))[0] == status
        assert time.monotonic() - begun >= least


async def test_limits_and_a_queue(started: Start, tmp_path: Path) -> None:
    (origin,) = await started(silent)
    text = "limits: {endpoint_in_flight: 1, pending: 1, pending_timeout: 2s}\n"
    async with front(tmp_path, text, origin) as address:
        first = await connect(address)
        await first.send(get())
        await wait_until(lambda: bool(origin.visits and origin.visits[0].raw), 5, "asked")
        request = get("/", "Accept: application/json")
        # One of them is in the queue as the other arrives.
        others = [asyncio.create_task(ask(address, request)) for _ in range(2)]
        refusals = [await each for each in asyncio.as_completed(others)]
        assert [(status, json.loads(body)["reason"]) for status, _, body in refusals] == [
            (503, "too many requests wait already"),
            (503, "no replica had room in time"),
        ]
        first.close()


async def test_a_hedge(started: Start, tmp_path: Path) -> None:
    origins = await started(silent, answers(OK))
    text = "retries: {hedge_after: 100ms}\nbalance: round-robin\n"
    async with front(tmp_path, text, *origins) as address:
        for _ in range(4):
            assert (await ask(address, get()))[0] == 200
        assert origins[0].visits


async def until_closed(visit: Visit) -> None:
    """An origin that answers, switches protocols on request, and never closes."""
    while True:
        head = await visit.head()
        if b"Upgrade: echo" in head:
            await visit.send(b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nhello")
            await visit.wait_closed()
            return
        await visit.send(OK)


async def test_idle_connections_are_closed(started: Start, tmp_path: Path) -> None:
    (origin,) = await started(until_closed)
    text = "timeouts: {keep_alive: 300ms, head: 2s, tunnel: 300ms, pool: 500ms}\n"
    async with front(tmp_path, text, origin) as address:
        begun = time.monotonic()
        idle, slow, tunnel, nothing = [await connect(address) for _ in range(4)]
        await idle.send(get())
        await idle.response()
        await slow.send(get()[:-2])
        await tunnel.send(get("/", "Connection: upgrade", "Upgrade: echo"))
        await tunnel.until(b"hello")
        assert await idle.rest() == b""
        assert await tunnel.rest() == b""
        assert time.monotonic() - begun >= 0.3
        assert (await slow.rest()).startswith(b"HTTP/1.1 408 ")
        assert await nothing.rest() == b""
        assert time.monotonic() - begun >= 2.0
        await wait_until(
            lambda: all(v.closed.is_set() for v in origin.visits), 5, "left by the pool"
        )
        for client in (idle, slow, tunnel, nothing):
            client.close()


@pytest.mark.parametrize(
    "text",
    [
        "eject: {consecutive: 2, base: 60s}\nretries: {attempts: 0}\n",
        "eject: {consecutive: 2, base: 60s}\nretries: {attempts: 1, status: []}\n",
    ],
)
async def test_ejection(started: Start, tmp_path: Path, text: str) -> None:
    bad = b"HTTP/1.1 500 Bad\r\nContent-Length: 0\r\n\r\n"
    origins = await started(answers(bad), answers(OK), answers(OK))
    async with front(tmp_path, f"balance: round-robin\n{text}", *origins) as address:
        got = [(await ask(address, get()))[0] for _ in range(30)]
        assert got.count(500) == 2
        assert got[-20:] == [200] * 20
