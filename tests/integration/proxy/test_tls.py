"""TLS of clients: handshakes, good and bad, and HTTP/1.1 over encrypted connections."""

import asyncio
import random
import socket
import ssl
import struct
from pathlib import Path

import pytest

from proxy.wire.snapshot import (
    AcmeChallenge,
    CertificateFiles,
    Generation,
    ListenerTls,
    Route,
    Snapshot,
    Target,
)
from tests.support.certificate_authority import Authority, Issued
from tests.support.proxy_scene import OK, Visit, answers, get, on_uvloop, post, service
from tests.support.tls_scene import TlsScene, tls_scene
from tests.support.waiting import elapse, stays, wait_until


async def raw(scene: TlsScene) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", scene.port)


async def ended(reader: asyncio.StreamReader) -> None:
    """Wait until the proxy has ended a connection."""
    try:
        async with asyncio.timeout(10):
            while await reader.read(65536):
                pass
    except ConnectionError:
        pass


@on_uvloop
async def test_many_requests_of_one_connection(tmp_path: Path) -> None:
    async with tls_scene(tmp_path) as scene:
        await scene.serve(answers(OK))
        client = await scene.secure()
        for number in range(20):
            await client.send(post(b"x" * 1000 * number))
            assert (await client.response())[0] == 200
        await client.send(get() * 10)
        for _ in range(10):
            assert (await client.response())[0] == 200


@on_uvloop
async def test_a_large_response_reaches_a_slow_client_whole(tmp_path: Path) -> None:
    body = random.Random(1).randbytes(3_000_000)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with tls_scene(tmp_path) as scene:
        await scene.serve(answers(head + body))
        client = await scene.secure()
        await client.send(get("/", "Connection: close"))
        await client.head()
        got = b""
        while len(got) < len(body):
            got += await client.reader.read(50_000)
            await asyncio.sleep(0)
        assert got == body
        assert await client.rest() == b""


@on_uvloop
async def test_a_large_upload_arrives_whole(tmp_path: Path) -> None:
    body = random.Random(2).randbytes(3_000_000)
    async with tls_scene(tmp_path) as scene:
        (origin,) = await scene.serve(answers(OK))
        client = await scene.secure()
        await client.send(post(body))
        assert (await client.response())[0] == 200
        assert origin.visits[0].raw.endswith(body)


@on_uvloop
async def test_a_response_before_the_end_of_an_upload_is_not_lost(tmp_path: Path) -> None:
    """The client sends on after the response: no reset may overtake it."""

    async def hasty(visit: Visit) -> None:
        await visit.head()
        await visit.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno")
        await visit.wait_closed()

    async with tls_scene(tmp_path) as scene:
        await scene.serve(hasty)
        client = await scene.secure()
        await client.send(post(b"x" * 5_000_000)[:200_000])
        await wait_until(lambda: not scene.plane.services["shop"].in_flight, 10, "answered")
        client.writer.write(b"x" * 300_000)
        status, head, _ = await client.response()
        assert status == 413
        assert b"Connection: close\r\n" in head


@on_uvloop
async def test_a_response_without_length_ends_with_the_connection(tmp_path: Path) -> None:
    async def unframed(visit: Visit) -> None:
        await visit.head()
        await visit.send(b"HTTP/1.0 200 OK\r\n\r\nall of it")
        visit.writer.close()

    async with tls_scene(tmp_path) as scene:
        await scene.serve(unframed)
        client = await scene.secure()
        await client.send(get(version="1.0"))
        assert (await client.head()).startswith(b"HTTP/1.1 200")
        assert await client.rest() == b"all of it"


