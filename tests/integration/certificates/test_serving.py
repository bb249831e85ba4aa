"""Certificates from a real authority, served by real proxies: `meshd proxy` and `meshd up`."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from meshd.cli import daemon_process
from tests.support.mesh import TestMesh
from tests.support.pebble import Pebble
from tests.support.ports import free_port
from tests.support.waiting import wait_until, wait_until_blocking

pytestmark = [
    pytest.mark.tool("pebble"), pytest.mark.tool("pebble-challtestsrv"), pytest.mark.slow
]  # fmt: skip
ORIGIN = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1"]


def fetch(port: int, name: str, root: str) -> int:
    """Send a request to a host over a new verified TLS connection; return the serial number of its
    certificate. Raises OSError, or AssertionError for an answer other than 200."""
    context = ssl.create_default_context(cadata=root)
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=name) as client,
    ):
        client.sendall(f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: client.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 200 "), answer[:200]
        der = client.getpeercert(binary_form=True)
        assert der is not None
        return x509.load_der_x509_certificate(der).serial_number


def is_served(port: int, name: str, root: str) -> bool:
    with contextlib.suppress(OSError):
        return bool(fetch(port, name, root))
    return False


@dataclass
class Load:
    """What a client saw that sends one request after the other until the end."""

    serials: list[int] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@asynccontextmanager
async def load(port: int, name: str, root: str) -> AsyncIterator[Load]:
    seen, ended = Load(), asyncio.Event()

    async def run() -> None:
        while not ended.is_set():
            try:
                seen.serials.append(await asyncio.to_thread(fetch, port, name, root))
            except (OSError, AssertionError) as error:
                seen.errors.append(repr(error))

    task = asyncio.create_task(run())
    try:
        yield seen
    finally:
        ended.set()
        await task


@contextmanager
def pebble(folder: Path, **settings: Any) -> Iterator[Pebble]:
    authority = Pebble(folder / "pebble", **settings)
    try:
        yield authority
    finally:
        authority.close()


@contextmanager
def proxy(folder: Path, authority: Pebble, admin: int, acme: str) -> Iterator[None]:
    """`meshd proxy` in front of a file server: port 80 of the authority redirects to HTTPS."""
    origin = free_port()
    (folder / "proxy.yml").write_text(
        f"listen: ['127.0.0.1:{authority.http_port}', '127.0.0.1:{authority.tls_port}']\n"
        f"listeners: {{'127.0.0.1:{authority.http_port}': {{redirect: https}}}}\n"
        f"tls: {{acme: {{directory: {authority.directory}, ca: {authority.ca}, {acme}}}}}\n"
        f"to: 127.0.0.1:{origin}\nworkers: 2\nadmin: 127.0.0.1:{admin}\nstate: {folder}/state\n"
    )
    command = [sys.executable, "-m", "meshd", "proxy", "--config", str(folder / "proxy.yml")]
    with (folder / "proxy.log").open("ab") as log:
        server = subprocess.Popen([*ORIGIN, str(origin)], cwd=folder, stderr=subprocess.DEVNULL)
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield
    finally:
        for each in (process, server):
            each.terminate()
            each.wait(30)


def test_a_proxy_gets_a_certificate_by_tls_and_keeps_it_without_the_authority(
    tmp_path: Path,
) -> None:
    admin, acme = free_port(), "domains: [a.test, bad.test], challenges: tls-alpn-01"
    with pebble(tmp_path) as authority:
        authority.resolve("bad.test", "127.0.0.99")
        root = authority.root()
        with proxy(tmp_path, authority, admin, acme):
            wait_until_blocking(lambda: is_served(authority.tls_port, "a.test", root), 20)
            command = [sys.executable, "-m", "meshd", "certificates"]
            command += ["--admin", f"127.0.0.1:{admin}"]

            def shown() -> str:
                return subprocess.run(command, capture_output=True, text=True, check=False).stdout

            wait_until_blocking(lambda: "tls-alpn-01 failed" in shown(), 10, shown)
            (good,) = [line for line in shown().splitlines() if line.startswith("a.test")]
            assert "valid" in good
            assert "(in 90 d)" in good
        authority.stop()
        with proxy(tmp_path, authority, admin, acme):
            wait_until_blocking(lambda: is_served(authority.tls_port, "a.test", root), 10)
    assert "validation by tls-alpn-01 failed" in (tmp_path / "proxy.log").read_text()


async def test_a_renewal_drops_no_request_and_uses_the_redirecting_port(tmp_path: Path) -> None:
    with pebble(tmp_path, life=24) as authority:
        root = authority.root()
        with proxy(tmp_path, authority, free_port(), "domains: a.test, challenges: http-01"):
            await wait_until(lambda: is_served(authority.tls_port, "a.test", root), 20)
            async with load(authority.tls_port, "a.test", root) as seen:
                await wait_until(lambda: len(set(seen.serials)) == 2, 24, lambda: seen.errors)
            url = f"http://127.0.0.1:{authority.http_port}/x?y"
            with socket.create_connection(("127.0.0.1", authority.http_port)) as client:
                client.sendall(b"GET /x?y HTTP/1.1\r\nHost: a.test\r\n\r\n")
                answer = client.recv(4096)
            assert answer.startswith(b"HTTP/1.1 308 "), url
            assert b"Location: https://a.test:%d/x?y\r\n" % authority.tls_port in answer
    assert seen.errors == []


COMPOSE = """\
name: shop
x-mesh:
  tls: {{acme: {{email: ops@example.com, directory: {directory}, ca: {ca}}}}}
  listeners: {{'127.0.0.1:{http}': {{tls: false}}}}
