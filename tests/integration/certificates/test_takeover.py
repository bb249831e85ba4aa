"""A daemon that takes over from another host has the certificates that this one has ordered."""

import contextlib
import socket
import ssl
import sys
from pathlib import Path

from meshd.certificates.values import AuthorityAccess
from proxy.supervisor import snapshot_file
from proxy.wire.snapshot import CertificateFiles, Generation, Snapshot
from tests.support.certificate_authority import Authority
from tests.support.mesh import TestMesh
from tests.support.ports import free_port
from tests.support.waiting import wait_until

COMPOSE = """\
name: shop
x-mesh:
  tls: {{acme: {{directory: '{directory}', ca: {ca}}}}}
services:
  web:
    command: [sh, -c, 'exec {python} -u -m http.server "$$PORT" --bind 127.0.0.1']
    x-mesh: {{routes: [{{host: shop.test, tls: auto}}], health: /, scale: {{min: 1, max: 1}}}}
"""


def answer(port: int, context: ssl.SSLContext) -> bytes:
    """Return the answer to a request over a new verified connection; empty without one."""
    with (
        contextlib.suppress(OSError),
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="shop.test") as client,
    ):
        client.sendall(b"GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n")
        return client.recv(65536)
    return b""


async def test_certificates_of_the_leader_before_are_served_without_an_order(
    tmp_path: Path,
) -> None:
    """The authority does not answer."""
    mesh = TestMesh(tmp_path, "process")
    port = int(mesh.address.rpartition(":")[2])
    directory = f"https://127.0.0.1:{free_port()}/dir"
    authority = Authority(tmp_path)
    issued, context = authority.issue("shop.test"), authority.client_context()
    there = f"/var/lib/meshd/certificates/{AuthorityAccess(directory).id}/shop.test.pem"
    content = Path(issued.key).read_text() + Path(issued.cert).read_text()
    held = CertificateFiles(there, names=("shop.test",), version="1", cert_pem=content)
    mesh.state.mkdir(mode=0o700)
    # The proxy of a daemon that stands by stores what the leader sends.
    snapshot_file.save(
        mesh.state / "snapshot.bin", Snapshot(Generation(0, 1), certificates=(held,))
    )
    try:
        up = await mesh.up(
            COMPOSE.format(directory=directory, ca=authority.ca, python=sys.executable)
        )
        assert up.code == 0, up.err
        await wait_until(
            lambda: answer(port, context).startswith(b"HTTP/1.1 200 "),
            20,
            (mesh.state / "daemon.log").read_text,
        )

        def stored() -> list[CertificateFiles]:
            found = snapshot_file.load(mesh.state / "snapshot.bin")
            return [each for each in found.certificates if not each.cert_pem] if found else []

        await wait_until(stored, 10, "the own snapshot has replaced the one before")
        (own,) = stored()
        assert Path(own.cert).is_relative_to(mesh.state)
        assert Path(own.cert).read_text() == content
        shown = await mesh.run("certificates")
        assert shown.code == 0, shown.out
        assert "valid" in shown.out
    finally:
        await mesh.end()
