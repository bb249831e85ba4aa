"""Everyday use of real clients through a real proxy to real servers."""

import asyncio
import gzip
import hashlib
import json
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
import websockets

from tests.support.certificate_authority import Authority
from tests.support.raw_http import Proxy
from tests.support.real_servers import FILE, MIB, TEXT, Served, tool
from tests.support.waiting import wait_until

Serve = Callable[[str], Served]
NODE = pytest.param("node", marks=pytest.mark.tool("node"))
NGINX = pytest.param("nginx", marks=pytest.mark.tool("nginx"))
APPS = pytest.mark.parametrize("origin", ["uvicorn", "aiohttp", NODE])
FILES = pytest.mark.parametrize("origin", ["aiohttp", NGINX])
SOCKETS = pytest.mark.parametrize("origin", ["uvicorn", "aiohttp"])
CURL = pytest.mark.tool("curl")
BODY = bytes(range(251)) * 4000
DIGEST = hashlib.sha256(BODY).hexdigest()
PLAIN = {"Accept-Encoding": "identity"}
EVENTS = [b"data: 0", b"data: 1", b"data: 2", b"data: 3", b"data: 4", b"data: end"]


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Return a function that starts a server with a proxy, each once."""
    running: dict[str, Served] = {}

    def start(name: str) -> Served:
        if name not in running:
            running[name] = Served(name, tmp_path_factory.mktemp(name))
        return running[name]

    yield start
    for served in running.values():
        served.stop()


def curl(*arguments: str, put: bytes | None = None) -> bytes:
    """Run curl; return its output. Fails if curl fails."""
    done = subprocess.run(
        ["curl", "--silent", "--show-error", "--max-time", "30", *arguments],
        input=put, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- curl


@CURL
@APPS
def test_curl_gets_and_posts(serve: Serve, origin: str) -> None:
    url = f"http://{serve(origin).address}"
    for version in ("--http1.1", "--http1.0"):
        received = json.loads(curl(version, f"{url}/a%2Fb//c?d=e%20f"))
        assert (received["method"], received["target"]) == ("GET", "/a%2Fb//c?d=e%20f")
        received = json.loads(curl(version, "--data-binary", "@-", f"{url}/echo", put=BODY))
        assert (received["method"], received["size"], received["sha256"]) == (
            "POST",
            len(BODY),
            DIGEST,
        )
        assert received["length"] == str(len(BODY))
    for method in ("PUT", "PATCH", "DELETE", "OPTIONS"):
        assert json.loads(curl("-X", method, f"{url}/echo"))["method"] == method


@CURL
@APPS
def test_curl_uploads_in_chunks_after_100_continue(serve: Serve, origin: str) -> None:
    url = f"http://{serve(origin).address}/echo"
    done = curl("-v", "--stderr", "-", "-o", "/dev/null", "-T", "-", "-H",
                "Expect: 100-continue", url, put=BODY)  # fmt: skip
    assert b"< HTTP/1.1 100 Continue" in done
    received = json.loads(curl("-T", "-", "-H", "Expect: 100-continue", url, put=BODY))
    assert (received["size"], received["sha256"]) == (len(BODY), DIGEST)
    assert (received["encoding"], received["length"]) == ("chunked", None)


@CURL
@APPS
def test_curl_downloads_much_and_keeps_its_connection(serve: Serve, origin: str) -> None:
    url = f"http://{serve(origin).address}"
    assert curl(f"{url}/large?mib=40") == MIB * 40
    said = curl("-w", "%{num_connects}\n", "-o", "/dev/null", f"{url}/echo", "-o", "/dev/null",
                f"{url}/large?mib=1", "-o", "/dev/null", f"{url}/etag")  # fmt: skip
    assert said.split() == [b"1", b"0", b"0"]


@CURL
@APPS
def test_curl_sees_events_at_once(serve: Serve, origin: str) -> None:
    begun = time.monotonic()
    client = subprocess.Popen(
        ["curl", "-sN", "--max-time", "20", f"http://{serve(origin).address}/events"],
        stdout=subprocess.PIPE,
    )
    assert client.stdout is not None
    with client.stdout as lines:
        assert lines.readline() == b"data: 0\n"
        first = time.monotonic() - begun
        rest = [line.strip() for line in lines if line.strip()]
    assert client.wait(10) == 0
    assert rest == EVENTS[1:]
    assert time.monotonic() - begun > first + 0.15


@CURL
@APPS
def test_curl_gets_304(serve: Serve, origin: str) -> None:
    url = f"http://{serve(origin).address}/etag"
    assert curl(url) == b"version one"
    out = curl("-i", "-H", 'If-None-Match: "v1"', url)
    assert out.startswith(b"HTTP/1.1 304 ")
    assert out.endswith(b"\r\n\r\n")
    assert b'etag: "v1"' in out.lower()
    for path in ("/etag", "/gzip"):
        head = curl("--head", f"http://{serve(origin).address}{path}")
        assert head.startswith(b"HTTP/1.1 200 ")


@CURL
@FILES
def test_curl_asks_for_parts_of_files(serve: Serve, origin: str) -> None:
    served = serve(origin)
    url = f"http://{served.address}/files/data.bin"
    assert curl(url) == FILE
    assert curl("--range", "100-299", url) == FILE[100:300]
    assert curl("--range", "-7", url) == b"the end"
    head = curl("--head", url).lower()
    assert b"content-length: %d\r\n" % len(FILE) in head
    found = next(line for line in head.splitlines() if line.startswith(b"etag: "))
    unchanged = curl("-i", "-H", "If-None-Match: " + found[6:].decode().upper(), url)
    assert unchanged.startswith((b"HTTP/1.1 304 ", b"HTTP/1.1 200 "))
    modified = next(line for line in curl("--head", url).splitlines() if b"odified" in line)
    out = curl("-i", "-H", "If-Modified-Since: " + modified.decode()[15:], url)
    assert out.startswith(b"HTTP/1.1 304 ")
    assert curl("-i", "--range", "99999999-", url).startswith(b"HTTP/1.1 416 ")


@CURL
@pytest.mark.parametrize("origin", ["uvicorn", "aiohttp", NODE, NGINX])
def test_compressed_answers_are_passed_on_unchanged(serve: Serve, origin: str) -> None:
    served = serve(origin)
    path = "/files/text.txt" if origin == "nginx" else "/gzip"
    packed = curl("-H", "Accept-Encoding: gzip", f"http://{served.address}{path}")
    assert packed == curl("-H", "Accept-Encoding: gzip", f"http://{served.direct}{path}")
    assert gzip.decompress(packed) == (TEXT if origin == "nginx" else MIB)
    assert curl("--compressed", f"http://{served.address}{path}") == gzip.decompress(packed)


# --- aiohttp and httpx


async def pieces() -> AsyncIterator[bytes]:
    for at in range(0, len(BODY), 100_000):
        yield BODY[at : at + 100_000]
        await asyncio.sleep(0)


@APPS
async def test_aiohttp(serve: Serve, origin: str) -> None:
    url = f"http://{serve(origin).address}"
    async with aiohttp.ClientSession(auto_decompress=False) as session:

        async def ask(method: str, path: str, **more: Any) -> Any:
            async with session.request(method, url + path, **more) as answer:
                assert answer.status == 200
                return json.loads(await answer.read())

        assert (await ask("GET", "/echo?a=b"))["target"] == "/echo?a=b"
        assert (await ask("POST", "/echo", data=BODY))["sha256"] == DIGEST
        for expect in (False, True):
            found = await ask("PUT", "/echo", data=pieces(), expect100=expect)
            assert (found["sha256"], found["encoding"]) == (DIGEST, "chunked")
        async with session.get(f"{url}/large?mib=10") as answer:
            assert await answer.read() == MIB * 10
        async with session.get(f"{url}/events") as answer:
            lines = [line.strip() async for line in answer.content if line.strip()]
            assert lines == EVENTS
        async with session.head(f"{url}/gzip") as answer:
            assert answer.status == 200
            assert await answer.read() == b""
        async with session.get(f"{url}/gzip") as answer:
            assert gzip.decompress(await answer.read()) == MIB


@APPS
async def test_httpx(serve: Serve, origin: str) -> None:
    base = f"http://{serve(origin).address}"
    async with httpx.AsyncClient(base_url=base, timeout=60) as client:
        assert (await client.get("/echo?a=b")).json()["target"] == "/echo?a=b"
        assert (await client.post("/echo", content=BODY)).json()["sha256"] == DIGEST
        found = (await client.put("/echo", content=pieces())).json()
        assert (found["sha256"], found["encoding"]) == (DIGEST, "chunked")
        assert (await client.get("/large?mib=10")).content == MIB * 10
        assert (await client.get("/gzip")).content == MIB
        assert (await client.head("/gzip")).content == b""
        unchanged = await client.get("/etag", headers={"If-None-Match": '"v1"'})
        assert (unchanged.status_code, unchanged.content) == (304, b"")
        async with client.stream("GET", "/events") as answer:
            lines = [line.encode() async for line in answer.aiter_lines() if line]
        assert lines == EVENTS


@APPS
async def test_many_requests_over_kept_connections(serve: Serve, origin: str) -> None:
    url = f"http://{serve(origin).address}"
    connector = aiohttp.TCPConnector(limit=64)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def one(number: int) -> None:
            body = b"%d" % number * 500
            async with session.post(f"{url}/echo?{number}", data=body) as answer:
                received = await answer.json()
            assert received["target"] == f"/echo?{number}"
            assert received["sha256"] == hashlib.sha256(body).hexdigest()

        await asyncio.gather(*map(one, range(1000)))


@FILES
async def test_many_files_at_once(serve: Serve, origin: str) -> None:
    url = f"http://{serve(origin).address}/files/data.bin"
    limits = httpx.Limits(max_connections=32, max_keepalive_connections=32)
    async with httpx.AsyncClient(limits=limits, timeout=30) as client:

        async def one(number: int) -> None:
            start = number * 1000
            answer = await client.get(
                url, headers={**PLAIN, "Range": f"bytes={start}-{start + 50_000}"}
            )
            assert answer.status_code == 206
            assert answer.content == FILE[start : start + 50_001]

        await asyncio.gather(*map(one, range(400)))


# --- WebSockets


@SOCKETS
async def test_websockets(serve: Serve, origin: str) -> None:
    url = f"ws://{serve(origin).address}/ws"
    async with websockets.connect(url, max_size=1 << 24) as socket:
        for text in ("hello", "", "ä" * 70_000):
            await socket.send(text)
            assert await socket.recv() == text
        await socket.send(MIB)
        assert await socket.recv() == MIB
        assert await (await socket.ping()) >= 0
        await asyncio.gather(*(socket.send(str(number)) for number in range(200)))
        assert [await socket.recv() for _ in range(200)] == [str(n) for n in range(200)]
        await socket.close(1001, "enough")
    assert socket.close_code in (1000, 1001)


@SOCKETS
async def test_many_websockets_of_aiohttp(serve: Serve, origin: str) -> None:
    url = f"http://{serve(origin).address}/ws"
    async with aiohttp.ClientSession() as session:

        async def one(number: int) -> None:
            async with session.ws_connect(url) as socket:
                for turn in range(20):
                    await socket.send_str(f"{number}/{turn}")
                    assert await socket.receive_str() == f"{number}/{turn}"

        await asyncio.gather(*map(one, range(50)))


# --- a browser


@pytest.mark.tool("chromium")
async def test_chromium(serve: Serve, tmp_path: Path) -> None:
    served = serve("aiohttp")
    found = await open_in_chromium(served, f"http://{served.address}/page", tmp_path)
    assert found == {**ON_PAGE, "protocols": ["http/1.1"]}


@pytest.mark.tool("chromium")
async def test_chromium_over_https(serve: Serve, tmp_path: Path) -> None:
    """All of it is one HTTP/2 connection, the WebSocket by extended CONNECT too."""
    served = serve("aiohttp")
    issued = Authority(tmp_path).issue("localhost")
    log = tmp_path / "access.log"
    proxy = Proxy(
        [served.port], "--tls-cert", issued.cert, "--tls-key", issued.key, "--drain", "2s",
        "--access-log", "on", "--access-log-file", str(log),
    )  # fmt: skip
    try:
        url = f"https://localhost:{proxy.port}/page"
        trust = f"--ignore-certificate-errors-spki-list={issued.key_digest}"
        found = await open_in_chromium(served, url, tmp_path, trust)
    finally:
        proxy.stop()
    assert found == {**ON_PAGE, "protocols": ["h2"]}
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {line["version"] for line in lines} == {"HTTP/2"}
    assert 101 in {line["status"] for line in lines if line["target"] == "/ws"}


ON_PAGE = {
    "post": 300_000,
    "many": 40,
    "gzip": len(MIB),
    "events": ["0", "1", "2", "3", "4", "end"],
    "socket": "hello",
}
"""What the page reports; over which protocols it was loaded comes on top."""


NETWORK_CHANGED = b'"net_error":-21'
"""In Chromium's log of the network: it ends all connections when an interface of the host comes or
goes, as those of containers do."""


async def open_in_chromium(served: Served, url: str, folder: Path, *options: str) -> dict[str, Any]:
    """Open the page of the server at `url` in a new browser; return its report. Once more if the
    network of the host has changed meanwhile."""
    for _ in range(4):
        found = await open_once(served, url, folder, *options)
        changed = NETWORK_CHANGED in (folder / "network.json").read_bytes()
        if ON_PAGE.items() <= found.items() or not changed:
            break
    return found


async def open_once(served: Served, url: str, folder: Path, *options: str) -> dict[str, Any]:
    log = folder / "chromium.log"
    with log.open("wb") as file:
        browser = subprocess.Popen(
            [tool("chromium") or "", "--headless=new", "--no-sandbox", "--disable-gpu",
             "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
             f"--user-data-dir={folder / 'profile'}", "--remote-debugging-port=0",
             f"--log-net-log={folder / 'network.json'}", *options, url],
            stdout=file, stderr=file,
        )  # fmt: skip
    found: dict[str, Any] = {}
    try:
        async with httpx.AsyncClient(timeout=60) as client:

            async def reported() -> bool:
                nonlocal found
                found = (await client.get(f"http://{served.direct}/report")).json()
                return bool(found)

            await wait_until(reported, 15, "the browser reports", interval=0.2)
    finally:
        browser.terminate()
        browser.wait(20)
    print(log.read_text()[-3000:])
    return found
