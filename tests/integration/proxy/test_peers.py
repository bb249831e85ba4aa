"""From proxy to proxy: requests and TCP connections reach endpoints of another node over mutually
authenticated TLS, and nothing else gets through that port."""

import asyncio
import contextlib
import hashlib
import math
import os
import socket
import ssl
import time
from pathlib import Path

import msgspec
import pytest

from meshd.discovery.probe import ProbeOpening, probe
from meshd.model.peers import PeerHop
from meshd.node_proxy.authority import CLOCK_SKEW, load_chain
from meshd.spec.model import HealthCheck
from proxy.ipc.config import PeerConfig
from proxy.peer import routes
from proxy.peer.protocol import (
    PEER_ALPN,
    PeerAnswer,
    certificate_name,
    decode_request,
    encode_request,
    read_name,
)
from proxy.policy import locality
from proxy.request import upstream
from proxy.transport import upstream_tls
from proxy.transport.connect import RESET
from proxy.wire.snapshot import (
    Balance,
    Endpoint,
    Generation,
    Parking,
    Retries,
    Snapshot,
    UpstreamTls,
)
from tests.support.certificate_authority import Authority, server_context
from tests.support.http2_origin import echo as echo_http2
from tests.support.http2_origin import http2_origin, with_http2
from tests.support.peer_scene import RECEIVER, SENDER, Mesh, PeerPort, PeerScene, peer_scene
from tests.support.proxy_scene import OK, Visit, answers, get, named_ok, on_uvloop, post, service
from tests.support.silent_ports import silent_ports
from tests.support.tcp_scene import TcpScene, ask, echo, is_reset
from tests.support.tcp_server import start_server
from tests.support.waiting import wait_until

SECRET = b"a-marker-that-no-wire-may-show"


def reset(visit: Visit) -> None:
    sock = visit.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    visit.abort()


# --- requests


@on_uvloop
async def test_requests_go_through_on_one_connection(tmp_path: Path) -> None:
    async with peer_scene(tmp_path) as s:
        (origin,) = await s.serve(answers(OK))
        client = await s.front.ask(get())
        assert (await client.response())[0] == 200
        body = b"x" * 300_000
        await client.send(post(body))
        assert (await client.response())[0] == 200
        assert body in origin.visits[0].raw
        assert len(origin.visits) == 1, "the connection is used again"


async def test_requests_go_through_on_the_event_loop_of_python(tmp_path: Path) -> None:
    async with peer_scene(tmp_path) as s:
        await s.serve(answers(OK))
        assert (await (await s.front.ask(get())).response())[0] == 200


@on_uvloop
async def test_a_response_until_the_end_of_the_connection(tmp_path: Path) -> None:
    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.send(b"HTTP/1.1 200 OK\r\n\r\nall of it")

    async with peer_scene(tmp_path) as s:
        await s.serve(script)
        client = await s.front.ask(get(version="1.0"))
        assert (await client.rest()).endswith(b"\r\n\r\nall of it")


@on_uvloop
async def test_a_response_that_breaks_off_is_not_complete(tmp_path: Path) -> None:
    """The reset of the endpoint arrives as one: a clean end would end the response."""

    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.send(b"HTTP/1.1 200 OK\r\n\r\na part")
        await asked.wait()
        reset(visit)

    async with peer_scene(tmp_path) as s:
        asked = asyncio.Event()
        await s.serve(script, retries=Retries(attempts=0))
        client = await s.front.ask(get(version="1.0"))
        await client.until(b"a part")
        asked.set()
        with pytest.raises(ConnectionResetError):
            await client.rest()


