"""TCP connections pass through the mesh as they are, over real loopback sockets."""

import asyncio
import hashlib
import os
import socket
from typing import Any

import pytest

from proxy.observe.access_log import AccessLog
from proxy.request.sinks import ClientSink
from proxy.tcp import direction, pipes
from proxy.tcp.session import TcpSession
from proxy.transport.connect import RESET
from proxy.wire.report import ServiceReport
from proxy.wire.snapshot import Balance, Ejection, Endpoint, Limits, Parking, Retries, Timeouts
from proxy.wire.snapshot import Service as WireService
from tests.support.ports import free_port
from tests.support.proxy_scene import Origin, Visit, on_uvloop
from tests.support.tcp_scene import ask, echo, is_refused, is_reset, slow_reader, tcp_scene
from tests.support.waiting import elapse, settled, wait_until

NO_RETRY = Retries(attempts=0)


def named(name: bytes) -> Any:
    """Return a script that speaks first, then echoes."""

    async def script(visit: Visit) -> None:
        await visit.send(name + b"\n")
        await echo(visit)

    return script


def to_port(*ports: int, **config: Any) -> WireService:
    endpoints = tuple(Endpoint(id=f"db-{port}", host="127.0.0.1", port=port) for port in ports)
    return WireService(name="db", fingerprint="1", protocol="tcp", endpoints=endpoints, **config)


def abort_by_reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    sock.close()


def endpoint_of(report: ServiceReport) -> Any:
    (endpoint,) = report.endpoints
    return endpoint


# --- passing bytes


@on_uvloop
async def test_a_client_may_speak_first() -> None:
    async with tcp_scene() as s:
        await s.serve(echo)
        client = await s.client()
        for _ in range(3):
            assert await ask(client, b"ping") == b"ping"


@on_uvloop
async def test_a_server_may_speak_first() -> None:
    async with tcp_scene() as s:
        await s.serve(named(b"220 ready"))
        client = await s.client()
        assert await client.until(b"\n") == b"220 ready\n"


@on_uvloop
async def test_a_client_that_ended_its_side_gets_the_rest() -> None:
    async def count(visit: Visit) -> None:
        data = await visit.reader.read()
        await visit.send(str(len(data)).encode())

    async with tcp_scene() as s:
        await s.serve(count)
        client = await s.client()
        await client.send(b"x" * 300_000)
        client.writer.write_eof()
        assert await client.rest() == b"300000"
        await s.sessions(0)


@on_uvloop
async def test_a_server_that_ended_its_side_gets_the_rest() -> None:
    got = asyncio.get_running_loop().create_future()

    async def farewell(visit: Visit) -> None:
        await visit.send(b"bye")
        visit.writer.write_eof()
        got.set_result(await visit.reader.read())

    async with tcp_scene() as s:
        await s.serve(farewell)
        client = await s.client()
        assert await client.rest() == b"bye"
        await client.send(b"still here")
        client.writer.write_eof()
        assert await asyncio.wait_for(got, 10) == b"still here"
        await s.sessions(0)


@pytest.mark.parametrize("size", [1, direction.COPY_SIZE, direction.COPY_SIZE + 1, 5_000_000])
@pytest.mark.parametrize("can_splice", [True, False])
def test_bytes_arrive_unchanged(
    size: int, can_splice: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direction, "CAN_SPLICE", can_splice)

    @on_uvloop
    async def run() -> None:
        async with tcp_scene() as s:
            await s.serve(echo)
            client = await s.client()
            data = os.urandom(size)
            sending = asyncio.ensure_future(client.send(data))
            assert await client.exactly(size) == data
            await sending
            client.writer.write_eof()
            assert await client.rest() == b""
            await s.sessions(0)
            report = s.report()
            assert (report.bytes_in, report.bytes_out) == (size, size)
            assert s.tcp.pipes.taken == 0

    run()


@on_uvloop
async def test_small_messages_after_bulk_data_are_not_delayed() -> None:
    async with tcp_scene() as s:
        await s.serve(echo)
        client = await s.client()
        for size in (2_000_000, 1, 100, 400_000, 7):
            sending = asyncio.ensure_future(client.send(b"x" * size))
            assert len(await client.exactly(size)) == size
            await sending


