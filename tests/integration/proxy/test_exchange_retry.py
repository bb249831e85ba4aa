"""Requests whose endpoint fails: retries and ejection."""

import time

import pytest

from proxy.wire.snapshot import (
    Balance,
    Ejection,
    Endpoint,
    Retries,
    Service,
)
from tests.support.ports import free_port
from tests.support.proxy_policies import BAD, close_after_request, service_report
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
async def test_a_refused_connection_is_retried_for_every_method() -> None:
    async with scene() as s:
        origin = await s.origin(answers(OK))
        dead = Endpoint(id="dead", host="127.0.0.1", port=free_port())
        alive = Endpoint(id="alive", host="127.0.0.1", port=origin.port)
        s.install(Service("shop", "1", (dead, alive), balance=Balance("round-robin")))
        for _ in range(6):
            client = await s.ask(post(b"hello"))
            assert (await client.response())[0] == 200
        report = service_report(s)
        assert report.retries >= 2
        assert report.codes == {"POST 2xx": 6}
        assert {e.id: e.failed for e in report.endpoints}["dead"] == report.retries


@on_uvloop
async def test_one_endpoint_that_refuses_is_502_at_once() -> None:
    async with scene() as s:
        dead = Endpoint(id="dead", host="127.0.0.1", port=free_port())
        s.install(Service("shop", "1", (dead,)))
        begun = time.monotonic()
        client = await s.ask(get())
        assert (await client.response())[0] == 502
        assert time.monotonic() - begun < 1.0


@pytest.mark.parametrize(
    ("request_bytes", "status", "deliveries"), [(get(), 200, 1), (post(b"hi"), 502, 1)]
)
@on_uvloop
async def test_only_idempotent_requests_are_retried(
    request_bytes: bytes, status: int, deliveries: int
) -> None:
    async with scene() as s:
        bad, good = await s.origin(close_after_request), await s.origin(answers(OK))
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
            await elapse(0.02, "the rest of the body arrives later")
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
        assert service_report(s).retries == 0


@on_uvloop
async def test_a_listed_status_is_retried_within_the_budget() -> None:
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


@on_uvloop
async def test_an_endpoint_with_consecutive_failures_is_ejected_and_probed() -> None:
    healthy = False

    async def sick(visit: Visit) -> None:
        while True:
            await visit.head()
            await visit.send(named_ok(b"sick") if healthy else BAD)

    ejected: list[tuple[object, ...]] = []
    async with scene({"on_ejected": lambda *said: ejected.append(said)}) as s:
        origins = [await s.origin(sick), await s.origin(answers(named_ok(b"well")))]
        s.install(
            service(
                *origins,
                balance=Balance("round-robin"),
                ejection=Ejection(consecutive=3, base=1.0),
            )
        )
        client = await s.client()
        for _ in range(20):
            await client.send(get())
            assert (await client.response())[2] == b"well"
        ((name, endpoint, _, cause),) = ejected
        assert (name, endpoint) == ("shop", "shop-0")
        assert "3 failures in a row" in str(cause)
        for _ in range(2):  # the second time without requests
            (counted,) = s.plane.report(0.0, 1.0, busy_only=True).services
            assert any(each.id == endpoint and each.ejected for each in counted.endpoints)
        healthy = True
        bodies = set()

        async def ask() -> bool:
            await client.send(get())
            bodies.add((await client.response())[2])
            return b"sick" in bodies

        await wait_until(ask, 10, "an answer of the endpoint that was ejected", interval=0.05)
