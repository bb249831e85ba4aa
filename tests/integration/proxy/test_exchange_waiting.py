"""Requests that wait for the first endpoint or in the queue, or are shed."""

import asyncio
import time

import pytest

from proxy.wire.snapshot import (
    Limits,
    Parking,
    Route,
    Service,
    Target,
)
from tests.support.proxy_policies import service_report
from tests.support.proxy_scene import (
    OK,
    Visit,
    answers,
    get,
    on_uvloop,
    post,
    scene,
    service,
)
from tests.support.waiting import elapse, wait_until


@on_uvloop
async def test_a_parked_request_is_sent_to_the_first_endpoint_at_once() -> None:
    woken: list[tuple[str, int]] = []
    async with scene({"on_wake": lambda *said: woken.append(said)}) as s:
        origin = await s.origin(answers(OK))
        s.install(Service("shop", "1"))
        clients = [await s.ask(post(b"hello")) for _ in range(3)]
        await wait_until(lambda: s.plane.active() == 3)
        assert woken == [("shop", 1), ("shop", 2)]
        assert service_report(s).parked == 3
        begun = time.monotonic()
        s.install(service(origin))
        for client in clients:
            assert (await client.response())[0] == 200
        print(f"answered {(time.monotonic() - begun) * 1e3:.1f} ms after the endpoint was ready")
        report = service_report(s)
        assert (report.parked, report.parked_total) == (0, 0)
        assert report.queue_seconds > 0


@pytest.mark.parametrize("parking", [Parking(timeout=0.2), Parking(requests=0), Parking(bytes=1)])
@on_uvloop
async def test_waiting_is_bounded_in_time_number_and_bytes(parking: Parking) -> None:
    async with scene() as s:
        s.install(Service("shop", "1", parking=parking))
        client = await s.ask(post(b"hello"))
        status, head, _ = await client.response()
        assert status == 503
        assert b"Retry-After: " in head


@on_uvloop
async def test_a_parked_client_that_leaves_is_removed() -> None:
    async with scene() as s:
        s.install(Service("shop", "1"))
        client = await s.ask(get())
        await wait_until(lambda: service_report(s).parked == 1)
        client.close()
        await wait_until(lambda: s.plane.active() == 0)
        assert service_report(s).parked == 0


@pytest.mark.parametrize(
    "limits",
    [Limits(endpoint_in_flight=1), Limits(service_in_flight=1), Limits(endpoint_connections=1)],
)
@on_uvloop
async def test_requests_over_the_limit_are_queued(limits: Limits) -> None:
    most = now = 0

    async def script(visit: Visit) -> None:
        nonlocal most, now
        while True:
            await visit.head()
            now += 1
            most = max(most, now)
            await elapse(0.02, "the origin works, so that requests overlap")
            now -= 1
            await visit.send(OK)

    async with scene() as s:
        await s.serve(script, limits=limits)
        clients = [await s.ask(get()) for _ in range(5)]
        for client in clients:
            assert (await client.response())[0] == 200
        assert most == 1


@pytest.mark.parametrize(
    "limits",
    [
        Limits(endpoint_in_flight=1, pending=0),
        Limits(endpoint_in_flight=1, pending_timeout=0.2),
        Limits(service_in_flight=1, pending=0),
    ],
)
@on_uvloop
async def test_requests_over_the_queue_limit_are_shed(limits: Limits) -> None:
    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.wait_closed()

    async with scene() as s:
        (origin,) = await s.serve(script, limits=limits)
        await s.ask(get())
        await wait_until(lambda: origin.visits)
        client = await s.ask(get())
        status, head, _ = await client.response()
        assert status == 503
        assert b"Retry-After: " in head


@on_uvloop
async def test_ports_of_a_service_have_one_limit_and_one_queue() -> None:
    free = asyncio.Event()

    async def script(visit: Visit) -> None:
        while True:
            await visit.head()
            await free.wait()
            await visit.send(OK)

    routes = (Route("a", (Target("shop"),), path="/a"), Route("b", (Target("shop:81"),), path="/b"))
    async with scene() as s:
        origin = await s.origin(script)
        limits = Limits(service_in_flight=1, endpoint_connections=1, pending=1)
        ports = [service(origin, name=name, limits=limits) for name in ("shop", "shop:81")]
        s.install(*ports, routes=routes)
        first = await s.ask(get("/a"))
        await wait_until(lambda: origin.visits)
        second = await s.ask(get("/b"))
        await wait_until(lambda: sum(r.queued for r in s.plane.report(0.0, 1.0).services) == 1)
        third = await s.ask(get("/a"))
        assert (await third.response())[0] == 503, "the queue is full"
        free.set()
        for client in (first, second):
            assert (await client.response())[0] == 200
        assert len(origin.visits) == 2, "the idle connection of one port made room for the other"


# --- routes for monitors

MONITORED = (
    Route("all", (Target("shop"),)),
    Route("probe", (Target("shop"),), path="/healthz", background=True),
)


@on_uvloop
async def test_a_background_request_neither_wakes_a_service_nor_waits_for_it() -> None:
    woken: list[tuple[str, int]] = []
    async with scene({"on_wake": lambda *said: woken.append(said)}) as s:
        origin = await s.origin(answers(OK))
        s.install(Service("shop", "1"), routes=MONITORED)
        client = await s.ask(get("/healthz"))
        status, head, body = await client.response()
        assert (status, b"Retry-After: " in head) == (503, True)
        assert b"background route" in body
        assert not woken
        report = service_report(s)
        assert (report.arrivals, report.parked_total, report.codes) == (0, 0, {"GET 5xx": 1})
        assert report.failures == {"asleep": 1}
        await s.ask(get("/"))
        await wait_until(lambda: woken == [("shop", 1)])
        s.install(service(origin), routes=MONITORED)


@on_uvloop
async def test_background_requests_are_counted_apart_from_the_load() -> None:
    began = asyncio.Event()
    release = asyncio.Event()

    async def script(visit: Visit) -> None:
        while True:
            await visit.head()
            began.set()
            await release.wait()
            await visit.send(OK)

    async with scene() as s:
        origin = await s.origin(script)
        s.install(service(origin), routes=MONITORED)
        client = await s.ask(get("/healthz"))
        await began.wait()
        report = service_report(s)
        (endpoint,) = report.endpoints
        assert (report.arrivals, endpoint.in_flight) == (0, 1)
        assert 0.0 < endpoint.busy_seconds <= report.background_seconds
        release.set()
        assert (await client.response())[0] == 200
        await wait_until(lambda: not s.plane.active())
        report = service_report(s)
        (endpoint,) = report.endpoints
        assert (report.codes, report.total.counts, report.first_byte.counts) == (
            {"GET 2xx": 1},
            {},
            {},
        )
        assert (endpoint.succeeded, sum(endpoint.latency.counts.values())) == (1, 1)
        assert endpoint.busy_seconds <= report.background_seconds + 1e-6
        await client.send(get("/other"))
        assert (await client.response())[0] == 200
        report = service_report(s)
        assert (report.arrivals, sum(report.total.counts.values())) == (1, 1)
        assert report.background_seconds == 0.0