@pytest.mark.parametrize("can_splice", [True, False])
def test_a_slow_reader_slows_its_sender_down(
    can_splice: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direction, "CAN_SPLICE", can_splice)
    total = 64 * 1024 * 1024
    block = os.urandom(1 << 20)

    @on_uvloop
    async def run() -> None:
        sent = 0

        async def flood(visit: Visit) -> None:
            nonlocal sent
            while sent < total:
                await visit.send(block)
                sent += len(block)

        async with tcp_scene() as s:
            await s.serve(flood)
            client = slow_reader(s.port)
            await wait_until(lambda: s.plane.clients and sent)
            await settled(lambda: sent, 0.3)
            assert sent < total // 2, "the sender was not slowed down"
            assert s.tcp.pipes.taken <= 1
            digest = hashlib.sha256()
            left = total
            while left:
                data = await s.loop.sock_recv(client, 1 << 20)
                assert data
                digest.update(data)
                left -= len(data)
            expected = hashlib.sha256()
            for _ in range(total // len(block)):
                expected.update(block)
            assert digest.digest() == expected.digest()
            client.close()

    run()


def is_blocked(session: ClientSink) -> bool:
    """Whether a session holds bytes that its client does not take."""
    return isinstance(session, TcpSession) and bool(session._down and session._down.is_blocked)


@on_uvloop
async def test_many_slow_readers_share_few_pipes() -> None:
    async def flood(visit: Visit) -> None:
        while True:
            await visit.send(b"x" * 1_000_000)

    async with tcp_scene() as s:
        await s.serve(flood)
        clients = [slow_reader(s.port) for _ in range(40)]
        await s.sessions(len(clients))
        await wait_until(lambda: all(map(is_blocked, s.plane.clients)), 20, "all wait")
        assert s.tcp.pipes.taken <= len(clients), "none if the last bytes were copied"
        assert s.tcp.pipes.large <= pipes.MAX_LARGE
        for client in clients:
            client.close()
        await s.sessions(0)
        assert s.tcp.pipes.taken == 0
        assert s.tcp.pipes.large <= pipes.MAX_IDLE


@on_uvloop
async def test_a_thousand_connections_at_a_time() -> None:
    async with tcp_scene() as s:
        await s.serve(echo)
        clients = [await s.client() for _ in range(1000)]
        answers = await asyncio.gather(
            *(ask(client, b"%04d" % number) for number, client in enumerate(clients))
        )
        assert answers == [b"%04d" % number for number in range(1000)]
        assert len(s.plane.clients) == 1000
        for client in clients:
            client.close()
        await s.sessions(0)
        assert endpoint_of(s.report()).in_flight == 0


# --- ends


@on_uvloop
async def test_a_reset_of_the_client_reaches_the_server() -> None:
    reset = asyncio.get_running_loop().create_future()

    async def watch(visit: Visit) -> None:
        try:
            await visit.reader.read()
            reset.set_result(False)
        except ConnectionResetError:
            reset.set_result(True)

    async with tcp_scene() as s:
        await s.serve(watch)
        client = socket.create_connection(("127.0.0.1", s.port))
        client.send(b"hello")
        await wait_until(lambda: s.origins[0].visits)
        abort_by_reset(client)
        assert await asyncio.wait_for(reset, 10)
        await s.sessions(0)
        assert s.report().failures == {"client-gone": 1}


@on_uvloop
async def test_a_reset_of_the_server_reaches_the_client() -> None:
    async def reset(visit: Visit) -> None:
        await visit.send(b"half an ans")
        await visit.read(1)
        visit.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    async with tcp_scene() as s:
        await s.serve(reset)
        client = await s.client()
        assert await client.exactly(11) == b"half an ans"
        await client.send(b"x")
        assert await is_reset(client)
        assert s.report().failures == {"broken": 1}


def error_of(stream: asyncio.StreamWriter) -> int:
    """Return the pending error of a socket; 0 for none."""
    sock = stream.get_extra_info("socket")
    return int(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))


