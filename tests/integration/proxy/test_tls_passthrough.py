"""TLS connections that are passed on as they are, by the host that their client asks for."""

import asyncio
import json
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxy.tls.client_hello import ClientHello, parse_client_hello
from proxy.transport.proxy_header import ProxiedAddress, build_header
from proxy.wire.snapshot import Listener
from proxy.worker import client_hello_reader
from proxy.worker.handover import Handover
from tests.integration.proxy.test_command import meshd_proxy
from tests.processes.traffic import origin
from tests.support.certificate_authority import Authority, server_context
from tests.support.proxy_scene import Visit, on_uvloop, service
from tests.support.tcp_scene import TcpScene, is_refused, is_reset
from tests.support.waiting import stays, wait_until
from tests.unit.proxy.tls.test_client_hello import first_bytes, split_records

NAMES = (("db.test", "db"), ("*.shop.test", "shop"), ("*.eu.shop.test", "eu"))


@asynccontextmanager
async def listening(
    default: str = "", networks: tuple[str, ...] = ()
) -> AsyncIterator[tuple[TcpScene, dict[str, list[bytes]]]]:
    """A scene whose listener leads to services by name. Each server notes what it receives in the
    dictionary, and sends the service's name."""
    s = TcpScene({})
    received: dict[str, list[bytes]] = {}
    try:
        found = []
        for name in ("db", "shop", "eu", "other"):

            async def note(visit: Visit, name: str = name) -> None:
                data = b""
                received.setdefault(name, []).append(data)
                while part := await visit.reader.read(65536):
                    received[name][-1] += part
                    await visit.send(name.encode())

            found.append(service(await s.origin(note), name=name, protocol="tcp"))
        s.install(*found, routes=())
        listener = Listener(
            "127.0.0.1:0", "published", service=default, server_names=NAMES, proxy_protocol=networks
        )
        await s.hand_over(Handover(s.plane, s.attachments, s.tcp.start), listener)
        yield s, received
    finally:
        await s.close()


async def service_of(s: TcpScene, hello: bytes) -> bytes:
    """Return the name of the service that answers; empty if the connection is reset."""
    client = await s.ask(hello)
    try:
        return await client.exactly(2)
    except (ConnectionResetError, asyncio.IncompleteReadError):
        return b""


@on_uvloop
async def test_the_name_leads_to_the_service() -> None:
    async with listening() as (s, received):
        hello = first_bytes("DB.test")
        assert await service_of(s, hello) == b"db"
        assert received["db"] == [hello]
        assert await service_of(s, first_bytes("a.shop.test")) == b"sh"
        assert await service_of(s, first_bytes("a.b.shop.test")) == b"sh"
        assert await service_of(s, first_bytes("a.eu.shop.test")) == b"eu"
        for unknown in ("shop.test", "x.db.test", "other.test", None):
            assert await service_of(s, first_bytes(unknown)) == b""
        assert dict(s.plane.report(0.0, 1.0).refused) == {"no-service": 4}


@on_uvloop
async def test_other_names_lead_to_the_service_of_the_listener() -> None:
    async with listening(default="other") as (s, received):
        for unknown in ("shop.test", None):
            hello = first_bytes(unknown)
            assert await service_of(s, hello) == b"ot"
            assert received["other"].pop() == hello
        assert await service_of(s, first_bytes("db.test")) == b"db"


@on_uvloop
async def test_a_message_in_many_parts() -> None:
    """Parts arrive one after the other; the service gets all of them, and what follows."""
    async with listening() as (s, received):
        hello = split_records(first_bytes("db.test"), 100)
        client = await s.client()
        for at in range(0, len(hello), 40):
            await client.send(hello[at : at + 40])
            await asyncio.sleep(0)
        await client.send(b"more")
        await client.exactly(2)
        await wait_until(lambda: received["db"] == [hello + b"more"], 10, "all of it")


