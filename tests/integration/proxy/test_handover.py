"""Connections to virtual addresses and published ports are handed to what serves their service."""

import asyncio
from contextlib import asynccontextmanager
from typing import Any, cast

from proxy.request.data_plane import DataPlane
from proxy.state.service_state import ServiceState
from proxy.wire.snapshot import Listener
from proxy.worker.handover import TcpFactory, protocol_factory
from tests.support.proxy_scene import OK, Scene, answers, named_ok, on_uvloop, service


@asynccontextmanager
async def listening(tcp: TcpFactory | None = None, **listener: Any):  # type: ignore[no-untyped-def]
    """A scene whose connections go through the handover."""
    made = Scene({})
    factory = protocol_factory(made.plane, Listener(**{"address": "127.0.0.1:0", **listener}), tcp)
    made.server = await made.loop.create_server(factory, "127.0.0.1", 0)
    made.port = made.server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        await made.close()


async def is_reset(scene: Scene) -> bool:
    client = await scene.client()
    try:
        await client.rest()
    except ConnectionResetError:
        return True
    return False


class Echo(asyncio.Protocol):
    """Stands in for the TCP side: sends its name, the caller and the service."""

    def __init__(
        self, plane: DataPlane, listener: Listener, service: ServiceState, caller: str
    ) -> None:
        del plane, listener
        self.text = f"{service.name} {caller}\n"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).write(self.text.encode())


@on_uvloop
async def test_a_published_port_leads_to_its_service_whatever_host_says() -> None:
    async with listening(kind="published", service="demo/web:9000") as s:
        main = await s.origin(answers(named_ok(b"main")))
        other = await s.origin(answers(named_ok(b"other")))
        s.install(
            service(main, name="demo/web"),
            service(other, name="demo/web:9000", allow=("demo/a",)),
            routes=(),
        )
        client = await s.client()
        for _ in range(3):
            await client.send(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
            status, _, body = await client.response()
            assert (status, body) == (200, b"other")
        counted = {one.name: one.calls for one in s.plane.report(0.0, 1.0).services}
        assert counted == {"demo/web": {}, "demo/web:9000": {"outside": 3}}


@on_uvloop
async def test_allow_holds_for_known_callers_at_a_published_port() -> None:
    async with listening(kind="published", service="demo/web") as s:
        origin = await s.origin(answers(OK))
        s.install(
            service(origin, name="demo/web", allow=("demo/a",)),
            routes=(),
            callers={"127.0.0.1": "demo/b"},
        )
        client = await s.ask(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await client.response())[0] == 403


@on_uvloop
async def test_a_virtual_address_leads_to_its_service_whatever_host_says() -> None:
    async with listening(kind="virtual", caller="demo/a") as s:
        origin = await s.origin(answers(OK))
        address = f"127.0.0.1:{s.port}"
        s.install(
            service(origin, name="demo/web", allow=("demo/a",)),
            service(origin, name="demo/x", allow=()),
            routes=(),
            virtual={address: "demo/web"},
        )
        client = await s.client()
        for _ in range(3):
            await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await client.response())[0] == 200
        web, _ = s.plane.report(0.0, 1.0).services
        assert web.calls == {"demo/a": 3}


@on_uvloop
async def test_allow_holds_at_a_virtual_address() -> None:
    async with listening(kind="virtual", caller="demo/b") as s:
        origin = await s.origin(answers(OK))
        s.install(
            service(origin, name="demo/web", allow=("demo/a",)),
            routes=(),
            virtual={f"127.0.0.1:{s.port}": "demo/web"},
        )
        client = await s.ask(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
        assert (await client.response())[0] == 403


@on_uvloop
async def test_an_address_that_leads_nowhere_resets_the_connection() -> None:
    async with listening(kind="virtual") as s:
        origin = await s.origin(answers(OK))
        s.install(service(origin, name="demo/web"), routes=())

        assert await is_reset(s)
        assert s.plane.report(0.0, 1.0).refused == {"no-service": 1}


@on_uvloop
async def test_connections_to_a_tcp_service_are_handed_to_the_tcp_side() -> None:
    async with listening(Echo, kind="virtual", caller="demo/a") as s:
        s.install(
            service(name="demo/db", protocol="tcp", allow=("demo/a",)),
            routes=(),
            virtual={f"127.0.0.1:{s.port}": "demo/db"},
        )
        client = await s.client()
        assert await client.reader.readline() == b"demo/db demo/a\n"


@on_uvloop
async def test_a_tcp_connection_of_a_caller_that_is_not_allowed_is_reset_and_counted() -> None:
    async with listening(Echo, kind="virtual", caller="demo/b") as s:
        s.install(
            service(name="demo/db", protocol="tcp", allow=("demo/a",)),
            routes=(),
            virtual={f"127.0.0.1:{s.port}": "demo/db"},
        )
        assert await is_reset(s)
        (db,) = s.plane.report(0.0, 1.0).services
        assert (db.denied, db.uncovered) == (1, {"demo/b": 1})