@on_uvloop
async def test_a_reset_of_a_client_that_had_ended_its_side_reaches_the_server() -> None:
    ended, done = asyncio.Event(), asyncio.Event()

    async def work(visit: Visit) -> None:
        await visit.reader.read()
        ended.set()
        await done.wait()

    async with tcp_scene() as s:
        await s.serve(work)
        client = socket.create_connection(("127.0.0.1", s.port))
        client.send(b"compute")
        client.shutdown(socket.SHUT_WR)
        await asyncio.wait_for(ended.wait(), 10)
        (visit,) = s.origins[0].visits
        assert not error_of(visit.writer)
        await s.sessions(1)
        abort_by_reset(client)
        await s.sessions(0)
        await wait_until(lambda: error_of(visit.writer), 10)
        assert s.report().failures == {"client-gone": 1}
        done.set()


@on_uvloop
async def test_a_reset_of_a_server_that_had_ended_its_side_reaches_the_client() -> None:
    ending = asyncio.Event()

    async def reset(visit: Visit) -> None:
        await visit.send(b"bye")
        visit.writer.write_eof()
        await ending.wait()
        visit.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    async with tcp_scene() as s:
        await s.serve(reset)
        client = await s.client()
        assert await client.rest() == b"bye"
        await s.sessions(1)
        assert not error_of(client.writer)
        ending.set()
        await s.sessions(0)
        await wait_until(lambda: error_of(client.writer), 10)
        assert s.report().failures == {"broken": 1}


@on_uvloop
async def test_what_a_server_says_before_it_closes_reaches_a_client_that_still_sends() -> None:
    async def refuse(visit: Visit) -> None:
        await visit.send(b"too many connections\n")

    async with tcp_scene() as s:
        await s.serve(refuse)
        client = await s.client()
        assert await client.until(b"\n") == b"too many connections\n"
        for _ in range(20):
            try:
                await client.send(b"x" * 10_000)
            except ConnectionError:
                break
        await s.sessions(0)


@on_uvloop
async def test_an_idle_session_ends() -> None:
    async with tcp_scene() as s:
        await s.serve(echo, timeouts=Timeouts(tunnel=0.3))
        client = await s.client()
        assert await ask(client, b"a") == b"a"
        assert await is_reset(client)
        assert s.report().failures == {"idle-timeout": 1}


@on_uvloop
async def test_traffic_in_one_direction_keeps_a_session() -> None:
    async def tick(visit: Visit) -> None:
        for _ in range(4):
            await visit.send(b".")
            await elapse(0.5, "less than the timeout")

    async with tcp_scene() as s:
        await s.serve(tick, timeouts=Timeouts(tunnel=1.5))
        client = await s.client()
        assert await client.rest() == b"." * 4


# --- choosing an endpoint


@on_uvloop
async def test_connections_go_to_the_endpoint_with_the_fewest() -> None:
    async with tcp_scene() as s:
        origins = await s.serve(echo, echo, echo)
        for _ in range(30):
            await ask(await s.client(), b"x")
        assert [len(origin.visits) for origin in origins] == [10, 10, 10]


@on_uvloop
async def test_hashing_by_the_source_address() -> None:
    async with tcp_scene() as s:
        origins = await s.serve(echo, echo, echo, balance=Balance("maglev"))
        for _ in range(12):
            await ask(await s.client(), b"x")
        assert sorted(len(origin.visits) for origin in origins) == [0, 0, 12]


@on_uvloop
async def test_a_refused_connection_is_tried_elsewhere() -> None:
    async with tcp_scene() as s:
        origin = await s.origin(echo)
        s.install(to_port(free_port(), origin.port), routes=())
        for _ in range(4):
            assert await ask(await s.client(), b"x") == b"x"
        report = s.report()
        assert report.retries >= 1
        assert report.codes == {"TCP 2xx": 4}
        assert report.failures == {}


@on_uvloop
async def test_refused_connections_eject_an_endpoint() -> None:
    ejected = []
    plane = {"on_ejected": lambda *what: ejected.append(what)}
    async with tcp_scene(plane) as s:
        origin = await s.origin(echo)
        bad = free_port()
        s.install(to_port(bad, origin.port, ejection=Ejection(consecutive=2)), routes=())
        for _ in range(10):
            await ask(await s.client(), b"x")
        assert [(service, endpoint) for service, endpoint, _, _ in ejected] == [("db", f"db-{bad}")]
        assert s.report().ejections == 1