@on_uvloop
async def test_a_tunnel_ends_with_either_side(tmp_path: Path) -> None:
    async def echo(visit: Visit) -> None:
        await visit.head()
        await visit.send(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
        )
        while (data := await visit.reader.read(1000)) not in (b"bye", b""):
            await visit.send(data)
        visit.writer.close()

    async with tls_scene(tmp_path) as scene:
        await scene.serve(echo)
        for last in (b"bye", b""):
            client = await scene.secure()
            await client.send(get("/", "Connection: Upgrade", "Upgrade: echo"))
            assert (await client.head()).startswith(b"HTTP/1.1 101")
            await client.send(b"hello")
            assert await client.exactly(5) == b"hello"
            if last:
                await client.send(last)
                assert await client.rest() == b""
            else:
                client.writer.transport.close()
            await wait_until(lambda: not scene.plane.clients, 10, "tunnel over")
        assert scene.plane.services["shop"].in_flight == 0


@on_uvloop
async def test_a_client_that_goes_cancels_its_request(tmp_path: Path) -> None:
    async def silent(visit: Visit) -> None:
        await visit.head()
        await visit.wait_closed()

    async with tls_scene(tmp_path) as scene:
        (origin,) = await scene.serve(silent)
        for abruptly in (False, True):
            client = await scene.secure()
            await client.send(get())
            await wait_until(lambda: scene.plane.services["shop"].in_flight == 1, 10, "sent")
            if abruptly:
                client.writer.transport.abort()
            else:
                client.close()
            await wait_until(lambda: scene.plane.services["shop"].in_flight == 0, 10, "cancelled")
        assert len(origin.visits) == 2


@on_uvloop
async def test_hsts_and_secure_cookies(tmp_path: Path) -> None:
    tls = ListenerTls(hsts="max-age=1000")
    own = OK.replace(b"\r\n\r\n", b"\r\nStrict-Transport-Security: max-age=5\r\n\r\n")
    async with tls_scene(tmp_path, tls=tls) as scene:
        await scene.serve(answers(OK, OK, own, OK))
        client = await scene.secure()
        for expected in (b"max-age=1000", b"max-age=1000", b"max-age=5", b"max-age=1000"):
            await client.send(get())
            _, head, _ = await client.response()
            lines = [each for each in head.split(b"\r\n") if b"Strict-Transport" in each]
            assert lines == [b"Strict-Transport-Security: " + expected]
        scene.install(service(name="other"), routes=())
        await client.send(get())
        status, head, _ = await client.response()
        assert status == 404
        assert b"Strict-Transport-Security: max-age=1000\r\n" in head


@on_uvloop
async def test_garbage_is_counted_and_not_logged_line_by_line(tmp_path: Path) -> None:
    problems: list[str] = []
    dice = random.Random(3)
    async with tls_scene(tmp_path, {"on_problem": problems.append}) as scene:
        await scene.serve(answers(OK))
        for junk in (
            get(),
            b"\x16\x03\x01\xff\xff" + dice.randbytes(70_000),
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc" + dice.randbytes(508),
            *(dice.randbytes(dice.randrange(5, 300)) for _ in range(20)),
        ):
            reader, writer = await raw(scene)
            writer.write(junk)
            await asyncio.sleep(0)
            if junk[:1] != b"\x16":
                await ended(reader)
            writer.close()
        await wait_until(lambda: not scene.plane.handshakes.pending, 10, "all ended")
        counts = scene.plane.handshakes.take()
        assert sum(counts.values()) == 23
        assert set(counts) <= {"invalid", "closed"}
        assert len(problems) == 1
        assert problems[0].startswith("TLS handshake with 127.0.0.1 failed: ")
        client = await scene.secure()
        await client.send(get())
        assert (await client.response())[0] == 200