services:
  web:
    command: [sh, -c, 'exec {python} -u -m http.server "$$PORT" --bind 127.0.0.1']
    x-mesh: {{routes: [{routes}], health: /, scale: {{min: 1, max: 1}}}}
"""


async def test_a_mesh_orders_for_the_hosts_of_routes(tmp_path: Path) -> None:
    """First issue, a new host and one that cannot be validated by `meshd deploy` under load, and
    a control process that is killed while the authority is away."""
    mesh = TestMesh(tmp_path, "process")
    with pebble(tmp_path) as authority:
        mesh.address = f"127.0.0.1:{authority.tls_port}"
        authority.resolve("bad.test", "127.0.0.99")
        root, port = authority.root(), authority.tls_port

        def compose(*hosts: str) -> str:
            routes = ", ".join(f"{{host: {host}, tls: auto}}" for host in hosts)
            return COMPOSE.format(
                directory=authority.directory, ca=authority.ca, http=authority.http_port,
                python=sys.executable, routes=routes,
            )  # fmt: skip

        async def certificates() -> dict[str, dict[str, Any]]:
            found = json.loads((await mesh.run("certificates", "-o", "json")).out)
            return {each["names"][0]: each for each in found}

        async def is_another_ready(before: int) -> bool:
            now = _children(mesh.state, b"meshd.daemon")
            return before not in now and (await mesh.run("certificates")).code != 3

        try:
            up = await mesh.up(compose("a.test"), "--listen", f"127.0.0.1:{authority.http_port}")
            assert up.code == 0, up.err
            await wait_until(lambda: is_served(port, "a.test", root), 20, up.err)
            async with load(port, "a.test", root) as seen:
                (tmp_path / "compose.yml").write_text(compose("a.test", "bad.test", "b.test"))
                deployed = await mesh.run("deploy", "-f", str(tmp_path / "compose.yml"))
                assert deployed.code == 0, deployed.err
                await wait_until(lambda: is_served(port, "b.test", root), 20)

                async def has_failed() -> bool:
                    return (await certificates())["bad.test"]["state"] == "failing"

                await wait_until(has_failed, 15, interval=0.5)
                authority.stop()
                (control,) = _children(mesh.state, b"meshd.daemon")
                os.kill(control, signal.SIGKILL)
                await wait_until(lambda: is_another_ready(control), 20, interval=0.2)
                count = len(seen.serials)
                await wait_until(lambda: len(seen.serials) > count + 20, 10)
            assert seen.errors == []
            assert len(set(seen.serials)) == 1
            shown = await mesh.run("certificates")
            assert shown.code == 1
            assert "127.0.0.99" in shown.out
            events = (await mesh.run("events", "--kind", "certificate")).out
            assert "certificate.issued" in events
            assert "no certificate for bad.test: validation by http-01 failed" in events
            assert (await certificates())["b.test"]["state"] == "valid"
            backup = await mesh.run("backup", str(tmp_path / "backup.tar.gz"))
            assert backup.code == 0, backup.err
            with tarfile.open(tmp_path / "backup.tar.gz") as archive:
                names = {Path(name).name for name in archive.getnames()}
            assert {"account.json", "a.test.pem", "b.test.pem"} <= names
        finally:
            await mesh.end()


def _children(state: Path, argument: bytes) -> list[int]:
    supervisor = daemon_process.running_pid(state)
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    found = []
    for child in children:
        with contextlib.suppress(OSError):
            if argument in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(int(child))
    return found
