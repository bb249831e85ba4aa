"""Real clients with HTTP/2, the conformance suite h2spec, and processes that end under load."""

import asyncio
import hashlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.ipc.config import SupervisorConfig
from tests.processes.supervised import snapshot, supervised
from tests.processes.traffic import origin
from tests.support.http2 import Http2Client
from tests.support.real_servers import MIB, Served
from tests.support.waiting import wait_until

BODY = bytes(range(251)) * 4000
DIGEST = hashlib.sha256(BODY).hexdigest()
PRIOR_KNOWLEDGE = "--http2-prior-knowledge"
CLIENTS = 24
"""Connections; with this number each of two workers has some."""
DEVIATIONS = {
    # The same port serves HTTP/1.1, whose parser answers this with status 400.
    "Sends invalid connection preface",
    # RFC 9113 has no dependencies between streams any more (section 5.3.2).
    "Sends PRIORITY frame that depend on itself",
    # The codec ends the connection, and not the stream alone, with the same error.
    "Sends multiple WINDOW_UPDATE frames increasing the flow control window to above 2^31-1 on "
    "a stream",
}
"""Cases of h2spec that fail over clear text."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    running = Served("aiohttp", tmp_path_factory.mktemp("aiohttp"))
    yield running
    running.stop()


def run(*command: str, put: bytes | None = None) -> bytes:
    done = subprocess.run(command, input=put, capture_output=True, timeout=100, check=False)
    assert done.returncode == 0, (command, done.stdout[-2000:], done.stderr[-2000:])
    return done.stdout


@pytest.mark.tool("curl")
def test_curl(served: Served) -> None:
    url = f"http://{served.address}"
    curl = ("curl", "--silent", "--show-error", "--max-time", "30", PRIOR_KNOWLEDGE)
    found = json.loads(run(*curl, f"{url}/a%2Fb//c?d=e%20f"))
    assert (found["method"], found["target"]) == ("GET", "/a%2Fb//c?d=e%20f")
    found = json.loads(run(*curl, "--data-binary", "@-", f"{url}/echo", put=BODY))
    assert (found["method"], found["size"], found["sha256"]) == ("POST", len(BODY), DIGEST)
    found = json.loads(run(*curl, "--upload-file", "-", f"{url}/echo", put=BODY))
    assert (found["method"], found["sha256"]) == ("PUT", DIGEST)
    assert run(*curl, f"{url}/large?mib=20") == MIB * 20
    version = run(*curl, "--write-out", "%{http_version}", "--output", "/dev/null", url)
    assert version == b"2"


@pytest.mark.tool("nghttp")
def test_nghttp(served: Served) -> None:
    printed = run("nghttp", "-nv", "-m", "3", f"http://{served.address}/echo").decode()
    assert printed.count(":status: 200") == 3
    assert "NO_ERROR" in printed


@pytest.mark.tool("h2load")
def test_h2load(served: Served) -> None:
    command = ("h2load", "-n", "3000", "-c", "6", "-m", "20", f"http://{served.address}/etag")
    printed = run(*command).decode()
    assert re.search(r"3000 succeeded, 0 failed, 0 errored", printed), printed


@pytest.mark.tool("h2spec")
def test_h2spec(served: Served) -> None:
    host, _, port = served.address.rpartition(":")
    done = subprocess.run(
        ["h2spec", "-h", host, "-p", port, "-P", "/echo", "--timeout", "2"],
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    failed = set(re.findall(r"× (?:[0-9.]+: )?(.*)", done.stdout.partition("Failures:")[2]))
    assert re.search(r"146 tests, 14[0-9] passed", done.stdout), done.stdout[-2000:]
    assert failed <= DEVIATIONS, failed - DEVIATIONS


class SteadyHttp2Clients:
    """Clients that send one request after another, each on one connection until it announces its
    end. `failures` are those that a client could not repeat."""

    def __init__(self, address: str) -> None:
        self.host, _, self.port = address.rpartition(":")
        self.good = 0
        self.failures: list[str] = []
        self.connections = 0
        self.over = False
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, clients: int, streams: int) -> None:
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._connect(streams)) for _ in range(clients)]

    async def stop(self) -> None:
        self.over = True
        await asyncio.gather(*self._tasks)

    async def _connect(self, streams: int) -> None:
        while not self.over:
            client = Http2Client(*await asyncio.open_connection(self.host, int(self.port)))
            self.connections += 1
            try:
                await client.flush()
                await asyncio.gather(*(self._ask(client) for _ in range(streams)))
            finally:
                await client.close()

    async def _ask(self, client: Http2Client) -> None:
        while not self.over and not client.going and client.codec.can_send_request():
            stream = await client.request(b"POST", fields=[(b"content-length", b"0")])
            try:
                answer = await client.answer(stream)
            except ConnectionError as error:
                if client.going and stream > client.going[-1][0]:
                    return  # refused: it may be sent again
                self.failures.append(f"{stream}: {error}")
                return
            if (answer.status, answer.complete) == (200, True):
                self.good += 1
            else:
                self.failures.append(f"{stream}: {answer.status} {answer.code}")


@pytest.mark.parametrize("change", ["upgrade", "worker", "shutdown"])
async def test_no_accepted_stream_is_lost(tmp_path: Path, change: str) -> None:
    async with origin() as behind:
        settings = SupervisorConfig(
            listen=("127.0.0.1:0",),
            workers=2,
            state_dir=str(tmp_path),
            snapshot=snapshot(1, behind.port),
            announce=True,
        )
        with supervised(tmp_path, settings) as running:
            address = await running.listening()
            load = SteadyHttp2Clients(address)
            load.start(CLIENTS, streams=2)
            await wait_until(lambda: load.good > 200, 10, "load runs")
            before = set(running.workers())
            if change == "shutdown":
                load.over = True
                running.signal(signal.SIGTERM)
            else:
                if change == "upgrade":
                    running.signal(signal.SIGUSR2)
                else:
                    os.kill(min(before), signal.SIGTERM)
                leaving = before if change == "upgrade" else {min(before)}
                await wait_until(
                    lambda: len(running.workers()) == 2 and not leaving & set(running.workers()),
                    20,
                    "workers are replaced",
                )
                good = load.good
                await wait_until(lambda: load.good > good + 200, 10, "load continues")
            await load.stop()
            assert not load.failures, load.failures[:5]
            if change != "shutdown":
                assert load.connections > CLIENTS