@on_uvloop
async def test_a_request_in_clear_text_is_answered_in_clear_text(tmp_path: Path) -> None:
    async with tls_scene(tmp_path) as scene:
        for request, body in (
            (
                get(),
                b"400 Bad Request: The plain HTTP request was sent to an HTTPS port; use https://\n",
            ),
            (b"DELETE /a?b HTTP/1.0\r\n\r\n", b"use https://\n"),
            (b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", b"\r\n\r\n"),
        ):
            reader, writer = await raw(scene)
            writer.write(request)
            answer = await reader.read()
            writer.close()
            assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
            assert b"\r\nConnection: close\r\n" in answer
            assert answer.endswith(body)
        for junk in (b"GET", b"SSH-2.0-x\r\n" * 2, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):
            reader, writer = await raw(scene)
            writer.write(junk)
            writer.write_eof()
            assert not (await reader.read()).startswith(b"HTTP")
            writer.close()
        await wait_until(lambda: not scene.plane.handshakes.pending, 10, "all ended")
        counts = scene.plane.handshakes.take()
        assert counts["invalid"] + counts["closed"] == 6


@on_uvloop
async def test_slow_handshakes_have_a_deadline(tmp_path: Path) -> None:
    tls = ListenerTls(handshake_seconds=0.3)
    async with tls_scene(tmp_path, tls=tls) as scene:
        readers = [(await raw(scene)) for _ in range(5)]
        readers[0][1].write(b"\x16\x03\x01\x02")
        for reader, writer in readers:
            await ended(reader)
            writer.close()
        await wait_until(lambda: not scene.plane.handshakes.pending, 10, "all ended")
        assert scene.plane.handshakes.take() == {"timeout": 5}


@on_uvloop
async def test_an_address_has_few_unfinished_handshakes(tmp_path: Path) -> None:
    tls = ListenerTls(handshakes_per_address=3)
    async with tls_scene(tmp_path, tls=tls) as scene:
        await scene.serve(answers(OK))
        silent = [await raw(scene) for _ in range(3)]
        await wait_until(lambda: scene.plane.handshakes.pending == 3, 10, "pending")
        reader, writer = await raw(scene)
        await ended(reader)
        writer.close()
        assert scene.plane.handshakes.take() == {"limited": 1}
        silent[0][1].close()
        await wait_until(lambda: scene.plane.handshakes.pending == 2, 10, "one ended")
        client = await scene.secure()
        await client.send(get())
        assert (await client.response())[0] == 200
        for _, each in silent[1:]:
            each.close()


@on_uvloop
async def test_resets_during_the_handshake(tmp_path: Path) -> None:
    async with tls_scene(tmp_path) as scene:
        for _ in range(20):
            sock = socket.create_connection(("127.0.0.1", scene.port))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
        await wait_until(
            lambda: (
                scene.plane.handshakes.take() is not None and not scene.plane.handshakes.pending
            ),
            10,
            "ended",
        )


@on_uvloop
async def test_a_drain_waits_for_handshakes(tmp_path: Path) -> None:
    async with tls_scene(tmp_path) as scene:
        await scene.serve(answers(OK))
        context = scene.authority.client_context()
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context.wrap_bio(incoming, outgoing, server_hostname="shop.test")
        reader, writer = await raw(scene)
        await wait_until(lambda: scene.plane.handshakes.pending == 1, 10, "pending")
        scene.plane.start_drain(20.0)
        assert scene.plane.active() == 1
        while True:
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                writer.write(outgoing.read())
                incoming.write(await reader.read(65536))
        client.write(get())
        writer.write(outgoing.read())
        answer = b""
        while not answer.endswith(b"ok"):
            incoming.write(await reader.read(65536))
            try:
                answer += client.read(65536)
            except ssl.SSLWantReadError:
                continue
        assert b"Connection: close\r\n" in answer
        writer.close()
        await wait_until(lambda: not scene.plane.active(), 10, "drained")


@on_uvloop
async def test_an_idle_client_that_ignores_the_end_does_not_delay_a_drain(tmp_path: Path) -> None:
    async with tls_scene(tmp_path) as scene:
        await scene.serve(answers(OK))
        client = await scene.secure()
        await client.send(get())
        await client.response()
        client.writer.transport.pause_reading()
        scene.plane.start_drain(60.0)
        await wait_until(lambda: not scene.plane.active(), 5, "drained")
        await wait_until(lambda: not scene.plane.clients, 10, "closed")


@on_uvloop
async def test_certificates_and_challenges_of_the_snapshot(tmp_path: Path) -> None:
    async with tls_scene(tmp_path) as scene:
        await scene.serve(answers(OK))
        extra = scene.authority.issue("extra.test")
        probe = scene.authority.issue("probe", "extra.test")
        challenge = AcmeChallenge(
            "tls-alpn-01", "extra.test", certificate=CertificateFiles(probe.cert, probe.key)
        )
        with pytest.raises(ssl.SSLCertVerificationError):
            await scene.secure("extra.test")
        scene.tls.install(
            Snapshot(
                Generation(1, 2),
                certificates=(CertificateFiles(extra.cert, extra.key, ("extra.test",)),),
                challenges=(challenge,),
            )
        )
        client = await scene.secure("extra.test")
        await client.send(get())
        assert (await client.response())[0] == 200
        context = scene.authority.client_context()
        context.set_alpn_protocols(["acme-tls/1"])
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", scene.port, ssl=context, server_hostname="extra.test"
        )
        served = writer.get_extra_info("ssl_object").getpeercert()
        assert served["subject"] == ((("commonName", "probe"),),)
        assert await reader.read() == b""
        writer.close()
        # A silent client cannot hold a connection before its handshake begins.
        scene.tls.install(Snapshot(Generation(1, 3)))
        with pytest.raises(ssl.SSLCertVerificationError):
            await scene.secure("extra.test")


