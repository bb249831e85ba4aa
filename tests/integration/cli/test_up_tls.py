"""`meshd up` with TLS, as a user sees it: certificates of files, redirect, and mistakes."""

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.certificate_authority import Authority
from tests.support.mesh import TestMesh
from tests.support.ports import free_port
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.tool("curl")]
COMPOSE = """\
name: shop
x-mesh:
{settings}
services:
  web:
    command: [sh, -c, 'exec {python} -u -m http.server "$$PORT" --bind 127.0.0.1']
    x-mesh: {{routes: [{{host: shop.test}}], health: /, scale: {{min: 1, max: 1}}}}
"""


@pytest.fixture
async def mesh() -> AsyncIterator[TestMesh]:
    # A short path: the mesh's sockets are below it.
    with tempfile.TemporaryDirectory(prefix="mt-") as folder:
        made = TestMesh(Path(folder), "process")
        yield made
        await made.end()


async def curl(*arguments: str) -> str:
    """Run curl; return what it prints. Raises AssertionError if it fails."""
    process = await asyncio.create_subprocess_exec(
        "curl", "-sS", "-D", "-", "-o", "/dev/null", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()
    return out.decode()


async def test_certificates_of_files(mesh: TestMesh) -> None:
    """HTTP/2 with a verified certificate, HSTS, the redirect, `meshd certificates`, and new files
    that serve the next connection."""
    authority = Authority(mesh.folder)
    authority.issue("shop.test")
    plain = f"127.0.0.1:{free_port()}"
    port = mesh.address.rpartition(":")[2]
    settings = (
        "  tls: {cert: shop.test.pem, key: shop.test.key, hsts: 1d}\n"
        f"  listeners: {{'{plain}': {{redirect: https}}}}\n"
    )
    up = await mesh.up(COMPOSE.format(settings=settings, python=sys.executable), "--listen", plain)
    assert up.code == 0, up.err
    url = f"https://shop.test:{port}/"
    client = ("--cacert", authority.ca, "--connect-to", f"::127.0.0.1:{port}")
    answer = await curl(*client, url)
    assert answer.startswith("HTTP/2 200 ")
    assert "strict-transport-security: max-age=86400\r\n" in answer
    moved = await curl("-H", "Host: shop.test", f"http://{plain}/a?b")
    assert moved.startswith("HTTP/1.1 308 ")
    assert f"Location: https://shop.test:{port}/a?b\r\n" in moved
    (shown,) = json.loads((await mesh.run("certificates", "-o", "json")).out)
    assert (shown["names"], shown["state"], shown["source"]) == (["shop.test"], "valid", "file")

    renewed = authority.issue("new", "shop.test", "www.shop.test")
    os.replace(renewed.key, mesh.folder / "shop.test.key")
    os.replace(renewed.cert, mesh.folder / "shop.test.pem")

    async def is_served() -> bool:
        try:
            await curl(*client, f"https://www.shop.test:{port}/missing")
        except AssertionError:
            return False
        return True

    await wait_until(is_served, 10, interval=0.2)
    assert (await curl(*client, url)).startswith("HTTP/2 200 ")


async def test_mistakes_start_nothing(mesh: TestMesh) -> None:
    """Each ends with exit code 2 and a line that says what to do; nothing runs afterwards."""
    authority = Authority(mesh.folder)
    authority.issue("shop.test")
    other = authority.issue("other.test")
    at = mesh.address
    cases = (
        (f"  tls: {{cert: shop.test.pem, key: {other.key}}}", "is not the key of the certificate"),
        ("  tls: {cert: no.pem}", "no.pem cannot be read: No such file or directory"),
        ("  tls: {crt: shop.test.pem}", ":3: x-mesh.tls.crt: unknown key; did you mean cert?"),
        ("  tls: {}", "no certificate; expected cert and key, certificates, or acme"),
        (f"  listeners: {{'{at}': {{redirect: https}}}}", "has no target, because no address has"),
        ("  listeners: {'a:1': {redirect: https}}", "a:1 is not an address of --listen; add"),
    )
    for settings, problem in cases:
        up = await mesh.up(COMPOSE.format(settings=settings, python=sys.executable))
        assert up.code == 2, up.out + up.err
        assert problem in up.err, up.err
        assert "Traceback" not in up.err
    assert mesh.processes() == {}
    refused = await mesh.up(
        COMPOSE.format(settings="  via: true", python=sys.executable).replace(
            "host: shop.test", "host: shop.test, tls: auto"
        )
    )
    assert refused.code == 1
    assert (
        "the route shop.test has tls: auto, but this daemon orders no certificates" in refused.err
    )
    assert mesh.processes() == {}
