"""`meshd proxy` with TLS: settings, files that change, worker replacement and upgrade."""

import asyncio
import os
import signal
import ssl
from pathlib import Path

import pytest

from tests.integration.proxy.test_command import meshd_proxy
from tests.processes.traffic import SteadyClients, end, fetch, origin
from tests.support.certificate_authority import Authority, Issued
from tests.support.waiting import wait_until


async def served(address: str, tls: ssl.SSLContext) -> str:
    """Return the serial number of the certificate that a new connection gets."""
    host, _, port = address.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port), ssl=tls, server_hostname="localhost")
    try:
        return str(writer.get_extra_info("peercert")["serialNumber"])
    finally:
        await end(writer)


def replace_files(target: Issued, source: Issued) -> None:
    """Replace the files of a certificate, as renewal tools do: each one by a rename."""
    for old, new in ((target.key, source.key), (target.cert, source.cert)):
        os.replace(new, old)


async def test_certificates_are_replaced_under_load(tmp_path: Path) -> None:
    """New files are served without a failed request; a bad pair is not, also not by a worker that
    starts meanwhile."""
    authority = Authority(tmp_path)
    current, next_one = authority.issue("localhost"), authority.issue("other", "localhost")
    tls = authority.client_context()
    async with origin() as behind:
        file = tmp_path / "front.yml"
        file.write_text(
            "listen: [{address: '127.0.0.1:0', tls: {cert: localhost.pem, key: localhost.key}}]\n"
            f"to: 127.0.0.1:{behind.port}\nworkers: 2\n"
        )
        with meshd_proxy(tmp_path, "--config", str(file)) as running:
            address = await running.listening()
            assert f"listening on {address} with TLS\n" in running.said
            load = SteadyClients(address, tls=tls)
            load.start(clients=4)
            first = await served(address, tls)
            await wait_until(lambda: load.good > 50, 20, "load runs")
            replace_files(current, next_one)
            await wait_until(lambda: "was read again: localhost" in running.said, 20, "read")

            async def is_served() -> bool:
                return await served(address, tls) != first

            # The workers get it a moment after the supervisor has read it.
            await wait_until(is_served, 10, "new certificate")
            second = await served(address, tls)
            Path(current.key).write_bytes(b"no key")
            await wait_until(lambda: "the previous ones stay in use" in running.said, 20, "refused")
            assert f"{current.key} has no private key in PEM format" in running.said
            victim = running.workers()[0]
            os.kill(victim, signal.SIGKILL)
            await wait_until(
                lambda: len(running.workers()) == 2 and victim not in running.workers(), 20, "new"
            )
            good = load.good
            await wait_until(lambda: load.good > good + 50, 20, "load continues")
            assert {await served(address, tls) for _ in range(10)} == {second}
            await load.stop()
            assert running.said.count("the previous ones stay in use") == 1
            # The connections of the worker that was killed are lost, and no others.
            assert len(load.failures) <= 4, load.failures