@on_uvloop
async def test_what_is_not_tls_is_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_hello_reader, "HELLO_SECONDS", 0.3)
    async with listening(default="other") as (s, received):
        hello = first_bytes("db.test")
        too_long = b"\x16\x03\x01\x40\x00\x01\x00\x50\x00"
        # Also a client that sends nothing, or only a part, and one that ends its side after that.
        for sent in (b"GET / HTTP/1.1\r\n\r\n", too_long, b"", hello[:-1]):
            assert await is_refused(s, sent)
        half = await s.ask(hello[:-1])
        half.writer.write_eof()
        assert await is_reset(half)
        assert dict(s.plane.report(0.0, 1.0).refused) == {"client-hello": 5}
        gone = await s.client()
        gone.writer.write_eof()
        assert await gone.rest() == b""
        assert not s.plane.report(0.0, 1.0).refused
        assert received == {}


@on_uvloop
async def test_a_part_of_a_message_costs_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The part stays in the socket, which is not looked at until more arrives."""
    looks: list[int] = []

    def count(data: bytes) -> ClientHello | None:
        looks.append(len(data))
        return parse_client_hello(data)

    monkeypatch.setattr(client_hello_reader, "parse_client_hello", count)
    async with listening() as (s, _):
        hello = first_bytes("db.test")
        client = await s.ask(hello[:50])
        await wait_until(lambda: looks == [50], 10, "looked at")
        await stays(lambda: looks == [50], 0.3, "not looked at again")
        await client.send(hello[50:])
        assert await client.exactly(2) == b"db"
        assert looks == [50, len(hello)]


@on_uvloop
async def test_a_proxy_header_comes_first() -> None:
    async with listening(networks=("127.0.0.0/8",)) as (s, received):
        hello = first_bytes("db.test")
        header = build_header("v2", ProxiedAddress("203.0.113.9", 40000, "127.0.0.1", 443))
        client = await s.ask(header + hello)
        await client.exactly(2)
        assert received["db"] == [hello]
        (session,) = s.plane.clients
        assert session.peer == "203.0.113.9"


def curl(authority: Authority, address: str, host: str) -> tuple[int, str]:
    """Fetch `https://HOST/x` at an address; return curl's exit code and the answer."""
    done = subprocess.run(
        ["curl", "--silent", "--max-time", "20", "--cacert", authority.ca, "--connect-to",
         f"{host}:443:{address}", f"https://{host}/x"],
        capture_output=True, check=False, text=True,
    )  # fmt: skip
    return done.returncode, done.stdout


@pytest.mark.tool("curl")
async def test_curl_reaches_the_servers_with_their_own_certificates(tmp_path: Path) -> None:
    """One address, three services; each server ends TLS itself."""
    authority = Authority(tmp_path)

    def context(*names: str) -> ssl.SSLContext:
        return server_context(authority.issue(*names))

    async with (
        origin("a", tls=context("a.test")) as a,
        origin("b", tls=context("x.b.test", "*.b.test")) as b,
        origin("c", tls=context("localhost")) as c,
    ):
        file, log = tmp_path / "front.yml", tmp_path / "access.log"
        file.write_text(
            "tcp:\n"
            f"- {{listen: 127.0.0.1:0, sni: a.test, to: 127.0.0.1:{a.port}}}\n"
            f"- {{listen: 127.0.0.1:0, sni: '*.b.test', to: 127.0.0.1:{b.port}}}\n"
            f"- {{listen: 127.0.0.1:0, to: 127.0.0.1:{c.port}}}\n"
            f"access_log: {{mode: on, path: {log}}}\n"
        )
        with meshd_proxy(tmp_path, "--config", str(file)) as running:
            address = await running.listening()
            assert running.bound() == [address]
            for host, answer in (
                ("a.test", (0, "a /x")),
                ("one.b.test", (0, "b /x")),
                ("localhost", (0, "c /x")),
                ("other.test", (60, "")),  # reaches c, whose certificate has another name
            ):
                assert await asyncio.to_thread(curl, authority, address, host) == answer
            await wait_until(lambda: log.read_text().count("\n") == 4, 10, "logged")
    assert [json.loads(line)["service"] for line in log.read_text().splitlines()] == [
        "proxy/a.test", "proxy/wildcard.b.test", "proxy/tcp-0", "proxy/tcp-0",
    ]  # fmt: skip
