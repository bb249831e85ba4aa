"""Snapshots that replace each other under load; reports and the access log."""

import asyncio
import json

from proxy.ipc.shared_memory import SharedCells
from proxy.observe.access_log import AccessLog
from proxy.wire.snapshot import (
    Balance,
    Endpoint,
    Limits,
    Service,
    Timeouts,
)
from tests.support.proxy_policies import BAD, route, service_report
from tests.support.proxy_scene import (
    OK,
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


@on_uvloop
async def test_a_draining_endpoint_is_busy_until_its_last_request_is_over() -> None:
    go = asyncio.Event()

    async def script(visit: Visit) -> None:
        await visit.head()
        await go.wait()
        await visit.send(OK)

    changes: list[tuple[str, ...]] = []
    async with scene({"on_busy_changed": lambda: changes.append(s.plane.busy())}) as s:
        old, new = await s.origin(script), await s.origin(answers(named_ok(b"new")))
        s.install(service(old))
        slow = await s.ask(get())
        await wait_until(lambda: old.visits)
        s.install(Service("shop", "2", (Endpoint(id="fresh", host="127.0.0.1", port=new.port),)))
        assert s.plane.busy() == ("shop-0",)
        client = await s.ask(get())
        assert (await client.response())[2] == b"new"
        go.set()
        assert (await slow.response())[0] == 200
        await wait_until(lambda: changes)
        assert changes == [()]


@on_uvloop
async def test_the_adaptive_limit_is_reported_and_can_be_switched() -> None:
    def adaptive_limit() -> int:
        return s.plane.report(0.0, 1.0).services[0].endpoints[0].limit

    async with scene() as s:
        origin = await s.origin(answers(OK))
        for adaptive, limit in ((False, 0), (True, 20), (False, 0)):
            s.install(service(origin, limits=Limits(adaptive=adaptive)))
            assert (await (await s.ask(get())).response())[0] == 200
            assert adaptive_limit() == limit


@on_uvloop
async def test_a_removed_endpoint_reports_its_last_counts_once() -> None:
    async with scene() as s:
        go = asyncio.Event()

        async def script(visit: Visit) -> None:
            await visit.head()
            await visit.send(OK)
            await visit.head()
            await go.wait()
            await visit.send(OK)

        old, new = await s.origin(script), await s.origin(answers(OK))
        s.install(service(old))
        client = await s.ask(get())
        await client.response()
        await client.send(get())
        await wait_until(lambda: old.visits[0].raw.count(b"GET") == 2)
        fresh = Endpoint(id="fresh", host="127.0.0.1", port=new.port)
        s.install(Service("shop", "2", (fresh,)))
        go.set()
        await client.response()

        def counted() -> dict[str, tuple[int, int]]:
            services = s.plane.report(0.0, 1.0).services
            return {e.id: (e.started, e.succeeded) for each in services for e in each.endpoints}

        assert counted() == {"shop-0": (2, 2), "fresh": (0, 0)}
        assert counted() == {"fresh": (0, 0)}, "reported once"
        # The same for a service that leaves as a whole, and for an endpoint that was idle.
        await (await s.ask(get())).response()
        s.install(Service("other", "1"), routes=())
        left, other = s.plane.report(0.0, 1.0).services[::-1]
        assert (left.name, left.arrivals, left.endpoints[0].succeeded) == ("shop", 1, 1)
        assert other.name == "other"
        assert [each.name for each in s.plane.report(0.0, 1.0).services] == ["other"]


@on_uvloop
async def test_snapshots_under_load_lose_no_request() -> None:
    async with scene() as s:
        origins = [await s.origin(answers(OK)) for _ in range(4)]
        s.install(service(*origins))
        statuses: list[int] = []
        stop = False

        async def load() -> None:
            client = await s.client()
            while not stop:
                await client.send(get())
                statuses.append((await client.response())[0])

        tasks = [asyncio.create_task(load()) for _ in range(8)]
        for turn in range(40):
            picked = [origins[(turn + n) % 4] for n in range(2)]
            s.install(service(*picked, balance=Balance("least-request")))
            await elapse(0.02, "load between two snapshots")
        stop = True
        await asyncio.gather(*tasks)
        assert len(statuses) > 100
        assert set(statuses) == {200}


@on_uvloop
async def test_the_report_adds_up() -> None:
    async with scene() as s:
        await s.serve(answers(OK), timeouts=Timeouts(connect=1.0))
        client = await s.client()
        for _ in range(10):
            await client.send(post(b"hello"))
            await client.response()
        report = service_report(s)
        assert report.arrivals == 10
        assert report.codes == {"POST 2xx": 10}
        assert (report.bytes_in, report.bytes_out) == (50, 20)
        assert sum(report.total.counts.values()) == 10
        assert sum(report.connect.counts.values()) == 1
        (endpoint,) = report.endpoints
        assert (endpoint.started, endpoint.succeeded, endpoint.in_flight) == (10, 10, 0)
        assert 0 < endpoint.busy_seconds < 1
        assert service_report(s).arrivals == 0


@on_uvloop
async def test_a_mirror_gets_a_copy_and_cannot_disturb_the_original() -> None:
    async with scene() as s:
        origin, other = await s.origin(answers(OK)), await s.origin(answers(BAD))
        s.install(
            service(origin),
            service(other, name="shadow"),
            routes=(route(mirror="shadow"),),
        )
        client = await s.ask(post(b"hello"))
        assert (await client.response())[0] == 200
        await wait_until(lambda: other.visits and other.visits[0].raw.endswith(b"hello"))
        await wait_until(lambda: not s.plane.active())
        shop, shadow = s.plane.report(0.0, 1.0).services
        assert (shop.codes, shadow.codes) == ({"POST 2xx": 1}, {"POST 5xx": 1})


@on_uvloop
async def test_requests_are_written_to_the_access_log() -> None:
    log = AccessLog("json")
    async with scene({"access_log": log}) as s:
        origin = await s.origin(answers(OK))
        s.install(service(origin), routes=(route(path="/shop"),))
        trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        client = await s.ask(
            get("/shop", "X-Request-Id: r1", f"traceparent: {trace}") + get("/nowhere")
        )
        await client.response()
        await client.response()
        assert trace.encode() in origin.visits[0].raw
        first, second = map(json.loads, log.take().splitlines())
        assert first["status"] == 200
        assert (first["service"], first["endpoint"]) == ("shop", "shop-0")
        assert (first["request_id"], first["bytes_out"]) == ("r1", 2)
        assert first["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
        assert (second["status"], second["failure"]) == (404, "no-route")


@on_uvloop
async def test_workers_see_each_others_requests_in_flight() -> None:
    go = asyncio.Event()

    async def script(visit: Visit) -> None:
        await visit.head()
        await go.wait()
        await visit.send(OK)

    cells = SharedCells.create(2)
    first, second = ({"workers": 2, "row": cells.row(number)} for number in range(2))
    async with scene(first) as one, scene(second) as two:
        origin = await one.origin(script)
        for s in (one, two):
            s.install(service(origin))
        client = await one.ask(get())
        seen = two.plane.services["shop"].endpoints["shop-0"]
        await wait_until(lambda: seen.in_flight == 1)
        go.set()
        await client.response()
        await wait_until(lambda: seen.in_flight == 0)
        one.install(Service("shop", "2"))


@on_uvloop
async def test_requests_without_a_service_are_counted_by_reason() -> None:
    async with scene() as s:
        origin = await s.origin(answers(OK))
        s.install(service(origin), routes=(route(path="/shop"),))
        for request in (get("/x"), b"nonsense\r\n\r\n", get("/" + "x" * 20_000)):
            client = await s.ask(request)
            await client.response()
        refused = s.plane.report(0.0, 1.0).refused
        assert refused == {"no-route": 1, "bad-request": 1, "too-long": 1}
        assert s.plane.report(0.0, 1.0).refused == {}
