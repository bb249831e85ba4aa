"""Transcripts of what a service's and a route's policies do to requests."""

import asyncio
import json
import socket
import time
from collections import Counter
from typing import Any

import pytest
from proxy_scene import (
    OK,
    Scene,
    Visit,
    answers,
    eventually,
    get,
    on_uvloop,
    post,
    scene,
    service,
)

from proxy.observe.access_log import AccessLog
from proxy.shared_cells import SharedCells
from proxy.wire.snapshot import (
    Balance,
    Ejection,
    Endpoint,
    Fault,
    HashKey,
    HeaderEdit,
    Limits,
    Match,
    Parking,
    RateLimit,
    Retries,
    Route,
    Service,
    Split,
    Target,
    Timeouts,
)

BAD = b"HTTP/1.1 503 No\r\nContent-Length: 4\r\n\r\nbusy"


async def slam(visit: Visit) -> None:
    """An origin that reads a request and closes."""
    await visit.head()


def named(name: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(name), name)


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def route(target: str = "shop", **more: object) -> Route:
    return Route(
        id=f"r{more.get('path', '/')}{more.get('host', '*')}", targets=(Target(target),), **more
    )  # type: ignore[arg-type]


def figures(s: Scene, name: str = "shop") -> object:
    report = s.plane.report(0.0, 1.0)
    return next(found for found in report.services if found.name == name)


# --- retries


@on_uvloop
async def test_a_refused_connection_is_tried_elsewhere_whatever_the_method() -> None:
    async with scene() as s:
        origin = await s.origin(answers(OK))
        dead = Endpoint(id="dead", host="127.0.0.1", port=closed_port())
        alive = Endpoint(id="alive", host="127.0.0.1", port=origin.port)
        s.install(Service("shop", "1", (dead, alive), balance=Balance("round-robin")))
        for _ in range(6):
            client = await s.ask(post(b"hello"))
            assert (await client.response())[0] == 200
        report = figures(s)
        assert report.retries >= 2
        assert report.codes == {"POST 2xx": 6}
        assert {e.id: e.failed for e in report.endpoints}["dead"] == report.retries


@on_uvloop
async def test_one_endpoint_that_refuses_is_502_at_once() -> None:
    async with scene() as s:
        dead = Endpoint(id="dead", host="127.0.0.1", port=closed_port())
        s.install(Service("shop", "1", (dead,)))
        begun = time.monotonic()
        client = await s.ask(get())
        assert (await client.response())[0] == 502
        assert time.monotonic() - begun < 1.0


@pytest.mark.parametrize(
    ("request_bytes", "status", "deliveries"), [(get(), 200, 1), (post(b"hi"), 502, 1)]
)
@on_uvloop
async def test_only_what_may_be_sent_twice_is(
    request_bytes: bytes, status: int, deliveries: int
) -> None:
    async with scene() as s:
        bad, good = await s.origin(slam), await s.origin(answers(OK))
        s.install(service(bad, good, balance=Balance("round-robin")))
        while True:
            client = await s.ask(request_bytes)
            answer = (await client.response())[0]
            if bad.visits:
                break
        assert answer == status
        assert len(bad.visits) == deliveries


