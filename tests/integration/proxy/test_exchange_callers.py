"""Calls between services: the caller is known by connection, address or token."""

from typing import Any

import pytest

from tests.support.proxy_scene import (
    OK,
    answers,
    get,
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
