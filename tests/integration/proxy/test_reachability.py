"""Endpoints that accept no connection: their requests wait, and are served once one accepts."""

import asyncio
import socket
import time

import pytest

from proxy.wire.snapshot import Balance, Endpoint, Limits, Parking, Retries, Service, Timeouts
from tests.support.ports import free_port
from tests.support.proxy_policies import close_after_request, service_report
from tests.support.proxy_scene import (
    OK,
    Origin,
    Scene,
    Script,
    Visit,
    answers,
    get,
    named_ok,
    on_uvloop,
    post,
    scene,
    service,
)
from tests.support.waiting import elapse, wait_until

PARKING = Parking(on_refusal=True)


def dead_service(port: int, **config: object) -> Service:
    endpoint = Endpoint(id="shop-0", host="127.0.0.1", port=port)
    return Service("shop", "1", (endpoint,), **{"parking": PARKING, **config})  # type: ignore[arg-type]


async def start_at(s: Scene, port: int, script: Script, backlog: int = 100) -> Origin:
    """Start an origin at a port that another one had."""
    origin = Origin(script)
    server = await asyncio.start_server(origin._serve, "127.0.0.1", port, backlog=backlog)
    origin._server, origin.port = server, port
    s.origins.append(origin)
    return origin


@pytest.mark.parametrize("request_bytes", [get(), post(b"hello")])
@on_uvloop
async def test_a_request_waits_for_an_endpoint_that_refuses(request_bytes: bytes) -> None:
    async with scene() as s:
        port = free_port()
        s.install(dead_service(port))
        clients = [await s.ask(request_bytes) for _ in range(5)]
        await wait_until(lambda: service_report(s).parked == 5)
        await start_at(s, port, answers(OK))
        begun = time.monotonic()
        for client in clients:
            assert (await client.response())[0] == 200
        assert time.monotonic() - begun < 1.0
        report = service_report(s)
        assert (report.parked, report.retries, report.ejections) == (0, 0, 0)


@on_uvloop
async def test_a_request_that_waits_in_vain_is_503() -> None:
    async with scene() as s:
        s.install(dead_service(free_port(), parking=Parking(timeout=0.3, on_refusal=True)))
        begun = time.monotonic()
        client = await s.ask(post(b"hello"))
        status, head, body = await client.response()
        assert status == 503
        assert b"Retry-After: " in head
        assert b"no replica became ready" in body
        assert 0.2 < time.monotonic() - begun < 2.0


@on_uvloop
async def test_a_new_endpoint_gets_the_requests_of_one_that_refuses() -> None:
    async with scene() as s:
        s.install(dead_service(free_port()))
        client = await s.ask(post(b"hello"))
        await wait_until(lambda: service_report(s).parked == 1)
        origin = await s.origin(answers(OK))
        s.install(service(origin, parking=PARKING))
        assert (await client.response())[0] == 200


@on_uvloop
async def test_a_crash_fails_no_get_and_a_sent_post_is_not_repeated() -> None:
    async def hang(visit: Visit) -> None:
        await visit.head()
        await visit.wait_closed()

    async with scene() as s:
        (origin,) = await s.serve(hang, parking=PARKING)
        asked = [await s.ask(get()) for _ in range(20)]
        sent = await s.ask(post(b"hello"))
        await wait_until(lambda: len(origin.visits) == 21)
        origin.stop()
        assert (await sent.response())[0] == 502
        unsent = await s.ask(post(b"hello"))
        await elapse(0.2, "the origin is down for a moment")
        again = await start_at(s, origin.port, answers(OK))
        for client in (*asked, unsent):
            assert (await client.response())[0] == 200
        bodies = [visit.raw for visit in again.visits if b"POST" in visit.raw]
        assert len(bodies) == 1


@on_uvloop
async def test_no_budget_is_needed_after_a_crash() -> None:
    async def hang(visit: Visit) -> None:
        await visit.head()
        await visit.wait_closed()

    async with scene() as s:
        retries = Retries(budget=0.0, reserve=0.0)
        (origin,) = await s.serve(hang, parking=PARKING, retries=retries)
        asked = [await s.ask(get()) for _ in range(10)]
        await wait_until(lambda: len(origin.visits) == 10)
        origin.stop()
        await wait_until(lambda: service_report(s).parked == 10)
        await start_at(s, origin.port, answers(OK))
        for client in asked:
            assert (await client.response())[0] == 200