@on_uvloop
async def test_a_client_is_reset_if_no_endpoint_accepts() -> None:
    async with tcp_scene() as s:
        s.install(to_port(free_port(), retries=NO_RETRY), routes=())
        assert await is_refused(s)
        report = s.report()
        assert report.failures == {"connect": 1}
        assert report.codes == {"TCP 5xx": 1}
        assert endpoint_of(report).failed == 1
        assert endpoint_of(report).in_flight == 0


@on_uvloop
async def test_an_endpoint_that_does_not_accept_in_time() -> None:
    full = socket.socket()
    full.bind(("127.0.0.1", 0))
    full.listen(0)
    waiting = []
    for _ in range(3):
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(full.getsockname())
        waiting.append(sock)
    try:
        async with tcp_scene() as s:
            port = full.getsockname()[1]
            timeouts = Timeouts(connect=0.3)
            s.install(to_port(port, timeouts=timeouts, retries=NO_RETRY), routes=())
            assert await is_refused(s)
            assert s.report().failures == {"connect-timeout": 1}
    finally:
        for sock in (*waiting, full):
            sock.close()


# --- waiting


@on_uvloop
async def test_a_connection_waits_until_an_endpoint_is_ready() -> None:
    woken = []
    async with tcp_scene({"on_wake": lambda *what: woken.append(what)}) as s:
        s.install_db()
        client = await s.client()
        await client.send(b"early")
        await wait_until(lambda: woken)
        assert woken == [("db", 1)]
        assert s.report().parked == 1
        s.install_db(await s.origin(echo))
        assert await client.exactly(5) == b"early"
        report = s.report()
        assert report.parked == 0
        assert report.queue_seconds > 0


@on_uvloop
async def test_a_connection_does_not_wait_for_ever() -> None:
    async with tcp_scene() as s:
        s.install_db(parking=Parking(timeout=0.3))
        assert await is_refused(s)
        report = s.report()
        assert report.failures == {"parked": 1}
        assert report.parked == 0


@on_uvloop
async def test_too_many_connections_that_wait_are_refused() -> None:
    async with tcp_scene() as s:
        s.install_db(parking=Parking(requests=2))
        first, second = await s.client(), await s.client()
        await s.sessions(2)
        assert await is_refused(s)
        assert s.report().failures == {"no-endpoint": 1}
        s.install_db(await s.origin(echo))
        assert await ask(first, b"1") == b"1"
        assert await ask(second, b"2") == b"2"


@on_uvloop
async def test_a_client_that_resets_while_it_waits_gives_up_its_place() -> None:
    async with tcp_scene() as s:
        s.install_db()
        client = socket.create_connection(("127.0.0.1", s.port))
        await s.sessions(1)
        abort_by_reset(client)
        await s.sessions(0)
        report = s.report()
        assert report.failures == {"client-gone": 1}
        assert report.parked == 0


@on_uvloop
async def test_limits_of_connections_hold_and_the_next_one_follows() -> None:
    async with tcp_scene() as s:
        await s.serve(echo, limits=Limits(endpoint_connections=2))
        first, second, third = await s.client(), await s.client(), await s.client()
        assert await ask(first, b"1") == b"1"
        assert await ask(second, b"2") == b"2"
        await third.send(b"3")
        await wait_until(lambda: s.plane.services["db"].counters.queued == 1)
        first.close()
        assert await third.exactly(1) == b"3"


@on_uvloop
async def test_a_full_service_refuses_after_the_pending_timeout() -> None:
    async with tcp_scene() as s:
        await s.serve(echo, limits=Limits(service_in_flight=1, pending_timeout=0.3))
        client = await s.client()
        assert await ask(client, b"1") == b"1"
        assert await is_refused(s)
        assert s.report().failures == {"queued": 1}
        assert await ask(client, b"1") == b"1"


# --- replacing endpoints and workers


@on_uvloop
async def test_a_draining_endpoint_keeps_its_sessions_and_gets_no_new_ones() -> None:
    changes = []
    async with tcp_scene({"on_busy_changed": lambda: changes.append(1)}) as s:
        old, new = await s.origin(named(b"old")), await s.origin(named(b"new"))
        s.install_db(old)
        client = await s.client()
        assert await client.until(b"\n") == b"old\n"
        s.install(to_port(new.port), routes=())
        assert s.plane.busy() == ("db-0",)
        assert await (await s.client()).until(b"\n") == b"new\n"
        assert await ask(client, b"still") == b"still"
        client.close()
        await wait_until(lambda: changes)
        assert s.plane.busy() == ()


