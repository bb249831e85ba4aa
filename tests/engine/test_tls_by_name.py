"""Services that publish one port of the host, chosen by the server name of TLS clients."""

import asyncio
import shutil
import ssl
import tempfile
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.certificate_authority import Authority
from tests.support.mesh import TestMesh
from tests.support.ports import free_port
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.engine, pytest.mark.timeout(180)]
SERVER = """
import socket, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/files/%s.test.pem" % sys.argv[1], "/files/%s.test.key" % sys.argv[1])
with socket.create_server(("0.0.0.0", int(sys.argv[2]))) as server:
    while True:
        try:
            with context.wrap_socket(server.accept()[0], server_side=True) as client:
                client.sendall(sys.argv[1].encode())
        except OSError:
            pass  # a probe
"""
PORTS = {"a": 4001, "b": 4002}
"""Ports of the replicas."""


@pytest.fixture
async def mesh() -> AsyncIterator[TestMesh]:
    folder = Path(tempfile.mkdtemp(prefix="mt-"))
    made = TestMesh(folder, "docker", environment={"PROJECT": f"sni{uuid.uuid4().hex[:6]}"})
    yield made
    try:
        await made.end()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def compose(mesh: TestMesh, image: str, host_port: int, *names: str) -> str:
    lines = [f"name: {mesh.environment['PROJECT']}", "services:"]
    for name in names:
        port = PORTS[name]
        lines += [
            f"  {name}:",
            f"    image: {image}",
            f"    command: python3 /files/server.py {name} {port}",
            "    volumes: ['./files:/files:ro']",
            f"    ports: ['127.0.0.1:{host_port}:{port}']",
            "    stop_grace_period: 1s",
            f"    x-mesh: {{tcp: [{{port: {port}, sni: {name}.test}}]}}",
        ]
    return "\n".join(lines) + "\n"


async def test_the_server_name_chooses_the_service(mesh: TestMesh, engine_image: str) -> None:
    """The second service joins at the same port by a deployment; a name that none has is refused,
    and so is a second service with the same name."""
    files = mesh.folder / "files"
    authority = Authority(files)
    for name in PORTS:
        Path(authority.issue(f"{name}.test").key).chmod(0o644)
    (files / "server.py").write_text(SERVER)
    context, port = authority.client_context(), free_port()

    async def said(name: str) -> str:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=context, server_hostname=f"{name}.test"
        )
        try:
            return (await reader.readexactly(1)).decode()
        finally:
            writer.close()

    async def is_served(name: str) -> bool:
        try:
            return await said(name) == name
        except (OSError, asyncio.IncompleteReadError):
            return False

    up = await mesh.up(compose(mesh, engine_image, port, "a"))
    assert up.code == 0, up.err
    await wait_until(lambda: is_served("a"), 10, interval=0.2)
    with pytest.raises((ssl.SSLError, OSError)):
        await said("b")
    path = mesh.folder / "compose.yml"
    path.write_text(compose(mesh, engine_image, port, "a", "b"))
    deployed = await mesh.run("deploy", "-f", str(path))
    assert deployed.code == 0, deployed.err
    await wait_until(lambda: is_served("b"), 10, interval=0.2)
    assert await said("a") == "a"
    path.write_text(path.read_text().replace("sni: b.test", "sni: a.test"))
    refused = await mesh.run("deploy", "-f", str(path))
    assert refused.code == 1
    assert "is already published by a; publish another port, or give both different" in refused.err