@on_uvloop
async def test_a_refusal_is_known_before_a_byte_is_sent(tmp_path: Path) -> None:
    """So a request that must not be sent twice goes to another endpoint."""
    async with peer_scene(tmp_path) as s:
        good = await s.front.origin(answers(named_ok(b"good")))
        gone = await s.front.origin(answers(named_ok(b"gone")))
        gone.stop()
        s.install(service(good, gone, balance=Balance("round-robin")))
        for number in range(6):
            client = await s.front.ask(post(b"once-%d" % number))
            assert (await client.response())[2] == b"good"
        sent = b"".join(visit.raw for visit in good.visits)
        assert [sent.count(b"once-%d" % number) for number in range(6)] == [1] * 6
        assert s.peer.refused()["peer-refused"] >= 1


@on_uvloop
async def test_endpoints_of_the_own_node_are_preferred(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locality, "ADJUST_SECONDS", math.inf)  # half of the requests stay
    async with peer_scene(tmp_path) as s:
        here, *others = [await s.front.origin(answers(OK)) for _ in range(4)]
        one = service(here, *others, balance=Balance("least-request"))
        nodes = [SENDER.upper(), RECEIVER, RECEIVER, RECEIVER]
        ends = [
            msgspec.structs.replace(e, node=n) for e, n in zip(one.endpoints, nodes, strict=True)
        ]
        alone = msgspec.structs.replace(one, endpoints=tuple(ends[:1]))
        spread = msgspec.structs.replace(one, endpoints=tuple(ends))
        s.peer.plane.install(Snapshot(Generation(1, 1), services=(spread,), peers=s.peers()))
        for service_now, prefers in ((alone, False), (spread, True)):
            s.front.install(service_now, peers=s.peers())
            assert s.front.plane.services["shop"].prefers_node is prefers
        client = await s.front.client()
        for _ in range(200):
            await client.send(get())
            assert (await client.response())[0] == 200
        (report,) = s.front.plane.report(0.0, 1.0).services
        served = {each.id: each.succeeded for each in report.endpoints}
        assert 90 < served["shop-0"] < 180, "a quarter without a preference"
        assert all(served[each.id] for each in ends)
        started = {each.id: each.started for each in report.endpoints}
        assert report.other_node == sum(started.values()) - started["shop-0"]


@on_uvloop
async def test_http2_goes_through(tmp_path: Path) -> None:
    async with peer_scene(tmp_path, **with_http2()) as s, http2_origin(echo_http2) as origin:
        endpoint = Endpoint("shop-0", "127.0.0.1", origin.port)
        made = service(http_version="h2c")
        s.install(msgspec.structs.replace(made, endpoints=(endpoint,)))
        clients = [await s.front.ask(get(f"/{number}")) for number in range(10)]
        for number, client in enumerate(clients):
            assert (await client.response())[2] == b"GET /%d " % number
        assert len(origin.connections) == 1