@on_uvloop
async def test_a_challenge_does_not_change_other_handshakes(tmp_path: Path) -> None:
    tls = ListenerTls(handshake_seconds=0.3)
    async with tls_scene(tmp_path, tls=tls) as scene:
        await scene.serve(answers(OK))
        files = CertificateFiles(scene.issued.cert, scene.issued.key)
        challenge = AcmeChallenge("tls-alpn-01", "x.test", certificate=files)
        scene.tls.install(Snapshot(Generation(1, 2), challenges=(challenge,)))
        client = await scene.secure()
        await client.send(get())
        assert (await client.response())[0] == 200
        scene.plane.handshakes.take()
        for junk in (b"", b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.1\r\n\r\n"):
            reader, writer = await raw(scene)
            writer.write(junk)
            await ended(reader)
            writer.close()
        reader, writer = await raw(scene)
        writer.close()
        await wait_until(lambda: not scene.plane.handshakes.pending, 10, "all ended")
        assert scene.plane.handshakes.take() == {"timeout": 2, "invalid": 1, "closed": 1}


@on_uvloop
async def test_a_challenge_that_ends_during_a_client_hello_does_not_break_it(
    tmp_path: Path,
) -> None:
    async with tls_scene(tmp_path) as scene:
        await scene.serve(answers(OK))
        files = CertificateFiles(scene.issued.cert, scene.issued.key)
        challenge = AcmeChallenge("tls-alpn-01", "x.test", certificate=files)
        scene.tls.install(Snapshot(Generation(1, 2), challenges=(challenge,)))
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = scene.authority.client_context()
        tls = context.wrap_bio(incoming, outgoing, server_hostname="shop.test")
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        hello = outgoing.read()
        reader, writer = await raw(scene)
        writer.write(hello[:100])
        await elapse(0.2, "the proxy reads the first piece")
        scene.tls.install(Snapshot(Generation(1, 3)))
        writer.write(hello[100:])
        while True:
            answer = await asyncio.wait_for(reader.read(65536), 10)
            assert answer, "the proxy has closed the connection"
            incoming.write(answer)
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                continue
        assert tls.version() == "TLSv1.3"
        writer.close()


@on_uvloop
async def test_idle_connections_are_kept(tmp_path: Path) -> None:
    async with tls_scene(tmp_path) as scene:
        await scene.serve(answers(OK))
        clients = [await scene.secure() for _ in range(10)]
        await wait_until(lambda: len(scene.plane.clients) == 10, 10, "accepted")
        await stays(lambda: len(scene.plane.clients) == 10, 0.3, "kept")
        for client in clients:
            await client.send(get())
            assert (await client.response())[0] == 200


async def ask_as(scene: TlsScene, identity: Issued | None) -> None:
    """Send a request. With TLS 1.3 a client learns only when it reads that it was refused."""
    client = await scene.secure(identity=identity)
    await client.send(get())
    await client.response()


@on_uvloop
async def test_client_certificates_are_required(tmp_path: Path) -> None:
    staff = Authority(tmp_path / "staff", "Staff")
    tls = ListenerTls(client_ca=staff.ca, client="required")
    problems: list[str] = []
    async with tls_scene(tmp_path, {"on_problem": problems.append}, tls=tls) as scene:
        (origin,) = await scene.serve(answers(OK))
        ann = staff.issue("ann", "ann.test", "spiffe://shop/ann")
        client = await scene.secure(identity=ann)
        for _ in range(3):
            await client.send(get("/", "X-Forwarded-Client-Cert: Hash=spoofed"))
            assert (await client.response())[0] == 200
        seen = origin.visits[0].raw
        expected = f'Hash={ann.digest};Subject="CN=ann";URI=spiffe://shop/ann;DNS=ann.test'
        assert seen.count(f"\r\nX-Forwarded-Client-Cert: {expected}\r\n".encode()) == 3
        assert b"spoofed" not in seen
        scene.plane.handshakes.take()
        old = staff.issue("old", since=-9, until=-1)
        for identity in (None, scene.authority.issue("eve"), old):
            with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
                await ask_as(scene, identity)
        await wait_until(lambda: not scene.plane.handshakes.pending, 10, "all ended")
        assert scene.plane.handshakes.take() == {"client_certificate": 3}
        assert len(problems) == 1
        assert len(origin.visits) == 1


@on_uvloop
async def test_a_route_requires_what_the_listener_asks_for(tmp_path: Path) -> None:
    staff = Authority(tmp_path / "staff", "Staff")
    tls = ListenerTls(client_ca=staff.ca, client="optional")
    async with tls_scene(tmp_path, tls=tls) as scene:
        origin = await scene.origin(answers(OK))
        admin = Route("admin", (Target("shop"),), path="/admin", client_certificate=True)
        scene.install(service(origin), routes=(Route("all", (Target("shop"),)), admin))
        ann = staff.issue("ann")
        for identity, path, expected in (
            (None, "/", 200),
            (None, "/admin/x", 403),
            # Some servers would read these as paths of the route that is guarded.
            (None, "/%61dmin", 400),
            (None, "//admin", 400),
            (ann, "/", 200),
            (ann, "/admin/x", 200),
        ):
            client = await scene.secure(identity=identity)
            for _ in range(1 if expected == 400 else 3):
                await client.send(get(path))
                assert (await client.response())[0] == expected, path
        assert b"".join(each.raw for each in origin.visits).count(b"GET /admin/x") == 3


@on_uvloop
async def test_a_certificate_that_a_trusted_proxy_names_is_kept(tmp_path: Path) -> None:
    tls = ListenerTls(client="optional", client_ca=Authority(tmp_path / "staff").ca)
    async with tls_scene(tmp_path, tls=tls) as scene:
        origin = await scene.origin(answers(OK))
        scene.install(service(origin), trusted_proxies=("127.0.0.1/32",))
        client = await scene.secure()
        await client.send(get("/", "X-Forwarded-Client-Cert: Hash=abc", "X-Forwarded-For: 1.2.3.4"))
        assert (await client.response())[0] == 200
        assert b"\r\nX-Forwarded-Client-Cert: Hash=abc\r\n" in origin.visits[0].raw
