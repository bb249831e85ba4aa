"""Connections to virtual addresses and published ports are handed to what serves their service."""

import asyncio
import functools
import socket
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from proxy.request.data_plane import DataPlane
from proxy.state.service_state import ServiceState
from proxy.wire.snapshot import Listener, Service
from proxy.worker.handover import Handover
from proxy.worker.newcomers import Newcomers
from tests.support.proxy_scene import OK, Scene, answers, named_ok, on_uvloop, service
from tests.support.tcp_scene import is_refused
from tests.support.waiting import wait_until

LEADS_TO_TCP = Handover._leads_to_tcp


@pytest.fixture(autouse=True, params=["event loop", "accept loop"])
def accepting(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test with both kinds of accepting: services may change after a listener is open."""
    monkeypatch.setattr(Handover, "_leads_to_tcp", lambda *_: request.param == "accept loop")


@asynccontextmanager
async def listening(  # type: ignore[no-untyped-def]
    tcp: "type[Echo] | None" = None, newcomers: Newcomers | None = None, **listener: Any
):
    """A scene whose connections go through the handover. `tcp` stands in for the TCP side."""
    made = Scene({})

    def start(
        plane: DataPlane,
        listener: Listener,
        service: ServiceState,
        caller: str,
        sock: socket.SocketType,
        peer: str,
    ) -> None:
        del plane, listener, peer
        assert tcp is not None
        made.attachments.attach(functools.partial(tcp, service, caller), sock)

    handover = Handover(made.plane, made.attachments, tcp and start, newcomers)
    await made.hand_over(handover, Listener(**{"address": "127.0.0.1:0", **listener}))
    try:
        yield made
    finally:
        await made.close()


class Echo(asyncio.Protocol):
    """Stands in for the TCP side: sends the service and the caller."""

    def __init__(self, service: ServiceState, caller: str) -> None:
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

        assert await is_refused(s)
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
        assert await is_refused(s)
        (db,) = s.plane.report(0.0, 1.0).services
        assert (db.denied, db.uncovered) == (1, {"demo/b": 1})


@on_uvloop
async def test_the_event_loop_accepts_where_no_service_is_a_tcp_service() -> None:
    """A connection that it has accepted costs less with HTTP, and more with TCP."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Handover, "_leads_to_tcp", LEADS_TO_TCP)
        async with listening(kind="virtual") as s:
            handover = Handover(s.plane, s.attachments)
            web, db = service(name="demo/web"), service(name="demo/db", protocol="tcp")
            virtual = Listener("127.0.0.1:0", kind="virtual")

            def accepts(listener: Listener) -> bool:
                return handover.protocol_factory(listener) is not None

            s.install(web, db, routes=())
            assert accepts(Listener("127.0.0.1:0", kind="published", service="demo/web"))
            assert not accepts(Listener("127.0.0.1:0", kind="published", service="demo/db"))
            assert not accepts(virtual)
            s.install(web, routes=())
            assert accepts(virtual)


class Arrival:
    """A container at 127.0.0.1 that calls a service with an `allow` list before a snapshot names
    it. The listener's network is shared, and the host has another address there."""

    def __init__(self) -> None:
        self.newcomers = Newcomers(asyncio.get_running_loop())
        self.listener = {
            "kind": "virtual",
            "caller": "demo/",
            "sources": ("127.0.0.0/8",),
            "address": "127.9.9.9:0",
        }

    def install(self, s: Scene, *services: Service, **more: Any) -> None:
        (called, *_) = services
        s.install(*services, routes=(), virtual={f"127.0.0.1:{s.port}": called.name}, **more)
        self.newcomers.snapshot_installed()


@on_uvloop
async def test_a_first_call_waits_for_the_snapshot_that_names_its_caller() -> None:
    arrival = Arrival()
    async with listening(newcomers=arrival.newcomers, **arrival.listener) as s:
        web = service(await s.origin(answers(OK)), name="demo/web", allow=("demo/a",))
        arrival.install(s, web)
        client = await s.ask(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
        await wait_until(lambda: arrival.newcomers.waiting, 5)
        arrival.install(s, web, callers={"127.0.0.2": "demo/a"})
        assert arrival.newcomers.waiting, "this snapshot names another one"
        arrival.install(s, web, callers={"127.0.0.1": "demo/a"})
        assert not arrival.newcomers.waiting
        assert (await client.response())[0] == 200
        (counted,) = s.plane.report(0.0, 1.0).services
        assert (counted.calls, counted.denied) == ({"demo/a": 1}, 0)


@pytest.mark.parametrize("callers", [{"127.0.0.1": "demo/b"}, {}])
@on_uvloop
async def test_a_caller_that_turns_out_to_be_another_one_is_refused(
    callers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.worker.newcomers.PATIENCE", 0.3)
    arrival = Arrival()
    async with listening(Echo, newcomers=arrival.newcomers, **arrival.listener) as s:
        web = service(await s.origin(answers(OK)), name="demo/web", allow=("demo/a",))
        arrival.install(s, web)
        client = await s.ask(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
        arrival.install(s, web, callers=callers)
        assert (await client.response())[0] == 403

        arrival.install(s, service(name="demo/db", protocol="tcp", allow=("demo/a",)))
        reset = asyncio.create_task(is_refused(s))
        await wait_until(lambda: arrival.newcomers.waiting, 5)
        arrival.install(
            s, service(name="demo/db", protocol="tcp", allow=("demo/a",)), callers=callers
        )
        assert await reset


@on_uvloop
async def test_bytes_that_a_waiting_client_sends_reach_the_tcp_side() -> None:
    arrival = Arrival()
    async with listening(Repeat, newcomers=arrival.newcomers, **arrival.listener) as s:
        db = service(name="demo/db", protocol="tcp", allow=("demo/a",))
        arrival.install(s, db)
        client = await s.ask(b"first words\n")
        await wait_until(lambda: arrival.newcomers.waiting, 5)
        arrival.install(s, db, callers={"127.0.0.1": "demo/a"})
        assert await client.until(b"\n") == b"first words\n"


class Repeat(Echo):
    """Sends back what it gets."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


@on_uvloop
async def test_who_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host itself, addresses of other networks, callers by network, and those beyond a bound.
    A service without a list has no waiting callers."""
    request = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n"
    arrival = Arrival()
    for change in (
        {"address": "127.0.0.1:0"},
        {"sources": ("10.0.0.0/8",)},
        {"caller": "demo/b"},
    ):
        async with listening(newcomers=arrival.newcomers, **arrival.listener | change) as s:
            origin = await s.origin(answers(OK))
            arrival.install(s, service(origin, name="demo/web", allow=("demo/a",)))
            assert (await (await s.ask(request)).response())[0] == 403
            arrival.install(s, service(origin, name="demo/open"))
            assert (await (await s.ask(request)).response())[0] == 200
    monkeypatch.setattr("proxy.worker.newcomers.MOST", 0)
    async with listening(newcomers=arrival.newcomers, **arrival.listener) as s:
        origin = await s.origin(answers(OK))
        arrival.install(s, service(origin, name="demo/web", allow=("demo/a",)))
        assert (await (await s.ask(request)).response())[0] == 403


@on_uvloop
async def test_a_worker_that_ends_decides_at_once() -> None:
    arrival = Arrival()
    async with listening(newcomers=arrival.newcomers, **arrival.listener) as s:
        origin = await s.origin(answers(OK))
        arrival.install(s, service(origin, name="demo/web", allow=("demo/a",)))
        client = await s.ask(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
        await wait_until(lambda: arrival.newcomers.waiting, 5)
        arrival.newcomers.release()
        assert (await client.response())[0] == 403