@on_uvloop
async def test_a_worker_that_drains_keeps_open_sessions() -> None:
    async with tcp_scene() as s:
        await s.serve(echo)
        client = await s.client()
        assert await ask(client, b"1") == b"1"
        s.plane.start_drain()
        assert s.plane.active() == 1
        assert await ask(client, b"2") == b"2"
        client.close()
        await wait_until(lambda: s.plane.active() == 0)


@on_uvloop
async def test_a_drain_ends_sessions_after_the_time_for_tunnels() -> None:
    async with tcp_scene() as s:
        await s.serve(echo, drain_tunnels=2.0)
        client = await s.client()
        assert await ask(client, b"1") == b"1"
        s.plane.start_drain(0.0)
        await elapse(0.25, "the time for requests is over")
        assert await ask(client, b"2") == b"2"
        await wait_until(lambda: s.plane.active() == 0, 5)


@on_uvloop
async def test_a_killed_endpoint_ends_its_sessions_and_no_others() -> None:
    async with tcp_scene() as s:
        origins = await s.serve(echo, echo)
        clients = [await s.client() for _ in range(2)]
        for client in clients:
            await ask(client, b"x")
        await wait_until(lambda: all(origin.visits for origin in origins))
        origins[0].stop()
        ended = await asyncio.wait(
            [asyncio.ensure_future(client.rest()) for client in clients],
            timeout=10,
            return_when=asyncio.FIRST_COMPLETED,
        )
        assert len(ended[0]) == 1
        for task in ended[1]:
            task.cancel()


@on_uvloop
async def test_closing_the_plane_ends_everything() -> None:
    async with tcp_scene() as s:
        await s.serve(echo)
        client = await s.client()
        await ask(client, b"x")
        s.plane.close()
        assert await is_reset(client)
        assert not s.plane.clients


# --- counting


@on_uvloop
async def test_sessions_are_counted_and_logged() -> None:
    log = AccessLog()
    async with tcp_scene({"access_log": log}) as s:
        await s.serve(echo)
        client = await s.client()
        assert await ask(client, b"hello") == b"hello"
        report = s.report()
        assert (report.arrivals, report.codes) == (1, {"TCP 2xx": 1})
        assert (report.bytes_in, report.bytes_out) == (5, 5)
        assert (report.calls, report.call_seconds) == ({"demo/api": 1}, {})
        assert report.total.counts == {}, "a duration says nothing about the endpoint"
        endpoint = endpoint_of(report)
        assert (endpoint.in_flight, endpoint.started, endpoint.succeeded) == (1, 1, 1)
        assert sum(endpoint.latency.counts.values()) == 1
        assert report.streams == 1
        assert 0 < report.stream_seconds <= endpoint.busy_seconds
        assert log.take() == b""
        client.close()
        await s.sessions(0)
        line = log.take().decode()
        for part in ('"method":"TCP"', '"status":200', '"service":"db"', '"endpoint":"db-0"'):
            assert part in line
        assert '"bytes_in":5,"bytes_out":5' in line
        report = s.report()
        assert endpoint_of(report).in_flight == 0
        assert (report.streams, report.stream_seconds > 0) == (0, True)


@on_uvloop
async def test_the_plane_counts_sessions_as_connections() -> None:
    async with tcp_scene() as s:
        await s.serve(echo)
        for _ in range(3):
            await ask(await s.client(), b"x")
        assert s.plane.report(0.0, 1.0).connections == 3


@on_uvloop
async def test_connections_wait_while_the_endpoint_accepts_none() -> None:
    async with tcp_scene() as s:
        port = free_port()
        parking = Parking(timeout=20.0, on_refusal=True)
        s.install(to_port(port, parking=parking), routes=())
        clients = [await s.client() for _ in range(50)]
        for number, client in enumerate(clients):
            await client.send(b"%02d" % number)
        await wait_until(lambda: s.plane.services["db"].counters.parked == 50)
        s.origins.append(await Origin(echo).start(port))
        for number, client in enumerate(clients):
            assert await client.exactly(2) == b"%02d" % number
        endpoint = s.plane.services["db"].endpoints[f"db-{port}"]
        assert endpoint.opening == 0
        report = s.report()
        assert (report.parked, report.failures) == (0, {})
