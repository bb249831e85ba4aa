"""Endpoints that hang and were given up: what is under way at them goes elsewhere or ends."""

import time

import msgspec
import pytest

from proxy.request.data_plane import GIVEN_UP_SECONDS
from proxy.wire.snapshot import Balance, Retries
from tests.support.proxy_policies import service_report
from tests.support.proxy_scene import (
    Client,
    Origin,
    Scene,
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


async def hang(visit: Visit) -> None:
    await visit.head()
    await visit.wait_closed()


async def stream(visit: Visit) -> None:
    await visit.head()
    await visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun")
    await visit.wait_closed()


def install(s: Scene, origins: list[Origin], *, failed: int = 0, **config: object) -> None:
    """Install the origins; the first `failed` ones hang."""
    made = service(*origins, balance=Balance("round-robin"), **config)
    endpoints = tuple(
        msgspec.structs.replace(endpoint, state="failed" if index < failed else "ready")
        for index, endpoint in enumerate(made.endpoints)
    )
    s.install(msgspec.structs.replace(made, endpoints=endpoints))


async def ask_until_hanging(s: Scene, hanging: Origin, request: bytes) -> Client:
    """Send requests until the origin that hangs has one; return its client."""
    before = requests(hanging)
    while True:
        arrived = requests(*s.origins)
        client = await s.ask(request)
        await wait_until(lambda seen=arrived: requests(*s.origins) == seen + 1)  # type: ignore[misc]
        if requests(hanging) > before:
            return client


def requests(*origins: Origin) -> int:
    """Return how many requests have arrived at the origins."""
    visits = [visit for origin in origins for visit in origin.visits]
    return sum(visit.raw.count(b" HTTP/1.1\r\n") for visit in visits)


@on_uvloop
async def test_a_get_is_sent_to_another_endpoint_at_once() -> None:
    async with scene() as s:
        origins = [await s.origin(hang), await s.origin(answers(named_ok(b"good")))]
        install(s, origins)
        client = await ask_until_hanging(s, origins[0], get())
        begun = time.monotonic()
        install(s, origins, failed=1)
        assert (await client.response())[2] == b"good"
        assert time.monotonic() - begun < GIVEN_UP_SECONDS / 2
        assert s.plane.busy() == ()
        report = service_report(s)
        assert (report.retries, report.failures) == (1, {})


@pytest.mark.parametrize("script", [hang, stream])
@on_uvloop
async def test_what_cannot_be_repeated_ends_soon(script: object) -> None:
    async with scene() as s:
        origins = [await s.origin(script), await s.origin(answers(named_ok(b"good")))]  # type: ignore[arg-type]
        install(s, origins)
        client = await ask_until_hanging(s, origins[0], post(b"hello"))
        begun = time.monotonic()
        install(s, origins, failed=1)
        await wait_until(lambda: s.plane.busy() == ("shop-0",))
        answer = await client.rest() if script is stream else (await client.response())[2]
        took = time.monotonic() - begun
        assert GIVEN_UP_SECONDS - 0.2 < took < GIVEN_UP_SECONDS + 2
        assert answer.endswith(b"begun" if script is stream else b"was given up\n")
        assert s.plane.busy() == ()
        assert service_report(s).failures == {"given-up": 1}


@on_uvloop
async def test_a_get_waits_for_the_next_endpoint() -> None:
    async with scene() as s:
        origins = [await s.origin(hang)]
        install(s, origins)
        client = await ask_until_hanging(s, origins[0], get())
        install(s, origins, failed=1)
        await wait_until(lambda: service_report(s).parked == 1)
        install(s, [*origins, await s.origin(answers(named_ok(b"new")))], failed=1)
        assert (await client.response())[2] == b"new"


@on_uvloop
async def test_a_get_does_not_make_every_endpoint_hang() -> None:
    async with scene() as s:
        origins = [await s.origin(hang) for _ in range(3)]
        install(s, origins, retries=Retries(attempts=1))
        client = await ask_until_hanging(s, origins[0], get())

        def visits() -> int:
            return sum(len(origin.visits) for origin in origins)

        before = visits()
        install(s, origins, failed=1, retries=Retries(attempts=1))
        await wait_until(lambda: visits() == before + 1)
        install(s, origins, failed=3, retries=Retries(attempts=1))
        status, _, body = await client.response()
        assert status == 502
        assert b"given up" in body
        assert visits() == before + 1


@on_uvloop
async def test_a_tunnel_ends() -> None:
    async def tunnel(visit: Visit) -> None:
        await visit.head()
        await visit.send(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nhi"
        )
        await visit.wait_closed()

    async with scene() as s:
        origins = [await s.origin(tunnel)]
        install(s, origins)
        client = await s.ask(get("/", "Connection: upgrade", "Upgrade: x"))
        await client.until(b"\r\n\r\nhi")
        install(s, origins, failed=1)
        begun = time.monotonic()
        assert await client.rest() == b""
        assert time.monotonic() - begun > GIVEN_UP_SECONDS - 0.2


@on_uvloop
async def test_an_endpoint_that_is_ready_again_keeps_its_requests() -> None:
    async def late(visit: Visit) -> None:
        await visit.head()
        await elapse(GIVEN_UP_SECONDS + 0.5, "the origin works again after a while")
        await visit.send(named_ok(b"late"))

    async with scene() as s:
        origins = [await s.origin(late)]
        install(s, origins)
        client = await ask_until_hanging(s, origins[0], post(b"hello"))
        install(s, origins, failed=1)
        install(s, origins)
        assert (await client.response())[2] == b"late"
