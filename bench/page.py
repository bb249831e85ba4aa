"""Cost of the web page for the control process: CPU time of a second with 0, 1 and 20 open pages.

Runs the real status, live feed and web server over the simulated mesh of `bench.control`. Every
service changes every second. The pages are read by another process.

    python -m bench.page [--services 50] [--replicas 10] [--seconds 10]
"""

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

import aiohttp
import msgspec

from bench.control import Mesh, populate
from meshd.api.dto import CallEdge, ServiceStatus, Status
from meshd.api.tcp_address import TcpSettings
from meshd.control.live import LiveFeed
from meshd.model.access import Identity, NewSignInLink, Role
from meshd.ui.assets import Asset
from meshd.ui.page import WebPage
from meshd.ui.settings import PageSettings
from tests.fakes.control import FakeControl

PAGES: Final = (0, 1, 20)
READER: Final = """
import socket, sys, threading
host, port, cookie, key, count = sys.argv[1:]
head = ["GET /v1/live?follow=1 HTTP/1.1", f"Host: {host}:{port}", f"Cookie: {cookie}",
        f"X-Meshd-Key: {key}", "", ""]
def read():
    with socket.create_connection((host, int(port))) as sock:
        sock.sendall("\\r\\n".join(head).encode())
        while sock.recv(1 << 20):
            pass
for _ in range(int(count)):
    threading.Thread(target=read, daemon=True).start()
sys.stdin.read()
"""


class _Control(FakeControl):
    """The status and the live feed are real."""

    def __init__(self, mesh: Mesh) -> None:
        super().__init__()
        self._mesh = mesh
        self._second = 0
        self.feed = LiveFeed(self._read, self._list_calls, mesh.events)

    def _read(self) -> Status:
        """Return the status; every service has changed."""
        self._second += 1
        found = self._mesh.status.status()
        services = tuple(
            msgspec.structs.replace(each, rps=each.rps + self._second) for each in found.services
        )
        return msgspec.structs.replace(found, services=services)

    def _list_calls(self, services: Sequence[ServiceStatus], _: float) -> list[CallEdge]:
        return [CallEdge("", f"{each.project}/{each.name}", 1.0, 0.0, 0.1) for each in services]

    def follow_live(self, project: str) -> AsyncIterator[msgspec.Raw]:
        return self.feed.follow(project, time.time())


async def measure(services: int, replicas: int, seconds: int) -> list[float]:
    """Return the CPU milliseconds of a second, for each number of pages."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        mesh = Mesh(Path(folder), asyncio.get_running_loop())
        try:
            await populate(mesh, services, replicas)
            control = _Control(mesh)
            settings = PageSettings(TcpSettings("127.0.0.1:0"))
            files = {"index.html": Asset("text/html", b"", b"")}
            page = WebPage(settings, files, control.access, time.time)
            async with page.serve(control) as address:
                cookie, key = await sign_in(page, address)
                return [
                    await run_pages(control, address, cookie, key, pages, seconds)
                    for pages in PAGES
                ]
        finally:
            await mesh.close()


async def sign_in(page: WebPage, address: str) -> tuple[str, str]:
    """Return the cookie and the key of a session."""
    link = page.create_link(Identity("bench", Role.ADMIN), NewSignInLink())
    code = link.url.partition("#code=")[2]
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"http://{address}/session", json={"code": code}) as answer,
    ):
        return answer.headers["Set-Cookie"].partition(";")[0], (await answer.json())["key"]


async def run_pages(
    control: _Control, address: str, cookie: str, key: str, pages: int, seconds: int
) -> float:
    """Return the CPU milliseconds of a second with this number of open pages."""
    host, _, port = address.rpartition(":")
    command = [sys.executable, "-c", READER, host, port, cookie, key, str(pages)]
    reader = subprocess.Popen(command, stdin=subprocess.PIPE)
    try:
        await asyncio.sleep(3.0)
        assert len(control.feed._queues) == pages
        begin = time.process_time()
        for _ in range(seconds):
            control.feed.step(time.time())
            await asyncio.sleep(1.0)
        return (time.process_time() - begin) / seconds * 1e3
    finally:
        reader.kill()
        reader.wait()
        if reader.stdin is not None:
            reader.stdin.close()
        await asyncio.sleep(1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description="Cost of the web page for the control process.")
    parser.add_argument("--services", type=int, default=50)
    parser.add_argument("--replicas", type=int, default=10)
    parser.add_argument("--seconds", type=int, default=10)
    options = parser.parse_args()
    found = asyncio.run(measure(options.services, options.replicas, options.seconds))
    print(f"{options.services} services with {options.replicas} replicas each, all change")
    for pages, milliseconds in zip(PAGES, found, strict=True):
        print(f"{pages:3} open pages: {milliseconds:6.1f} ms of CPU a second")


if __name__ == "__main__":
    main()