@pytest.mark.parametrize(
    ("retries", "visits"), [(Retries(), 3), (Retries(attempts=0), 1), (Retries(0, 0.0, 0.0), 1)]
)
@on_uvloop
async def test_an_origin_that_closes_and_accepts_gets_a_get_as_often_as_retries_allow(
    retries: Retries, visits: int
) -> None:
    async with scene() as s:
        (origin,) = await s.serve(close_after_request, parking=PARKING, retries=retries)
        client = await s.ask(get())
        assert (await client.response())[0] == 502
        assert sum(b"GET" in visit.raw for visit in origin.visits) == visits


@on_uvloop
async def test_many_requests_that_fail_in_the_queue_end_one_after_another() -> None:
    async with scene() as s:
        retries = Retries(attempts=1, budget=0.0, reserve=0.0)
        (origin,) = await s.serve(close_after_request, parking=PARKING, retries=retries)
        clients = [await s.client() for _ in range(300)]
        for client in clients:
            await client.send(get())
        for client in clients:
            assert (await client.response())[0] == 502
        assert len(origin.visits) >= 300
        assert s.plane.active() == 0


@on_uvloop
async def test_a_refusing_endpoint_gets_no_requests_until_it_accepts() -> None:
    async with scene() as s:
        port = free_port()
        good = await s.origin(answers(named_ok(b"good")))
        endpoints = tuple(
            Endpoint(id=name, host="127.0.0.1", port=at)
            for name, at in (("back", port), ("good", good.port))
        )
        config = {"parking": PARKING, "balance": Balance("round-robin")}
        no_retries = Retries(attempts=0, budget=0.0, reserve=0.0)
        s.install(Service("shop", "1", endpoints, retries=no_retries, **config))  # type: ignore[arg-type]
        client = await s.client()
        for _ in range(10):
            await client.send(post(b"hello"))
            assert (await client.response())[2] == b"good"
        assert {e.id: e.failed for e in service_report(s).endpoints}["back"] == 1
        await start_at(s, port, answers(named_ok(b"back")))

        async def is_used() -> bool:
            await client.send(get())
            return bool((await client.response())[2] == b"back")

        begun = time.monotonic()
        while not await is_used():
            assert time.monotonic() - begun < 5
            await elapse(0.01, "the next probe")


@on_uvloop
async def test_a_herd_is_served_by_a_short_listening_queue() -> None:
    async with scene() as s:
        port = free_port()
        s.install(dead_service(port))
        clients = [await s.ask(post(b"hello")) for _ in range(200)]
        await wait_until(lambda: service_report(s).parked == 200)
        await start_at(s, port, answers(OK), backlog=5)
        for client in clients:
            assert (await client.response())[0] == 200


@on_uvloop
async def test_an_address_that_neither_accepts_nor_refuses_is_not_ready() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
            fillers.append(filler)
        async with scene() as s:
            s.install(dead_service(port, timeouts=Timeouts(connect=0.3)))
            client = await s.ask(post(b"hello"))
            await wait_until(lambda: service_report(s).parked == 1)
            full.close()
            await start_at(s, port, answers(OK))
            assert (await client.response())[0] == 200
        for filler in fillers:
            filler.close()


@on_uvloop
async def test_probes_keep_to_the_connection_limit_and_leave_no_connection() -> None:
    async with scene() as s:
        port = free_port()
        s.install(dead_service(port, limits=Limits(endpoint_connections=1)))
        client = await s.ask(get())
        await wait_until(lambda: service_report(s).parked == 1)
        client.close()
        await wait_until(lambda: s.plane.active() == 0)
        origin = await start_at(s, port, answers(OK))
        await wait_until(lambda: origin.visits and origin.visits[0].closed.is_set())
        await elapse(0.1, "further probes would follow")
        assert len(origin.visits) == 1
        state = s.plane.services["shop"].endpoints["shop-0"]
        assert (state.connections, state.opening, state.unreachable) == (0, 0, False)
        other = await s.ask(get())
        assert (await other.response())[0] == 200
