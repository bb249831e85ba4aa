"""Cost of the web page for the control process: CPU time of a second with 0, 1 and 20 open pages.

Runs the real status, live feed and web server over the simulated mesh of `bench.control`. Every
service changes every second. The pages are read by another process.

    python -m bench.page [--services 50] [--replicas 10] [--seconds 10]

With `--browser` it opens the built page in Chromium instead, see `bench.page_view`:

    python -m bench.page --browser --services 200
"""

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import aiohttp
import msgspec

from bench import page_view
from bench.control import Mesh, populate
from meshd.api.dto import CallEdge, ServiceStatus, Status
from meshd.api.tcp_address import TcpSettings
from meshd.control.live import LiveFeed
from meshd.model.access import Identity, NewSignInLink, Role
from meshd.model.history import Sparkline
from meshd.ui.assets import Asset, load_assets
from meshd.ui.page import WebPage
from meshd.ui.settings import PageSettings
from tests.fakes.control import FakeControl

PAGES: Final = (0, 1, 20)
SPARK_STEP: Final = 10
"""Seconds of a point of a sparkline."""
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
        self._keys = [f"{each.project}/{each.name}" for each in mesh.status.status().services]
        self.feed = LiveFeed(self.read_status, self._list_calls, mesh.events)

    def read_status(self) -> Status:
        """Return the status; every service has changed."""
        self._second += 1
        found = self._mesh.status.status()
        services = tuple(
            msgspec.structs.replace(each, rps=each.rps + self._second) for each in found.services
        )
        return msgspec.structs.replace(found, services=services)

    def _list_calls(self, services: Sequence[ServiceStatus], _: float) -> list[CallEdge]:
        return [CallEdge("", f"{each.project}/{each.name}", 1.0, 0.0, 0.1) for each in services]

    def sparklines(self, since: float, project: str) -> Sequence[Sparkline]:
        count = int(time.time() - since) // SPARK_STEP
        values = tuple(float(index % 7) for index in range(count))
        return [
            Sparkline(key, SPARK_STEP, int(since), *(values,) * 4)
            for key in self._keys
            if project in ("", key.partition("/")[0])
        ]

    def follow_live(self, project: str) -> AsyncIterator[msgspec.Raw]:
        return self.feed.follow(project, time.time())


@asynccontextmanager
async def serve_page(
    services: int, replicas: int, files: Mapping[str, Asset]
) -> AsyncIterator[tuple[_Control, WebPage, str]]:
    """Serve the page of a simulated mesh; yields its control, the page and its address."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        mesh = Mesh(Path(folder), asyncio.get_running_loop())
        try:
            await populate(mesh, services, replicas)
            control = _Control(mesh)
            settings = PageSettings(TcpSettings("127.0.0.1:0"))
            page = WebPage(settings, files, control.access, time.time)
            async with page.serve(control) as address:
                yield control, page, address
        finally:
            await mesh.close()


async def measure(services: int, replicas: int, seconds: int) -> list[float]:
    """Return the CPU milliseconds of a second, for each number of pages."""
    files = {"index.html": Asset("text/html", b"", b"")}
    async with serve_page(services, replicas, files) as (control, page, address):
        cookie, key = await sign_in(page, address)
        return [await run_pages(control, address, cookie, key, pages, seconds) for pages in PAGES]


async def open_in_browser(services: int, replicas: int, seconds: int) -> None:
    """Print how the built page does in Chromium."""
    async with serve_page(services, replicas, load_assets()) as (control, page, _):
        page_view.print_view(*await page_view.first_view(lambda: create_link(page), services))
        shown = control.read_status().services[0]
        key = f"{shown.project}/{shown.name}"
        found = await page_view.watch_frames(
            lambda: create_link(page), lambda: control.feed.step(time.time()), key, seconds
        )
        page_view.print_frames(found)


def create_link(page: WebPage) -> str:
    """Return a link that signs in."""
    return page.create_link(Identity("bench", Role.ADMIN), NewSignInLink()).url


async def sign_in(page: WebPage, address: str) -> tuple[str, str]:
    """Return the cookie and the key of a session."""
    code = create_link(page).partition("#code=")[2]
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
    parser.add_argument("--browser", action="store_true", help="open the page in Chromium")
    options = parser.parse_args()
    if options.browser:
        asyncio.run(open_in_browser(options.services, options.replicas, options.seconds))
        return
    found = asyncio.run(measure(options.services, options.replicas, options.seconds))
    print(f"{options.services} services with {options.replicas} replicas each, all change")
    for pages, milliseconds in zip(PAGES, found, strict=True):
        print(f"{pages:3} open pages: {milliseconds:6.1f} ms of CPU a second")


if __name__ == "__main__":
    main()