@on_uvloop
async def test_a_put_with_its_body_is_replayed_up_to_the_limit() -> None:
    got: list[bytes] = []

    async def good(visit: Visit) -> None:
        await visit.head()
        got.append(await visit.read(10))
        await visit.send(OK)

    async def bad(visit: Visit) -> None:
        await visit.head()
        await visit.read(10)

    async with scene() as s:
        origins = [await s.origin(bad), await s.origin(good)]
        s.install(service(*origins, balance=Balance("round-robin")))
        for _ in range(4):
            client = await s.ask(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n01234")
            await asyncio.sleep(0.02)
            await client.send(b"56789")
            assert (await client.response())[0] == 200
        assert origins[0].visits
        assert set(got) == {b"0123456789"}
        origins[0].visits.clear()
        s.install(service(*origins, balance=Balance("round-robin"), retries=Retries(body_limit=4)))
        seen = set()
        for _ in range(4):
            client = await s.ask(
                b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789"
            )
            seen.add((await client.response())[0])
        assert seen == {200, 502}


@on_uvloop
async def test_a_stale_connection_is_replaced_for_a_get_and_not_for_a_post() -> None:
    async def once(visit: Visit) -> None:
        await visit.head()
        await visit.send(OK)
        await visit.head()

    async with scene() as s:
        (origin,) = await s.serve(once, retries=Retries(attempts=0))
        client = await s.client()
        for _ in range(4):
            await client.send(get())
            assert (await client.response())[0] == 200
        before = len(origin.visits)
        await client.send(post(b""))
        assert (await client.response())[0] == 502
        assert len(origin.visits) == before
        assert figures(s).retries == 0


@on_uvloop
async def test_a_listed_status_is_tried_elsewhere_once_the_budget_allows() -> None:
    async with scene() as s:
        bad, good = await s.origin(answers(BAD)), await s.origin(answers(OK))
        no_ejection = Ejection(consecutive=0)
        policy = {"balance": Balance("round-robin"), "ejection": no_ejection}
        s.install(service(bad, good, **policy))
        client = await s.client()
        for _ in range(6):
            await client.send(get())
            assert (await client.response())[0] == 200
        s.install(service(bad, good, retries=Retries(budget=0.0, reserve=0.0), **policy))
        seen = set()
        for _ in range(6):
            await client.send(get())
            seen.add((await client.response())[0])
        assert seen == {200, 503}


@on_uvloop
async def test_the_only_endpoints_error_is_passed_on_as_it_is() -> None:
    async with scene() as s:
        await s.serve(answers(BAD))
        client = await s.ask(get())
        assert await client.response() == (503, await _head_of(BAD), b"busy")


async def _head_of(response: bytes) -> bytes:
    head = response.partition(b"\r\n\r\n")[0]
    return head + b"\r\nVia: 1.1 meshd\r\n\r\n"


# --- ejection


@on_uvloop
async def test_an_endpoint_that_fails_in_a_row_is_left_alone_and_probed() -> None:
    healthy = False

    async def sick(visit: Visit) -> None:
        while True:
            await visit.head()
            await visit.send(named(b"sick") if healthy else BAD)

    async with scene() as s:
        origins = [await s.origin(sick), await s.origin(answers(named(b"well")))]
        ejected: list[tuple[object, ...]] = []
        s.plane.on_ejected = lambda *said: ejected.append(said)
        s.install(
            service(
                *origins,
                balance=Balance("round-robin"),
                ejection=Ejection(consecutive=3, base=0.3),
            )
        )
        client = await s.client()
        for _ in range(20):
            await client.send(get())
            assert (await client.response())[2] == b"well"
        ((name, endpoint, _, cause),) = ejected
        assert (name, endpoint) == ("shop", "shop-0")
        assert "3 failures in a row" in str(cause)
        healthy = True
        bodies = set()

        async def ask() -> bool:
            await client.send(get())
            bodies.add((await client.response())[2])
            return b"sick" in bodies

        end = time.monotonic() + 10
        while not await ask():
            assert time.monotonic() < end
            await asyncio.sleep(0.05)


# --- waiting


@on_uvloop
async def test_a_request_waits_for_the_first_endpoint_and_leaves_at_once() -> None:
    async with scene() as s:
        origin = await s.origin(answers(OK))
        woken: list[tuple[str, int]] = []
        s.plane.on_wake = lambda service, parked: woken.append((service, parked))
        s.install(Service("shop", "1"))
        clients = [await s.ask(post(b"hello")) for _ in range(3)]
        await eventually(lambda: s.plane.active() == 3)
        assert woken == [("shop", 1), ("shop", 2)]
        assert figures(s).parked == 3
        begun = time.monotonic()
        s.install(service(origin))
        for client in clients:
            assert (await client.response())[0] == 200
        print(f"answered {(time.monotonic() - begun) * 1e3:.1f} ms after the endpoint was ready")
        report = figures(s)
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
async def test_a_parked_client_that_leaves_is_forgotten() -> None:
    async with scene() as s:
        s.install(Service("shop", "1"))
        client = await s.ask(get())
        await eventually(lambda: s.plane.active() == 1)
        await asyncio.sleep(0.1)
        client.close()
        await eventually(lambda: s.plane.active() == 0)
        assert figures(s).parked == 0


@pytest.mark.parametrize(
    "limits",
    [Limits(endpoint_in_flight=1), Limits(service_in_flight=1), Limits(endpoint_connections=1)],
)
@on_uvloop
async def test_more_than_the_limit_waits_its_turn(limits: Limits) -> None:
    most = now = 0

    async def script(visit: Visit) -> None:
        nonlocal most, now
        while True:
            await visit.head()
            now += 1
            most = max(most, now)
            await asyncio.sleep(0.02)
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
async def test_what_does_not_fit_is_shed(limits: Limits) -> None:
    async def script(visit: Visit) -> None:
        await visit.head()
        await visit.wait_closed()

    async with scene() as s:
        (origin,) = await s.serve(script, limits=limits)
        await s.ask(get())
        await eventually(lambda: origin.visits)
        client = await s.ask(get())
        status, head, _ = await client.response()
        assert status == 503
        assert b"Retry-After: " in head


# --- routes


@on_uvloop
async def test_routes_by_host_path_and_header() -> None:
    async with scene() as s:
        services = []
        for name in ("a", "b", "c", "d"):
            origin = await s.origin(answers(named(name.encode())))
            services.append(service(origin, name=name))
        s.install(
            *services,
            routes=(
                Route(id="1", targets=(Target("a"),)),
                Route(id="2", targets=(Target("b"),), host="shop.test", path="/b"),
                Route(id="3", targets=(Target("c"),), host="*.test"),
                Route(
                    id="4", targets=(Target("d"),), matches=(Match("header", "X-Canary"),), path="/"
                ),
            ),
        )
        wanted = [
            (get("/b/x"), b"b"),
            (get("/bx"), b"c"),
            (b"GET / HTTP/1.1\r\nHost: other\r\n\r\n", b"a"),
            (b"GET / HTTP/1.1\r\nHost: other\r\nx-canary: 1\r\n\r\n", b"d"),
        ]
        client = await s.client()
        for request, body in wanted:
            await client.send(request)
            assert (await client.response())[2] == body


@on_uvloop
async def test_no_route_is_404_and_the_connection_goes_on() -> None:
    async with scene() as s:
        origin = await s.origin(answers(OK))
        s.install(service(origin), routes=(route(host="elsewhere"),))
        client = await s.ask(get() + b"GET / HTTP/1.1\r\nHost: elsewhere\r\n\r\n")
        assert (await client.response())[0] == 404
        assert (await client.response())[0] == 200


@pytest.mark.parametrize(
    ("more", "path", "target"),
    [
        ({"path": "/api", "strip": True}, "/api/v1?x=1", b"/v1?x=1"),
        ({"path": "/api", "strip": True}, "/api", b"/"),
        ({"path": "/api", "strip": True}, "/api?x", b"/?x"),
        ({"path": "/api", "replace": "/v2"}, "/api/x", b"/v2/x"),
        ({"path": "/", "replace": "/base"}, "/x//y", b"/base/x//y"),
    ],
)
@on_uvloop
async def test_prefixes_are_stripped_and_replaced(
    more: dict[str, object], path: str, target: bytes
) -> None:
    async with scene() as s:
        origin = await s.origin(answers(OK))
        s.install(service(origin), routes=(route(**more),))
        assert (await (await s.ask(get(path))).response())[0] == 200
        assert origin.visits[0].raw.split(b" ")[1] == target


@on_uvloop
async def test_headers_are_edited_both_ways() -> None:
    async with scene() as s:
        origin = await s.origin(
            answers(b"HTTP/1.1 200 OK\r\nServer: x\r\nX-A: 1\r\nContent-Length: 2\r\n\r\nok")
        )
        edits = HeaderEdit(set=(("X-A", "new"),), add=(("X-B", "b"),), remove=("server", "cookie"))
        s.install(service(origin), routes=(route(request_headers=edits, response_headers=edits),))
        client = await s.ask(get("/", "x-a: old", "Cookie: c", "X-B: mine"))
        _, head, _ = await client.response()
        assert b"X-A: new\r\n" in head
        assert b"X-B: b\r\n" in head
        assert b"Server" not in head
        seen = origin.visits[0].raw
        assert b"X-A: new\r\n" in seen
        assert b"old" not in seen
        assert b"Cookie" not in seen
        assert b"X-B: mine\r\n" in seen
        assert b"X-B: b\r\n" in seen


@on_uvloop
async def test_redirects_rates_and_faults_are_answered_here() -> None:
    async with scene() as s:
        origin = await s.origin(answers(OK))
        s.install(
            service(origin),
            routes=(
                route(path="/old", redirect="https://{host}{path}{query}", redirect_status=301),
                route(path="/rated", rate_limit=RateLimit(rate=0.01, burst=2)),
                route(path="/broken", fault=Fault(share=1.0, abort=418)),
                route(path="/slow", fault=Fault(share=1.0, delay=0.2)),
            ),
        )
        client = await s.ask(get("/old/x?y=1"))
        status, head, _ = await client.response()
        assert status == 301
        assert b"Location: https://shop.test/old/x?y=1\r\n" in head
        seen = []
        for _ in range(3):
            await client.send(get("/rated"))
            status, head, _ = await client.response()
            seen.append(status)
        assert seen == [200, 200, 429]
        assert b"Retry-After: " in head
        await client.send(get("/broken"))
        assert (await client.response())[0] == 418
        begun = time.monotonic()
        await client.send(get("/slow"))
        assert (await client.response())[0] == 200
        assert time.monotonic() - begun > 0.19


@on_uvloop
async def test_a_split_over_revisions_goes_by_weight() -> None:
    async with scene() as s:
        one, two = await s.origin(answers(named(b"1"))), await s.origin(answers(named(b"2")))
        endpoints = tuple(
            Endpoint(id=f"e{n}", host="127.0.0.1", port=o.port, revision=f"v{n}")
            for n, o in ((1, one), (2, two))
        )
        split = (Target("shop", "v1", 3.0), Target("shop", "v2", 1.0))
        s.install(Service("shop", "1", endpoints), routes=(Route(id="r", targets=split),))
        client = await s.client()
        counts = {b"1": 0, b"2": 0}
        for _ in range(400):
            await client.send(get())
            counts[(await client.response())[2]] += 1
        assert 60 < counts[b"2"] < 140


@on_uvloop
async def test_revisions_share_a_service_by_weight_by_condition_and_without_losing_a_request() -> (
    None
):
    async with scene() as s:
        one, two = await s.origin(answers(named(b"1"))), await s.origin(answers(named(b"2")))
        endpoints = tuple(
            Endpoint(id=f"e{n}", host="127.0.0.1", port=o.port, revision=f"v{n}")
            for n, o in ((1, one), (2, two))
        )
        canary = (Match("header", "X-Canary", "yes"),)

        async def seen(split: Split, headers: str = "", sticky: str = "") -> Counter[bytes]:
            balance = Balance(sticky_cookie=sticky)
            s.install(Service("shop", repr(split), endpoints, split=split, balance=balance))
            client = await s.client()
            found: Counter[bytes] = Counter()
            for _ in range(200):
                await client.send(get("/", headers))
                found[(await client.response())[2]] += 1
            return found

        counts = await seen(Split((("v1", 0.75), ("v2", 0.25))))
        assert 25 < counts[b"2"] < 80
        assert await seen(Split((("v1", 1.0), ("v2", 0.0)))) == {b"1": 200}
        by_header = Split((("v1", 1.0),), canary, "v2")
        assert await seen(by_header, "X-Canary: yes") == {b"2": 200}
        assert await seen(by_header, "X-Canary: no") == {b"1": 200}
        assert set(await seen(Split((("v3", 1.0),)))) == {b"1", b"2"}
        # A client that sticks to a replica does not change sides, until that side is closed.
        s.install(Service("shop", "s", endpoints, balance=Balance(sticky_cookie="stick")))
        client = await s.ask(get())
        _, head, first = await client.response()
        cookie = "Cookie: " + head.partition(b"Set-Cookie: ")[2].partition(b";")[0].decode()
        mine, other = (("v1", "v2"), ("v2", "v1"))[first == b"2"]
        half = Split(((mine, 0.01), (other, 0.99)))
        assert await seen(half, cookie, "stick") == {first: 200}
        assert (await seen(Split(((other, 1.0),)), cookie, "stick"))[first] == 0


@on_uvloop
async def test_stickiness_by_cookie_and_by_hash() -> None:
    async with scene() as s:
        origins = [await s.origin(answers(named(b"%d" % n))) for n in range(3)]
        s.install(service(*origins, balance=Balance(sticky_cookie="stick")))
        client = await s.ask(get())
        _, head, first = await client.response()
        cookie = head.partition(b"Set-Cookie: ")[2].partition(b";")[0].decode()
        for _ in range(10):
            await client.send(get("/", f"Cookie: a=b; {cookie}"))
            _, head, body = await client.response()
            assert body == first
            assert b"Set-Cookie" not in head
        s.install(service(*origins, balance=Balance("maglev", HashKey("header", "X-User"))))
        for user in range(10):
            bodies = set()
            for _ in range(3):
                await client.send(get("/", f"X-User: {user}"))
                bodies.add((await client.response())[2])
            assert len(bodies) == 1


# --- the mesh


@on_uvloop
async def test_the_mesh_listener_knows_caller_and_service_by_connection_and_host() -> None:
    async with scene(kind="mesh", caller="demo/orders") as s:
        origin = await s.origin(answers(OK))
        s.install(
            service(origin, name="demo/payments", allow=("demo/orders",)),
            service(origin, name="demo/secret", allow=("demo/admin",)),
            routes=(),
        )
        client = await s.client()
        for host, status in (("payments", 200), ("payments:80", 200), ("secret", 403), ("x", 404)):
            await client.send(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            assert (await client.response())[0] == status
        payments, secret = s.plane.report(0.0, 1.0).services
        assert payments.calls == {"demo/orders": 2}
        assert payments.uncovered == {}
        assert secret.denied == 1
        assert secret.uncovered == {"demo/orders": 1}


@on_uvloop
async def test_an_audit_lets_through_and_counts_what_allow_does_not_cover() -> None:
    async with scene(kind="mesh", caller="demo/orders") as s:
        origin = await s.origin(answers(OK))
        s.install(service(origin, name="demo/secret", allow=("demo/admin",), audit=True), routes=())
        client = await s.client()
        for _ in range(2):
            await client.send(b"GET / HTTP/1.1\r\nHost: secret\r\n\r\n")
            assert (await client.response())[0] == 200
        (secret,) = s.plane.report(0.0, 1.0).services
        assert (secret.denied, secret.failures) == (0, {})
        assert secret.calls == secret.uncovered == {"demo/orders": 2}
        assert s.plane.report(1.0, 2.0).services[0].uncovered == {}


@on_uvloop
@pytest.mark.parametrize(
    ("listener", "callers", "open_to_all", "for_orders", "counted"),
    [
        ({"caller": "demo/"}, {"127.0.0.1": "demo/orders"}, 200, 200, "demo/orders"),
        ({"caller": "demo/"}, {"127.0.0.1": "demo/cart"}, 200, 403, "demo/cart"),
        ({"caller": "demo/"}, {"127.0.0.2": "demo/orders"}, 200, 403, "unknown"),
        ({"caller": ""}, {"127.0.0.1": "demo/orders"}, 200, 200, "demo/orders"),
        ({"caller": ""}, {}, 404, 404, ""),
        ({"caller": "demo/cart"}, {"127.0.0.1": "demo/orders"}, 200, 200, "demo/orders"),
        ({"caller": "demo/orders", "sources": ("10.0.0.0/8",)}, {}, 200, 403, "unknown"),
        # The gateway's own address is the host's, not a replica's.
        ({"caller": "demo/orders", "sources": ("127.0.0.0/8",)}, {}, 200, 403, "unknown"),
        ({"caller": "demo/orders", "sources": ("127.0.0.0/8",), "address": "127.0.0.9:80"}, {},
         200, 200, "demo/orders"),
    ],
)  # fmt: skip
async def test_who_calls_is_known_by_the_source_address_then_by_the_network(
    listener: dict[str, Any],
    callers: dict[str, str],
    open_to_all: int,
    for_orders: int,
    counted: str,
) -> None:
    async with scene(kind="mesh", **listener) as s:
        origin = await s.origin(answers(OK))
        s.install(
            service(origin, name="demo/menu"),
            service(origin, name="demo/payments", allow=("demo/orders",)),
            routes=(),
            callers=callers,
        )
        client = await s.client()
        for host, status in (("menu", open_to_all), ("payments", for_orders)):
            await client.send(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            assert (await client.response())[0] == status
        menu, payments = s.plane.report(0.0, 1.0).services
        assert menu.calls == ({counted: 1} if counted else {})
        assert payments.denied == (for_orders == 403)


@on_uvloop
async def test_the_token_listener_takes_its_prefix_off() -> None:
    async with scene(kind="token") as s:
        origin = await s.origin(answers(OK))
        s.install(
            service(origin, name="demo/payments", allow=("demo/orders",)),
            routes=(),
            credentials={"t0ken": "demo/orders", "other": "demo/cart"},
        )
        client = await s.client()
        for path, status in (
            ("/.mesh/t0ken/payments/a//b?c", 200),
            ("/.mesh/t0ken/payments", 200),
            ("/.mesh/other/payments/", 403),
            ("/.mesh/wrong/payments/", 403),
            ("/payments", 403),
            ("/.mesh/t0ken/nothing/", 404),
        ):
            await client.send(get(path))
            assert (await client.response())[0] == status, path
        lines = [line for line in origin.visits[0].raw.split(b"\r\n") if line[:4] == b"GET "]
        assert lines == [b"GET /a//b?c HTTP/1.1", b"GET / HTTP/1.1"]


# --- snapshots


@on_uvloop
async def test_a_draining_endpoint_is_busy_until_its_last_request_is_over() -> None:
    go = asyncio.Event()

    async def script(visit: Visit) -> None:
        await visit.head()
        await go.wait()
        await visit.send(OK)

    async with scene() as s:
        told: list[tuple[str, ...]] = []
        s.plane.on_busy_changed = lambda: told.append(s.plane.busy())
        old, new = await s.origin(script), await s.origin(answers(named(b"new")))
        s.install(service(old))
        slow = await s.ask(get())
        await eventually(lambda: old.visits)
        s.install(Service("shop", "2", (Endpoint(id="fresh", host="127.0.0.1", port=new.port),)))
        assert s.plane.busy() == ("shop-0",)
        client = await s.ask(get())
        assert (await client.response())[2] == b"new"
        go.set()
        assert (await slow.response())[0] == 200
        await eventually(lambda: told)
        assert told == [()]


@on_uvloop
async def test_the_adaptive_limit_is_told_and_can_be_turned_on_and_off() -> None:
    def told() -> int:
        return s.plane.report(0.0, 1.0).services[0].endpoints[0].limit

    async with scene() as s:
        origin = await s.origin(answers(OK))
        for adaptive, limit in ((False, 0), (True, 20), (False, 0)):
            s.install(service(origin, limits=Limits(adaptive=adaptive)))
            assert (await (await s.ask(get())).response())[0] == 200
            assert told() == limit


@on_uvloop
async def test_what_left_tells_its_last_counts_once() -> None:
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
        await eventually(lambda: old.visits[0].raw.count(b"GET") == 2)
        fresh = Endpoint(id="fresh", host="127.0.0.1", port=new.port)
        s.install(Service("shop", "2", (fresh,)))
        go.set()
        await client.response()

        def counted() -> dict[str, tuple[int, int]]:
            services = s.plane.report(0.0, 1.0).services
            return {e.id: (e.started, e.succeeded) for each in services for e in each.endpoints}

        assert counted() == {"shop-0": (2, 2), "fresh": (0, 0)}
        assert counted() == {"fresh": (0, 0)}, "told once"
        # The same for a service that leaves as a whole, and for an endpoint that was idle.
        await (await s.ask(get())).response()
        s.install(Service("other", "1"), routes=())
        left, other = s.plane.report(0.0, 1.0).services[::-1]
        assert (left.name, left.arrivals, left.endpoints[0].succeeded) == ("shop", 1, 1)
        assert other.name == "other"
        assert [each.name for each in s.plane.report(0.0, 1.0).services] == ["other"]


@on_uvloop
async def test_swaps_under_load_lose_nothing() -> None:
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
            await asyncio.sleep(0.02)
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
        report = figures(s)
        assert report.arrivals == 10
        assert report.codes == {"POST 2xx": 10}
        assert (report.bytes_in, report.bytes_out) == (50, 20)
        assert sum(report.total.counts.values()) == 10
        assert sum(report.connect.counts.values()) == 1
        (endpoint,) = report.endpoints
        assert (endpoint.started, endpoint.succeeded, endpoint.in_flight) == (10, 10, 0)
        assert 0 < endpoint.busy_seconds < 1
        assert figures(s).arrivals == 0


@on_uvloop
async def test_a_mirror_gets_a_copy_and_cannot_hurt_the_original() -> None:
    async with scene() as s:
        origin, other = await s.origin(answers(OK)), await s.origin(answers(BAD))
        s.install(
            service(origin),
            service(other, name="shadow"),
            routes=(route(mirror="shadow"),),
        )
        client = await s.ask(post(b"hello"))
        assert (await client.response())[0] == 200
        await eventually(lambda: other.visits and other.visits[0].raw.endswith(b"hello"))
        await eventually(lambda: not s.plane.active())
        shop, shadow = s.plane.report(0.0, 1.0).services
        assert (shop.codes, shadow.codes) == ({"POST 2xx": 1}, {"POST 5xx": 1})


# --- what is written down


@on_uvloop
async def test_requests_are_written_to_the_access_log() -> None:
    async with scene() as s:
        s.plane.access_log = AccessLog("json")
        origin = await s.origin(answers(OK))
        s.install(service(origin), routes=(route(path="/shop"),))
        trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        client = await s.ask(
            get("/shop", "X-Request-Id: r1", f"traceparent: {trace}") + get("/nowhere")
        )
        await client.response()
        await client.response()
        assert trace.encode() in origin.visits[0].raw
        first, second = map(json.loads, s.plane.access_log.take().splitlines())
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
    async with scene() as one, scene() as two:
        origin = await one.origin(script)
        for number, s in enumerate((one, two)):
            s.plane.workers = 2
            s.plane.cells = cells.row(number)
            s.install(service(origin))
        client = await one.ask(get())
        seen = two.plane.services["shop"].endpoints["shop-0"]
        await eventually(lambda: seen.in_flight == 1)
        go.set()
        await client.response()
        await eventually(lambda: seen.in_flight == 0)
        one.install(Service("shop", "2"))


@on_uvloop
async def test_what_is_for_no_service_is_counted_by_reason() -> None:
    async with scene() as s:
        origin = await s.origin(answers(OK))
        s.install(service(origin), routes=(route(path="/shop"),))
        for request in (get("/x"), b"nonsense\r\n\r\n", get("/" + "x" * 20_000)):
            client = await s.ask(request)
            await client.response()
        refused = s.plane.report(0.0, 1.0).refused
        assert refused == {"no-route": 1, "bad-request": 1, "too-long": 1}
        assert s.plane.report(0.0, 1.0).refused == {}
