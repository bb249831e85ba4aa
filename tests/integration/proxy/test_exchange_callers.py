"""Calls between services: the caller is known by connection, address or token."""

import json
from typing import Any

import pytest

from proxy.observe.access_log import AccessLog
from proxy.observe.flight import describe_flight
from proxy.observe.flight_ring import FlightRing
from proxy.observe.spans import SpanQueue
from proxy.wire.snapshot import Balance, RateLimit, Route, Target
from tests.support.proxy_scene import (
    OK,
    answers,
    get,
    named_ok,
    on_uvloop,
    scene,
    service,
)


@on_uvloop
async def test_the_mesh_listener_takes_caller_and_service_from_connection_and_host() -> None:
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
async def test_audit_mode_counts_uncovered_calls_and_lets_them_through() -> None:
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
async def test_the_caller_is_found_by_source_address_then_by_network(
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
async def test_the_token_listener_strips_its_prefix() -> None:
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


@on_uvloop
async def test_the_token_of_a_caller_is_in_no_record_of_its_requests() -> None:
    log, ring, spans = AccessLog("json"), FlightRing(), SpanQueue(1.0)
    async with scene({"access_log": log, "flights": ring, "spans": spans}, kind="token") as s:
        origin = await s.origin(answers(OK))
        s.install(
            service(origin, name="demo/payments"),
            routes=(),
            credentials={"t0ken": "demo/orders"},
        )
        client = await s.client()
        for path in ("/.mesh/t0ken/payments/a", "/.mesh/t0ken/payments/b", "/.mesh/t0ken/nothing/"):
            await client.send(get(path))
            await client.response()
        await client.send(b"GET /.mesh/t0ken/payments/c HTTP/1.1\r\nbad header\r\n\r\n")
        await client.rest()
        hidden = [f"/.mesh/REDACTED/{rest}" for rest in ("payments/a", "payments/b", "nothing/")]
        logged = log.take()
        targets = [json.loads(line)["target"] for line in logged.splitlines()]
        assert targets == [*hidden, "/.mesh/REDACTED/payments/c"]
        assert [span.attributes["url.path"] for span in spans.take(10)][:3] == hidden
        saved = [describe_flight(record, "hot-cold", 0.0, None) for record in ring.flights()]
        assert [flight.request.target for flight in saved] == hidden
        assert b"t0ken" not in logged


@on_uvloop
async def test_behind_a_trusted_proxy_the_client_is_who_it_names() -> None:
    """On one connection of the proxy, limits, hashing and the log follow each request's client."""
    log = AccessLog("json")
    limited = Route(id="1", targets=(Target("shop"),), rate_limit=RateLimit(0.001, 2))
    async with scene({"access_log": log}) as s:
        origins = [await s.origin(answers(named_ok(b"%d" % number))) for number in range(3)]
        hashed = service(*origins, balance=Balance("ring-hash"))
        s.install(hashed, routes=(limited,), trusted_proxies=("127.0.0.0/8",))
        client = await s.client()
        seen: dict[str, set[bytes]] = {}
        for number in range(20):
            name = f"203.0.113.{number}"
            for _ in range(2):
                await client.send(get("/", f"X-Forwarded-For: 6.6.6.6, {name}"))
                status, _, body = await client.response()
                assert status == 200
                seen.setdefault(name, set()).add(body)
        assert {len(bodies) for bodies in seen.values()} == {1}
        assert len(set.union(*seen.values())) > 1
        for fields in (["X-Forwarded-For: 203.0.113.1"], ["Forwarded: for=203.0.113.1"]):
            await client.send(get("/", *fields))
            assert (await client.response())[0] == 429
        for network, status in (("1", 200), ("2", 200), ("1", 200), ("1", 429)):
            await client.send(get("/", f"X-Forwarded-For: 2001:db8:0:{network}::{s.number}"))
            s.number += 1
            assert (await client.response())[0] == status
        await client.send(get("/"))
        assert (await client.response())[0] == 200
        names = [json.loads(line)["client"] for line in log.take().splitlines()]
        assert names[:2] == ["203.0.113.0"] * 2
        assert names[-1] == "127.0.0.1"


@on_uvloop
async def test_a_client_that_is_not_trusted_cannot_choose_its_address() -> None:
    log = AccessLog("json")
    limited = Route(id="1", targets=(Target("shop"),), rate_limit=RateLimit(0.001, 1))
    async with scene({"access_log": log}) as s:
        s.install(service(await s.origin(answers(OK))), routes=(limited,))
        client = await s.client()
        for number, status in ((1, 200), (2, 429)):
            await client.send(get("/", f"X-Forwarded-For: 203.0.113.{number}"))
            assert (await client.response())[0] == status
        assert {json.loads(line)["client"] for line in log.take().splitlines()} == {"127.0.0.1"}


@on_uvloop
@pytest.mark.parametrize(
    ("source", "status", "counted"),
    [
        ("10.0.0.7", 403, "demo/cart"),
        ("10.0.0.8", 200, "demo/orders"),
        ("203.0.113.1", 200, "demo/edge"),
    ],
)
async def test_a_service_that_calls_through_a_trusted_proxy_has_its_own_rights(
    source: str, status: int, counted: str
) -> None:
    callers = {"127.0.0.1": "demo/edge", "10.0.0.7": "demo/cart", "10.0.0.8": "demo/orders"}
    async with scene(kind="mesh", caller="demo/") as s:
        secret = service(
            await s.origin(answers(OK)), name="demo/secret", allow=("demo/orders", "demo/edge")
        )
        s.install(secret, routes=(), callers=callers, trusted_proxies=("127.0.0.1",))
        request = f"GET / HTTP/1.1\r\nHost: secret\r\nX-Forwarded-For: {source}\r\n\r\n"
        client = await s.ask(request.encode())
        assert (await client.response())[0] == status
        (report,) = s.plane.report(0.0, 1.0).services
        assert {**report.calls, **report.uncovered} == {counted: 1}