@on_uvloop
async def test_tls_and_the_proxy_header_of_an_endpoint_go_through(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    context = server_context(authority.issue("orders.test"))
    async with peer_scene(tmp_path) as s:
        inside = await s.front.origin(answers(OK), context)
        s.install(service(inside, tls=UpstreamTls(ca=authority.ca, server_name="orders.test")))
        assert (await (await s.front.ask(get())).response())[0] == 200

        async def script(visit: Visit) -> None:
            await visit.reader.readline()
            await answers(OK)(visit)

        headed = await s.front.origin(script)
        s.install(service(headed, proxy_protocol="v1"))
        assert (await (await s.front.ask(get())).response())[0] == 200


@on_uvloop
async def test_connections_are_replaced_between_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a worker of the other proxy that must go has none soon."""
    monkeypatch.setattr(upstream, "PEER_SECONDS", 0.05)
    async with peer_scene(tmp_path) as s:
        (origin,) = await s.serve(answers(OK))
        assert (await (await s.front.ask(get())).response())[0] == 200
        await wait_until(lambda: not s.peer.plane.clients)
        assert (await (await s.front.ask(get())).response())[0] == 200
        assert len(origin.visits) == 2
        handshakes = s.peer.plane.report(0.0, 1.0).handshakes
        assert handshakes == {"complete": 1, "resumed": 1}


# --- connections of TCP


@on_uvloop
async def test_tcp_goes_through_in_both_directions(tmp_path: Path) -> None:
    data = os.urandom(3_000_000)

    async def script(visit: Visit) -> None:
        await visit.send(b"220 ready\n")
        seen = await visit.reader.read()
        await visit.send(hashlib.sha256(seen).hexdigest().encode())
        await visit.send(data)

    async with peer_scene(tmp_path, TcpScene) as s:
        s.install(service(await s.front.origin(script), name="db", protocol="tcp"))
        client = await s.front.client()
        assert await client.until(b"\n") == b"220 ready\n", "the endpoint speaks first"
        await client.send(data)
        client.writer.write_eof()
        assert await client.exactly(64) == hashlib.sha256(data).hexdigest().encode()
        assert await client.rest() == data, "the other direction continued"
        await wait_until(lambda: not s.front.plane.clients and not s.peer.plane.clients)


@on_uvloop
async def test_a_reset_goes_through_in_both_directions(tmp_path: Path) -> None:
    async with peer_scene(tmp_path, TcpScene) as s:
        ended: list[Exception | None] = []

        async def script(visit: Visit) -> None:
            try:
                while data := await visit.reader.read(100):
                    if data == b"break":
                        reset(visit)
                        return
                    await visit.send(data)
                ended.append(None)
            except ConnectionResetError as error:
                ended.append(error)

        s.install(service(await s.front.origin(script), name="db", protocol="tcp"))
        client = await s.front.client()
        assert await ask(client, b"ping") == b"ping"
        await client.send(b"break")
        assert await is_reset(client)
        other = await s.front.client()
        assert await ask(other, b"ping") == b"ping"
        sock = other.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        other.writer.transport.abort()
        await wait_until(lambda: ended)
        assert isinstance(ended[0], ConnectionResetError)
        await wait_until(lambda: not s.peer.plane.clients)


@on_uvloop
async def test_a_tcp_session_finds_an_endpoint_that_accepts(tmp_path: Path) -> None:
    async with peer_scene(tmp_path, TcpScene) as s:
        gone, good = await s.front.origin(echo), await s.front.origin(echo)
        gone.stop()
        made = service(gone, good, name="db", protocol="tcp", balance=Balance("round-robin"))
        s.install(made)
        for _ in range(4):
            assert await ask(await s.front.client(), b"ping") == b"ping"


# --- who may use the port


def client_context(mesh: Mesh, folder: Path, chain: str = "") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=mesh.authority.certificate)
    context.set_alpn_protocols(list(PEER_ALPN))
    if chain:
        load_chain(context, chain, folder)
    return context


def chain_of(config: PeerConfig) -> str:
    return Path(config.certificate).read_text()


async def ask_port(s: PeerScene, context: ssl.SSLContext | None, request: bytes) -> bytes:
    """Send bytes to the port and return the first byte that comes back; empty for none."""
    name = certificate_name(RECEIVER) if context is not None else None
    writer = None
    try:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", s.peer.port, ssl=context, server_hostname=name
        )
        writer.write(request)
        return await asyncio.wait_for(reader.read(1), 20)
    except (ssl.SSLError, ConnectionError):
        return b""
    finally:
        if writer is not None:
            writer.transport.abort()


@on_uvloop
async def test_only_nodes_of_the_mesh_get_through(tmp_path: Path) -> None:
    async with peer_scene(tmp_path) as s:
        (origin,) = await s.serve(answers(OK))
        request = encode_request(origin.port)
        mine, old, ended = (
            client_context(s.mesh, tmp_path, chain_of(s.mesh.enroll(SENDER, age=age)))
            for age in (0.0, 0.0, 8 * 86400.0)
        )
        foreign = chain_of(Mesh(tmp_path / "other").enroll(SENDER))
        removed = chain_of(s.mesh.enroll("w9"))
        key, token = s.mesh.authority.issue_join("t1", time.time(), 3600.0)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        for case, context in {
            "no TLS": None,
            "no certificate": client_context(s.mesh, tmp_path),
            "another mesh": client_context(s.mesh, tmp_path, foreign),
            "expired": ended,
            "TLS 1.2": old,
        }.items():
            assert await ask_port(s, context, request) == b"", case
        for case, context in {
            "a join token": client_context(s.mesh, tmp_path, key + token),
            "a node that was removed": client_context(s.mesh, tmp_path, removed),
        }.items():
            assert await ask_port(s, context, request) == bytes((PeerAnswer.FORBIDDEN,)), case
        assert not origin.visits
        assert await ask_port(s, mine, request) == bytes((PeerAnswer.CONNECTED,))
        mine.set_alpn_protocols(["http/1.1"])
        assert await ask_port(s, mine, request) == bytes((PeerAnswer.FORBIDDEN,)), "its protocol"


@on_uvloop
async def test_it_leads_to_endpoints_of_its_node_alone(tmp_path: Path) -> None:
    async with peer_scene(tmp_path) as s:
        elsewhere, listening = await s.front.origin(answers(OK)), await s.front.origin(answers(OK))
        mine = client_context(s.mesh, tmp_path, chain_of(s.mesh.enroll(SENDER)))
        s.install(service(elsewhere), node=SENDER)
        unknown = bytes((PeerAnswer.UNKNOWN,))
        for port in (elsewhere.port, listening.port, 0, 22):
            assert await ask_port(s, mine, encode_request(port)) == unknown, port
        s.install(service(elsewhere))
        for request in (
            b"GET / HTTP/1.1\r\n\r\n",
            b"\0" * 6,
            encode_request(elsewhere.port) + b"x",
        ):
            assert await ask_port(s, mine, request) == unknown, request
        assert s.peer.refused()["peer-unknown"] == 7
        assert not elsewhere.visits
        assert not listening.visits


@on_uvloop
async def test_a_node_with_the_certificate_of_another_one_gets_nothing(tmp_path: Path) -> None:
    async with peer_scene(tmp_path) as s:
        (origin,) = await s.serve(
            answers(OK), retries=Retries(attempts=0), parking=Parking(0, 0, 0.0)
        )
        posing = PeerPort(s.mesh.enroll("w9"))
        await posing.start()
        try:
            s.install(
                service(origin, retries=Retries(attempts=0)),
                peers={SENDER: 0, RECEIVER: posing.port},
            )
            client = await s.front.ask(get())
            assert (await client.response())[0] == 502
            assert not origin.visits
        finally:
            posing.stop()


@pytest.mark.parametrize(("joined", "status"), [(-60, 200), (3600, 502)])
@pytest.mark.parametrize("node", [SENDER, RECEIVER])
@on_uvloop
async def test_a_certificate_from_before_the_node_joined_gets_nothing(
    tmp_path: Path, node: str, joined: int, status: int
) -> None:
    """A node was removed, and another one has joined under its name. On both sides the certificate
    of the first one is refused, although it is still valid."""
    async with peer_scene(tmp_path) as s:
        origin = await s.front.origin(answers(OK))
        made = service(origin, retries=Retries(attempts=0), parking=Parking(0, 0, 0.0))
        s.install(made, valid_from={node: int(time.time() - CLOCK_SKEW) + joined})
        client = await s.front.ask(get())
        assert (await client.response())[0] == status
        assert len(origin.visits) == (status == 200)
        assert s.peer.refused() == (
            {"peer-forbidden": 1} if (node, status) == (SENDER, 502) else {}
        )


# --- what is on the wire


class Wire:
    """Passes the bytes between the two proxies on, and keeps them."""

    def __init__(self, to: int) -> None:
        self.seen = bytearray()
        self._to = to

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._to)

        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                while data := await source.read(65536):
                    self.seen += data
                    target.write(data)
            target.close()

        await asyncio.gather(copy(reader, back), copy(there, writer))
        for each in (back, writer):
            with contextlib.suppress(ConnectionError):
                await each.wait_closed()


@pytest.mark.parametrize("enrolled", [True, False])
@on_uvloop
async def test_no_byte_of_a_request_is_on_the_wire(tmp_path: Path, enrolled: bool) -> None:
    """Without a proxy of the node, where that is allowed, all bytes are: so they would be seen."""
    async with peer_scene(tmp_path) as s:
        s.requires = False
        origin = await s.front.origin(answers(named_ok(SECRET)))
        wire = Wire(s.peer.port if enrolled else origin.port)
        async with contextlib.AsyncExitStack() as closing:
            server = await start_server(wire.serve)
            closing.push_async_callback(server.close)
            made = service(origin)
            if enrolled:
                peers = {SENDER: 0, RECEIVER: server.port}
                s.install(made, peers=peers)
            else:
                where = msgspec.structs.replace(made.endpoints[0], port=server.port)
                s.install(
                    msgspec.structs.replace(made, endpoints=(where,)),
                    peers={SENDER: 0, RECEIVER: 0},
                )
            client = await s.front.ask(get(f"/{SECRET.decode()}"))
            assert (await client.response())[2] == SECRET
            await client.send(post(SECRET))
            assert (await client.response())[2] == SECRET
            assert SECRET in origin.visits[0].raw
            assert (SECRET in wire.seen) is not enrolled
            client.close()
            s.front.plane.close()
            s.peer.stop()


@on_uvloop
async def test_clear_text_is_not_used_where_it_is_forbidden(tmp_path: Path) -> None:
    async with peer_scene(tmp_path) as s:
        origin = await s.front.origin(answers(OK))
        for peers in ({SENDER: 0, RECEIVER: 0}, {}):
            s.install(service(origin, retries=Retries(attempts=0)), peers=peers)
            assert (await (await s.front.ask(get())).response())[0] == 502
        assert not origin.visits


@on_uvloop
async def test_endpoints_of_the_own_node_are_reached_directly(tmp_path: Path) -> None:
    async with peer_scene(tmp_path) as s:
        origin = await s.front.origin(answers(OK))
        s.install(service(origin), node=SENDER)
        assert (await (await s.front.ask(get())).response())[0] == 200
        assert not s.peer.plane.report(0.0, 1.0).handshakes


# --- probes


def hop_of(s: PeerScene, port: int | None = None) -> PeerHop:
    config = s.mesh.enroll(SENDER)
    return PeerHop(
        RECEIVER, s.peer.port if port is None else port, config.certificate, config.authority
    )


@on_uvloop
async def test_probes_reach_replicas_that_do_not_serve_yet(tmp_path: Path) -> None:
    async with peer_scene(tmp_path) as s:
        origin = await s.front.origin(answers(OK))
        check, opening = HealthCheck(path="/", timeout=5.0), ProbeOpening(peer=hop_of(s))
        s.install()
        assert await probe("127.0.0.1", origin.port, check, "", opening) == "connection refused"
        s.peer.plane.install(
            Snapshot(
                Generation(1, 9),
                peers=s.peers(),
                starting=(Endpoint("shop-0", "127.0.0.1", origin.port, node=RECEIVER),),
            )
        )
        assert await probe("127.0.0.1", origin.port, check, "", opening) is None
        origin.stop()
        assert await probe("127.0.0.1", origin.port, check, "", opening) == "connection refused"
        nowhere = ProbeOpening(peer=hop_of(s, 0))
        answer = await probe("127.0.0.1", origin.port, check, "", nowhere)
        assert answer == "node w1 has no proxy: run `meshd node join` there"


@on_uvloop
async def test_a_probe_of_a_proxy_of_another_mesh_says_so(tmp_path: Path) -> None:
    async with peer_scene(tmp_path) as s:
        config = Mesh(tmp_path / "other").enroll(SENDER)
        hop = PeerHop(RECEIVER, s.peer.port, config.certificate, config.authority)
        opening, check = ProbeOpening(peer=hop), HealthCheck(path="/", timeout=5.0)
        answer = await probe("127.0.0.1", 80, check, "", opening)
        assert answer == "its certificate is signed by an unknown CA"


# --- over time


@on_uvloop
async def test_a_renewed_certificate_is_used_without_a_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream_tls, "FILE_CHECK", 0.0)
    async with peer_scene(tmp_path) as s:
        (origin,) = await s.serve(answers(OK))
        client = await s.front.ask(get())
        assert (await client.response())[0] == 200
        s.mesh.enroll(SENDER)
        s.install(service(origin))
        await client.send(get())
        assert (await client.response())[0] == 200
        assert len(origin.visits) == 1
        (state,) = s.front.plane.services["shop"].endpoints.values()
        state.take_expired(float("inf"))[0].discard()
        await client.send(get())
        assert (await client.response())[0] == 200
        assert s.peer.plane.report(0.0, 1.0).handshakes == {"complete": 2}, "with the new one"


@on_uvloop
async def test_a_proxy_that_starts_again_gets_requests(tmp_path: Path) -> None:
    async with peer_scene(tmp_path) as s:
        (origin,) = await s.serve(answers(OK), parking=Parking(on_refusal=True))
        client = await s.front.ask(get())
        assert (await client.response())[0] == 200
        port = s.peer.port
        s.peer.stop()
        await client.send(get())
        s.peer = PeerPort(s.peer.config)
        await s.peer.start(port)
        s.install(service(origin, parking=Parking(on_refusal=True)))
        assert (await client.response())[0] == 200


@on_uvloop
async def test_a_node_that_is_silent_is_lost(tmp_path: Path) -> None:
    ejected: list[str] = []
    on_ejected = lambda _, id, __, cause: ejected.append(cause)  # noqa: E731
    async with peer_scene(tmp_path, on_ejected=on_ejected) as s:
        origins = [await s.front.origin(answers(OK)) for _ in range(3)]
        good = await s.front.origin(answers(named_ok(b"good")))
        lost, here = service(*origins), service(good, name="here")
        with silent_ports(1) as (port,):
            own = msgspec.structs.replace(here.endpoints[0], node=SENDER)
            away = tuple(msgspec.structs.replace(each, node=RECEIVER) for each in lost.endpoints)
            made = msgspec.structs.replace(
                service(balance=Balance("round-robin"), parking=Parking(on_refusal=True)),
                endpoints=(*away, own),
            )
            peers = {SENDER: 0, RECEIVER: port}
            s.front.install(made, peers=peers, requires_peers=True)
            clients = [await s.front.ask(get()) for _ in range(8)]
            for client in clients:
                assert (await client.response())[2] == b"good"
            await wait_until(lambda: len(ejected) == 3)
        assert ejected[-1] == "node w1 does not answer: 2 of 3 replicas are silent"


@on_uvloop
async def test_a_worker_that_must_go_waits_for_its_connections(tmp_path: Path) -> None:
    async with peer_scene(tmp_path, TcpScene) as s:
        s.install(service(await s.front.origin(echo), name="db", protocol="tcp"))
        client = await s.front.client()
        assert await ask(client, b"ping") == b"ping"
        s.peer.plane.start_drain(0.0)
        assert await ask(client, b"pong") == b"pong"
        assert s.peer.plane.active() == 1
        s.peer.plane.limit_tunnels(0.0)
        assert await is_reset(client)
        await wait_until(lambda: not s.peer.plane.active())


# --- messages


def test_requests_and_names() -> None:
    assert decode_request(encode_request(80)) == 80
    assert [decode_request(each) for each in (b"99999\n", b"0x050\n", b"00080 ", b"\n")] == [0] * 4
    assert read_name(("w1.node.meshd.internal", "w1.peer.meshd.internal")) == "w1"
    for names in (
        (),
        ("w1.node.meshd.internal",),
        ("a.peer.meshd.internal", "b.peer.meshd.internal"),
    ):
        assert read_name(names) == ""
    assert routes.NO_PEERS.find(Endpoint("a", "10.0.0.1", 80, node="w1")) is None
