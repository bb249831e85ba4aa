"""gRPC through the proxy, with real clients and servers."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
from grpc_health.v1 import health_pb2

from meshd.discovery.probe import ProbeOpening, probe
from meshd.spec.model import HealthCheck
from proxy.observe.access_log import AccessLog
from proxy.wire.snapshot import (
    Balance,
    Ejection,
    Endpoint,
    Limits,
    Parking,
    Retries,
    Service,
    Timeouts,
    UpstreamTls,
)
from tests.support.certificate_authority import Authority
from tests.support.grpc_service import EchoClient, EchoService, grpc_server
from tests.support.http2 import create_client
from tests.support.http2_origin import Call, Handler, http2_origin, with_http2
from tests.support.proxy_policies import service_report
from tests.support.proxy_scene import Scene, on_uvloop, post, scene
from tests.support.tcp_server import start_server
from tests.support.waiting import elapse, elapse_blocking, wait_until

T = TypeVar("T")


def install(s: Scene, *ports: int, **config: Any) -> None:
    endpoints = tuple(Endpoint(f"shop-{n}", "127.0.0.1", port) for n, port in enumerate(ports))
    s.install(Service("shop", "1", endpoints, **{"http_version": "h2c", **config}))


@asynccontextmanager
async def grpc_scene(
    *, plane: dict[str, Any] | None = None, **config: Any
) -> AsyncIterator[tuple[Scene, EchoService, EchoClient]]:
    """A scene between a real client and a real server."""
    arguments = with_http2(create_http2_client=create_client, **(plane or {}))
    async with scene(arguments) as s:
        with grpc_server() as (service, port, _):
            install(s, port, **config)
            client = EchoClient(s.port)
            try:
                yield s, service, client
            finally:
                await asyncio.to_thread(client.close)


async def run(work: Callable[[], T]) -> T:
    return await asyncio.wait_for(asyncio.to_thread(work), 60)


@on_uvloop
async def test_every_kind_of_call() -> None:
    async with grpc_scene() as (s, _, client):
        assert await run(lambda: client.unary(b"hello")) == b"hello"
        assert await run(lambda: client.unary(b"")) == b""
        large = b"x" * 3_000_000
        assert await run(lambda: client.unary(large)) == large
        assert await run(lambda: list(client.count_up(b"5"))) == [b"0", b"1", b"2", b"3", b"4"]
        numbers = [b"%d" % number for number in range(100)]
        assert await run(lambda: client.sum_up(iter(numbers))) == b"4950"
        assert await run(lambda: list(client.chat(iter(numbers)))) == numbers
        report: Any = service_report(s)
        assert report.grpc == {
            "/shop.Echo/Unary OK": 3,
            "/shop.Echo/CountUp OK": 1,
            "/shop.Echo/SumUp OK": 1,
            "/shop.Echo/Chat OK": 1,
        }
        assert report.codes == {"POST 2xx": 6}
        assert report.endpoints[0].succeeded == 6


@on_uvloop
async def test_ten_thousand_messages_each_way() -> None:
    async with grpc_scene() as (_, _, client):
        numbers = [b"%d" % number for number in range(10_000)]
        assert await run(lambda: list(client.chat(iter(numbers)))) == numbers


@on_uvloop
async def test_a_conversation_in_which_each_message_waits_for_the_answer() -> None:
    async with grpc_scene() as (_, _, client):

        def talk() -> list[bytes]:
            heard = threading.Semaphore(1)
            answers = []

            def speak() -> Iterator[bytes]:
                for number in range(200):
                    heard.acquire()
                    yield b"%d" % number

            for answer in client.chat(speak()):
                answers.append(answer)
                heard.release()
            return answers

        assert await run(talk) == [b"%d" % number for number in range(200)]


@on_uvloop
async def test_binary_metadata() -> None:
    async with grpc_scene() as (_, _, client):
        value = bytes(range(256))

        def call() -> Any:
            _, made = client.unary.with_call(b"", metadata=(("x-answer-bin", value),))
            return dict(made.trailing_metadata())

        assert (await run(call))["x-answer-bin"] == value


@on_uvloop
async def test_errors_of_the_server_pass_and_count() -> None:
    async with grpc_scene(ejection=Ejection(consecutive=0)) as (s, _, client):
        for name in ("NOT_FOUND", "INTERNAL", "UNAVAILABLE", "PERMISSION_DENIED"):
            code, text = await run(
                lambda name=name: client.code_of(lambda: client.fail(name.encode()))
            )
            assert (code.name, text) == (name, "as you wish")
        code, _ = await run(lambda: client.code_of(lambda: client.missing(b"")))
        assert code is grpc.StatusCode.UNIMPLEMENTED
        report: Any = service_report(s)
        assert report.grpc == {
            "/shop.Echo/Fail NOT_FOUND": 1,
            "/shop.Echo/Fail INTERNAL": 1,
            "/shop.Echo/Fail UNAVAILABLE": 1,
            "/shop.Echo/Fail PERMISSION_DENIED": 1,
            "OTHER UNIMPLEMENTED": 1,
        }
        assert report.codes == {"POST 4xx": 2, "POST 5xx": 3}
        assert (report.endpoints[0].succeeded, report.endpoints[0].failed) == (2, 3)


@on_uvloop
async def test_a_server_that_fails_calls_is_ejected() -> None:
    ejected: list[tuple[Any, ...]] = []
    arguments = with_http2(
        create_http2_client=create_client, on_ejected=lambda *found: ejected.append(found)
    )
    async with scene(arguments) as s:
        with grpc_server("a") as (bad, bad_port, _), grpc_server("b") as (_, good_port, _):
            bad.failing = True
            install(s, bad_port, good_port, balance=Balance("round-robin"))
            client = EchoClient(s.port)
            for _ in range(60):
                await run(lambda: client.code_of(lambda: client.unary(b"")))
            assert [found[1] for found in ejected] == ["shop-0"]
            assert "grpc-status UNAVAILABLE" in ejected[0][3]
            await run(client.close)


PLAIN = b"this server does not speak gRPC"


async def answer_in_one_piece(call: Call) -> None:
    await call.read()
    call.respond(int(call.fields[b"x-status"]), PLAIN)


async def answer_in_pieces(call: Call) -> None:
    await call.read()
    call.head(int(call.fields[b"x-status"]), (b"content-length", b"%d" % len(PLAIN)))
    await elapse(0.02, "the head reaches the proxy alone")
    call.data(PLAIN[:5])
    await elapse(0.02, "the first piece reaches the proxy alone")
    call.data(PLAIN[5:], complete=True)


async def call_with_status(s: Scene, status: int) -> None:
    head = ("Content-Type: application/grpc", "TE: trailers", f"X-Status: {status}")
    client = await s.ask(post(b"", *head))
    assert (await client.response())[0] == status


@pytest.mark.parametrize("answer", [answer_in_one_piece, answer_in_pieces])
@pytest.mark.parametrize(("status", "counted"), [(200, 500), (404, 500), (503, 503)])
@on_uvloop
async def test_an_answer_without_a_status_of_grpc_counts_once_however_it_arrives(
    status: int, counted: int, answer: Handler
) -> None:
    log = AccessLog("json")
    async with scene(with_http2(access_log=log)) as s, http2_origin(answer) as origin:
        install(s, origin.port, ejection=Ejection(consecutive=0))
        for _ in range(4):
            await call_with_status(s, status)
        report: Any = service_report(s)
        assert report.grpc == {"/ UNKNOWN": 4}
        assert report.codes == {"POST 5xx": 4}
        assert (report.endpoints[0].succeeded, report.endpoints[0].failed) == (0, 4)
        (state,) = s.plane.services["shop"].endpoints.values()
        assert state.health.consecutive == 4
        assert [json.loads(line)["status"] for line in log.take().splitlines()] == [counted] * 4


@pytest.mark.parametrize("answer", [answer_in_one_piece, answer_in_pieces])
@on_uvloop
async def test_a_probe_request_that_gets_no_status_of_grpc_is_followed_by_another_one(
    answer: Handler,
) -> None:
    ejected: list[tuple[Any, ...]] = []
    arguments = with_http2(on_ejected=lambda *found: ejected.append(found))
    async with scene(arguments) as s, http2_origin(answer) as bad, http2_origin(answer) as good:
        policy = Ejection(consecutive=1, base=0.01, longest=0.01)
        install(s, bad.port, good.port, ejection=policy, balance=Balance("round-robin"))

        async with asyncio.timeout(30):
            while not ejected:
                await call_with_status(s, 503)
            while len(ejected) < 2:
                await call_with_status(s, 404)
        assert "the probe request failed" in ejected[1][3]


@on_uvloop
async def test_calls_are_sent_again_for_the_codes_that_the_policy_lists() -> None:
    arguments = with_http2(create_http2_client=create_client)
    async with scene(arguments) as s:
        with grpc_server("a") as (bad, bad_port, _), grpc_server("b") as (good, good_port, _):
            bad.failing = True
            off = Ejection(consecutive=0, success_rate=False)
            install(s, bad_port, good_port, ejection=off, retries=Retries(grpc=(14,)))
            client = EchoClient(s.port)
            for _ in range(10):
                assert await run(lambda: client.unary(b"again")) == b"again"
            assert bad.calls
            assert good.calls == 10
            await run(client.close)


@on_uvloop
async def test_cancellation_reaches_the_server() -> None:
    async with grpc_scene() as (s, service, client):

        def cancel() -> None:
            call = client.wait(b"")
            assert next(call) == b"waiting"
            call.cancel()

        await run(cancel)
        await wait_until(service.cancelled.is_set, 10)
        (state,) = s.plane.services["shop"].endpoints.values()
        await wait_until(lambda: state.in_flight == 0, 5)
        assert await run(lambda: client.unary(b"next")) == b"next"
        assert state.connections == 1


@on_uvloop
async def test_deadlines_reach_the_server_and_end_the_call() -> None:
    async with grpc_scene() as (_, service, client):
        await run(lambda: client.unary(b"", timeout=20))
        assert service.deadlines[-1] is not None
        assert 10 < service.deadlines[-1] < 21

        def wait() -> Any:
            return client.code_of(lambda: list(client.wait(b"", timeout=1.0)))

        code, _ = await run(wait)
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
        await wait_until(service.cancelled.is_set, 10)


@on_uvloop
async def test_the_proxy_ends_a_call_at_its_deadline_by_itself() -> None:
    """A client that sends the field, but does not act on it, gets the status all the same."""
    async with grpc_scene() as (_, service, client):

        def wait() -> Any:
            # grpcio overwrites the field only for calls with a timeout.
            metadata = (("grpc-timeout", "1S"),)
            return client.code_of(lambda: list(client.wait(b"", metadata=metadata)))

        begun = time.monotonic()
        code, _ = await run(wait)
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert time.monotonic() - begun < 10
        await wait_until(service.cancelled.is_set, 10)


@on_uvloop
async def test_errors_of_the_proxy_are_a_status_of_grpc() -> None:
    arguments = with_http2(create_http2_client=create_client)
    async with scene(arguments) as s:
        client = EchoClient(s.port)

        async def code() -> tuple[Any, str]:
            return await run(lambda: client.code_of(lambda: client.unary(b"x" * 2000)))

        install(s, parking=Parking(timeout=0.05))
        assert await code() == (grpc.StatusCode.UNAVAILABLE, "no replica became ready in time")
        install(s, parking=Parking(requests=0))
        assert (await code())[0] is grpc.StatusCode.UNAVAILABLE
        install(s, 9, retries=Retries(attempts=0))
        assert await code() == (grpc.StatusCode.UNAVAILABLE, "no connection to the origin")
        install(s, 9, limits=Limits(body=100))
        assert (await code())[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        s.install(routes=())
        found, text = await code()
        assert (found, text) == (
            grpc.StatusCode.UNIMPLEMENTED, "no route matches this host and path"
        )  # fmt: skip
        await run(client.close)


@on_uvloop
async def test_a_server_that_dies_during_a_call() -> None:
    arguments = with_http2(create_http2_client=create_client)
    async with scene(arguments) as s:
        client = EchoClient(s.port)
        with grpc_server() as (_, port, _):
            install(s, port, retries=Retries(attempts=0))
            call = client.wait(b"")
            assert await run(lambda: next(call)) == b"waiting"
        code, _ = await run(lambda: client.code_of(lambda: list(call)))
        assert code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        await run(client.close)


@on_uvloop
async def test_over_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    issued = authority.issue("orders.test")
    credentials = grpc.ssl_server_credentials(
        [(Path(issued.key).read_bytes(), Path(issued.cert).read_bytes())]
    )
    arguments = with_http2(create_http2_client=create_client)
    async with scene(arguments) as s:
        with grpc_server(credentials=credentials) as (_, port, _):
            tls = UpstreamTls(ca=authority.ca, server_name="orders.test")
            install(s, port, tls=tls, http_version="h2")
            client = EchoClient(s.port)
            assert await run(lambda: client.unary(b"secret")) == b"secret"
            await run(client.close)
            health = HealthCheck(type="grpc", timeout=10)
            assert await probe("127.0.0.1", port, health, "", ProbeOpening(tls)) is None


async def test_health_checks() -> None:
    with grpc_server() as (_, port, checks):
        health = HealthCheck(type="grpc", timeout=10)
        assert await probe("127.0.0.1", port, health) is None
        checks.set("shop.Echo", health_pb2.HealthCheckResponse.NOT_SERVING)
        named = HealthCheck(type="grpc", service="shop.Echo", timeout=10)
        answered = "/grpc.health.v1.Health/Check answered"
        assert await probe("127.0.0.1", port, named) == f"{answered} NOT_SERVING"
        checks.set("shop.Echo", health_pb2.HealthCheckResponse.SERVING)
        assert await probe("127.0.0.1", port, named) is None
        other = HealthCheck(type="grpc", service="x" * 200, timeout=10)
        assert await probe("127.0.0.1", port, other) == f"{answered} NOT_FOUND"


async def test_health_checks_of_servers_that_do_not_speak_grpc() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await start_server(serve)
    port = server.port
    health = HealthCheck(type="grpc", timeout=10)
    assert await probe("127.0.0.1", port, health) == "did not answer in HTTP/2"
    await server.close()


@on_uvloop
async def test_a_rolling_update_under_load_fails_no_call() -> None:
    """Each server is drained as a replica is, then stopped, while calls of all kinds run."""
    arguments = with_http2(create_http2_client=create_client)
    async with scene(arguments) as s:
        old = grpc_server("old")
        with grpc_server("new") as (_, new_port, _):
            _, old_port, _ = old.__enter__()
            install(s, old_port)
            client = EchoClient(s.port)
            stop = threading.Event()
            failures: list[object] = []
            counts = [0] * 4

            def work(number: int) -> None:
                while not stop.is_set():
                    try:
                        if number % 2:
                            client.unary(b"hello")
                        else:
                            assert len(list(client.chat(iter([b"1"] * 20)))) == 20
                        counts[number] += 1
                    except Exception as error:  # noqa: BLE001 - every failure counts
                        failures.append(error)

            working = [asyncio.ensure_future(asyncio.to_thread(work, n)) for n in range(4)]
            await wait_until(lambda: min(counts) > 10, 20)
            endpoints = (
                Endpoint("shop-0", "127.0.0.1", old_port, state="draining"),
                Endpoint("shop-1", "127.0.0.1", new_port),
            )
            s.install(Service("shop", "2", endpoints, http_version="h2c"))
            await wait_until(lambda: not s.plane.busy(), 20, "drained")
            await run(lambda: old.__exit__(None, None, None))
            before = min(counts)
            await wait_until(lambda: min(counts) > before + 10, 20)
            stop.set()
            await asyncio.gather(*working)
            assert failures == []
            await run(client.close)


@on_uvloop
async def test_a_silent_conversation_is_not_taken_for_a_slow_upload() -> None:
    async with grpc_scene(timeouts=Timeouts(body=0.05)) as (_, _, client):

        def talk() -> list[bytes]:
            def speak() -> Iterator[bytes]:
                yield b"one"
                elapse_blocking(0.6, "longer than an upload may be silent")
                yield b"two"

            return list(client.chat(speak()))

        assert await run(talk) == [b"one", b"two"]