async def test_an_upgrade_loses_no_encrypted_request(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    issued = authority.issue("localhost")
    tls = authority.client_context()
    async with origin() as behind:
        options = ("--listen", "127.0.0.1:0", "--to", f"127.0.0.1:{behind.port}")
        files = ("--tls-cert", issued.cert, "--tls-key", issued.key, "--workers", "2")
        with meshd_proxy(tmp_path, *options, *files) as running:
            address = await running.listening()
            workers = running.workers()
            load = SteadyClients(address, tls=tls)
            load.start(clients=4)
            slow = asyncio.create_task(fetch(address, "/slow/2", tls))
            await wait_until(lambda: load.good > 50, 20, "load runs")
            running.signal(signal.SIGUSR2)
            await wait_until(lambda: not set(running.workers()) & set(workers), 40, "old ones gone")
            assert await slow == (200, "a /slow/2")
            good = load.good
            await wait_until(lambda: load.good > good + 50, 20, "load continues")
            await load.stop()
            assert load.failures == []
            # An upgrade that could not serve is refused.
            workers = running.workers()
            Path(issued.cert).unlink()
            running.signal(signal.SIGUSR2)
            await wait_until(lambda: f"{issued.cert} cannot be read" in running.said, 20, "refused")
            assert await fetch(address, "/x", tls) == (200, "a /x")
            assert running.workers() == workers
            running.signal(signal.SIGTERM)
            assert await running.ended() == 0


async def test_sessions_are_resumed_on_any_worker(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    issued = authority.issue("localhost")
    tls = authority.client_context()
    tls.maximum_version = ssl.TLSVersion.TLSv1_2
    async with origin() as behind:
        options = ("--listen", "127.0.0.1:0", "--to", f"127.0.0.1:{behind.port}", "--workers", "4")
        files = ("--tls-cert", issued.cert, "--tls-key", issued.key)
        with meshd_proxy(tmp_path, *options, *files) as running:
            host, _, port = (await running.listening()).rpartition(":")

            def resume(session: ssl.SSLSession | None) -> tuple[ssl.SSLSession | None, bool]:
                import socket

                with (
                    socket.create_connection((host, int(port)), 10) as plain,
                    tls.wrap_socket(
                        plain, server_hostname="localhost", session=session
                    ) as encrypted,
                ):
                    return encrypted.session, bool(encrypted.session_reused)

            session, _ = await asyncio.to_thread(resume, None)
            # The kernel spreads connections over four workers.
            for _ in range(20):
                assert (await asyncio.to_thread(resume, session))[1]


@pytest.mark.parametrize("broken", ["missing", "mismatch", "expired"])
async def test_bad_files_are_refused_before_anything_is_bound(tmp_path: Path, broken: str) -> None:
    authority = Authority(tmp_path)
    good = authority.issue("localhost")
    cert, key, expected = {
        "missing": ("no.pem", good.key, "cannot be read: No such file or directory"),
        "mismatch": (good.cert, authority.issue("b").key, "is not the key of the certificate in"),
        "expired": (*files_of(authority.issue("old", since=-3, until=-1)), "expired on 20"),
    }[broken]
    options = ("--listen", "127.0.0.1:0", "--to", "127.0.0.1:9")
    with meshd_proxy(tmp_path, *options, "--tls-cert", cert, "--tls-key", key) as running:
        assert await running.ended() == 2
        assert running.said.startswith("meshd proxy: 127.0.0.1:0: tls: ")
        assert expected in running.said
        assert "listening" not in running.said
        assert len(running.said.splitlines()) == 1


def files_of(issued: Issued) -> tuple[str, str]:
    return issued.cert, issued.key


async def test_a_listener_that_redirects(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    issued = authority.issue("localhost")
    async with origin() as behind:
        file = tmp_path / "front.yml"
        file.write_text(
            "listen: ['127.0.0.1:0', {address: 'unix:plain.sock', redirect: https}]\n"
            f"to: 127.0.0.1:{behind.port}\n"
            f"tls: {{cert: {issued.cert}, key: {issued.key}}}\n"
        )
        file.write_text(file.read_text().replace("unix:plain.sock", f"unix:{tmp_path}/plain.sock"))
        with meshd_proxy(tmp_path, "--config", str(file)) as running:
            address = await running.listening()
            assert (await fetch(address, "/", authority.client_context()))[0] == 200
            reader, writer = await asyncio.open_unix_connection(f"{tmp_path}/plain.sock")
            for target, location in (
                ("/a?b=c", "https://shop.test/a?b=c"),
                ("/", "https://shop.test/"),
                ("http://shop.test/abs", "https://shop.test/abs"),
            ):
                writer.write(f"GET {target} HTTP/1.1\r\nHost: Shop.test:80\r\n\r\n".encode())
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 308 ")
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                await reader.readexactly(length)
                assert f"\r\nLocation: {location}\r\n".encode() in head
            writer.close()
            assert behind.requests == 1
