"""The API over its real sockets: values arrive as they were sent, and errors keep their type."""

import asyncio
import getpass
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from meshd.api import client as client_module
from meshd.api import responses
from meshd.api.client import ApiFailure, Client, NoDaemon, wait_for_daemon
from meshd.api.dto import LogLine, RestartOrder, ServicePolicy
from meshd.api.port import Control
from meshd.api.server import ServeError, Serving, serve
from meshd.model.errors import NotFound, Rejected
from meshd.model.event import Event
from meshd.model.job import JobOrder
from meshd.model.output import OutputQuery
from meshd.runtime.base import ImageMissing, RuntimeUnavailable
from meshd.spec.model import Project, Service
from tests.fakes.control import FakeControl
from tests.support.answers import status_of
from tests.support.waiting import elapse, wait_until

SHOP = Project(name="shop", services=(Service(name="orders", environment={"A": "ä"}),))


@pytest.fixture
def control() -> FakeControl:
    return FakeControl()


@pytest.fixture
async def serving(control: FakeControl, tmp_path: Path) -> AsyncIterator[Serving]:
    offered: Control = control
    async with serve(offered, tmp_path / "admin.sock", "127.0.0.1:0") as bound:
        yield bound


@pytest.fixture
async def client(serving: Serving) -> AsyncIterator[Client]:
    async with Client(serving.socket_path) as opened:
        yield opened


async def test_only_the_owner_may_open_the_socket(serving: Serving) -> None:
    assert stat.S_IMODE(serving.socket_path.stat().st_mode) == 0o600


async def test_a_project_arrives_as_it_was_sent(control: FakeControl, client: Client) -> None:
    result = await client.deploy(SHOP)
    assert (result.done, result.ok) == (True, True)
    assert control.projects["shop"] == SHOP
    assert control.calls == [("deploy", "shop", getpass.getuser())]
    assert [s.name for s in (await client.status()).services] == ["orders"]
    await client.down("shop")
    assert control.projects == {}


async def test_operations_reach_the_facade(control: FakeControl, client: Client) -> None:
    control.plan_text = "start orders-1"
    assert (await client.plan(SHOP)).plan == "start orders-1"
    await client.scale("shop", "orders", 3, 60.0)
    await client.scale("shop", "orders", None)
    await client.drain("orders-1")
    control.restarting = RestartOrder(("orders-1",), "stop-first")
    assert await client.restart("shop", "orders") == control.restarting
    await client.shutdown(True)
    assert control.calls[1:] == [
        ("scale", "shop", "orders", 3, 60.0),
        ("scale", "shop", "orders", None, 0.0),
        ("drain", "orders-1"),
        ("restart", "shop", "orders"),
        ("shutdown", True),
    ]


@pytest.mark.parametrize(
    ("raised", "expected", "text"),
    [
        (NotFound("no such replica"), NotFound, "no such replica"),
        (Rejected("not now"), Rejected, "not now"),
        (ImageMissing("no image x"), Rejected, "no image x"),
        (RuntimeUnavailable("gone"), ApiFailure, "503.*does not answer: gone"),
        (RuntimeError("a bug"), ApiFailure, "500"),
    ],
)
async def test_errors_keep_their_meaning(
    control: FakeControl,
    client: Client,
    raised: Exception,
    expected: type[Exception],
    text: str,
) -> None:
    control.refuse = raised
    with pytest.raises(expected, match=text):
        await client.drain("x")


async def test_wrong_bodies_are_refused_by_field(control: FakeControl, serving: Serving) -> None:
    async with aiohttp.ClientSession(
        "http://meshd/", connector=aiohttp.UnixConnector(path=str(serving.socket_path))
    ) as session:
        answer = await session.put("v1/projects/shop", data=b'{"name": "shop", "nmae": 1}')
        assert answer.status == 400
        assert "nmae" in (await answer.json(content_type=None))["error"]
        other = session.put("v1/projects/other", data=SHOP.model_dump_json())
        assert await status_of(other) == 400
        assert await status_of(session.get("v1/events?since=x")) == 400
    assert control.calls == []


async def test_the_tcp_address_only_reads(control: FakeControl, serving: Serving) -> None:
    async with aiohttp.ClientSession(f"http://{serving.metrics_address}/") as session:
        metrics = await session.get("metrics")
        assert await metrics.read() == control.exposition
        assert metrics.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert (await (await session.get("healthz")).json())["status"] == "ok"
        assert (await (await session.get("status")).json())["runtime"] == "process"
        for method, path in [("PUT", "v1/projects/shop"), ("POST", "v1/shutdown")]:
            assert await status_of(session.request(method, path)) == 404
        assert await status_of(session.post("status")) == 405
    assert control.calls == []


async def test_events_follow_without_a_gap(control: FakeControl, client: Client) -> None:
    for number in (1, 2):
        control.emit(Event(number, 1.0, "deploy"))
    seen: list[int] = []
    async with asyncio.timeout(10):
        async for event in client.follow_events(since=1):
            seen.append(event.id)
            if event.id < 4:
                control.emit(Event(event.id + 1, 1.0, "scale.up", numbers={"wanted": 2.0}))
            else:
                break
    assert seen == [2, 3, 4]
    assert [event.id for event in await client.events(since=0, limit=2)] == [1, 2]


async def test_a_reader_that_left_is_forgotten(control: FakeControl, serving: Serving) -> None:
    async with Client(serving.socket_path) as client:
        follow = asyncio.ensure_future(anext(client.follow_events()))
        await wait_until(lambda: control.listeners, what="the reader listens")
        follow.cancel()
        await asyncio.wait([follow])

    def forgotten() -> bool:
        control.emit(Event(len(control.stored) + 1, 1.0, "deploy"))
        return not control.listeners

    await wait_until(forgotten, what="the reader is forgotten")


async def test_a_stream_that_opens_during_a_cancellation_is_closed(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert client._session is not None
    get = client._session.get
    responses: list[aiohttp.ClientResponse] = []

    async def get_and_cancel(path: str, **options: Any) -> aiohttp.ClientResponse:
        responses.append(await get(path, **options))
        reading.cancel()
        return responses[0]

    monkeypatch.setattr(client._session, "get", get_and_cancel)
    reading = asyncio.ensure_future(anext(client.follow_events()))
    await asyncio.wait([reading], timeout=10)
    assert reading.cancelled()
    assert responses[0].closed


async def test_logs_with_and_without_following(control: FakeControl, client: Client) -> None:
    control.lines = [("orders-1", "one"), ("orders-1", "two")]
    assert await client.logs("shop", "orders", OutputQuery(1)) == [LogLine("orders-1", "two")]
    lines = client.follow_logs("shop", "orders", OutputQuery(2))
    async with asyncio.timeout(10):
        past = [await anext(lines), await anext(lines)]
        coming = asyncio.ensure_future(anext(lines))
        await wait_until(lambda: control.followers, what="the client follows")
        control.followers[0].put_nowait(("orders-2", "three"))
        control.followers[0].put_nowait(None)
        assert [line.line for line in past] == ["one", "two"]
        line = await coming
        assert (line.replica, line.line, line.at > 0.0) == ("orders-2", "three", True)
        with pytest.raises(StopAsyncIteration):
            await anext(lines)


async def test_a_missing_daemon_is_one_clear_error(tmp_path: Path) -> None:
    async with Client(tmp_path / "admin.sock") as client:
        with pytest.raises(NoDaemon, match=r"no daemon answers at .*admin\.sock; .*meshd up"):
            await client.status()
    assert await wait_for_daemon(tmp_path / "admin.sock", 0.0) is None


async def test_a_daemon_that_hangs_ends_every_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "ALIVE_SECONDS", 0.1)
    monkeypatch.setattr(client_module, "SHORT_TIMEOUT", aiohttp.ClientTimeout(total=0.2))
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()
        async with Client(path) as client, asyncio.timeout(10):
            for call in (
                client._call("GET", "v1/status", None, client_module.SHORT_TIMEOUT),
                client.down("shop"),
                client.deploy(SHOP),
                anext(client.follow_events()),
                anext(client.follow_logs("shop", "orders", OutputQuery(1))),
            ):
                with pytest.raises(ApiFailure, match=r"did not answer within 0\.2 s; its log is"):
                    await call


async def test_a_long_call_lasts_while_the_daemon_answers(
    control: FakeControl, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "ALIVE_SECONDS", 0.05)
    lines = client.follow_logs("shop", "orders", OutputQuery(0))
    coming = asyncio.ensure_future(anext(lines))
    await wait_until(lambda: control.followers, what="the client follows")
    await elapse(0.3, "silence several times as long as the check's interval")
    control.followers[0].put_nowait(("orders-1", "late"))
    async with asyncio.timeout(10):
        assert (await coming).line == "late"
        control.followers[0].put_nowait(None)
        assert [line async for line in lines] == []


async def test_a_second_daemon_is_refused_and_a_dead_ones_socket_replaced(
    control: FakeControl, tmp_path: Path
) -> None:
    path = tmp_path / "admin.sock"
    async with serve(control, path, "127.0.0.1:0") as first:
        with pytest.raises(ServeError, match="another daemon answers"):
            async with serve(control, path, "127.0.0.1:0"):
                raise AssertionError("it served")
        with pytest.raises(ServeError, match="metrics"):
            async with serve(control, tmp_path / "b.sock", first.metrics_address):
                raise AssertionError("it served")
        assert await wait_for_daemon(path, 1.0) is not None
    assert not path.exists()
    assert not (tmp_path / "b.sock").exists()
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    async with serve(control, path, "127.0.0.1:0"):
        assert await wait_for_daemon(path, 1.0) is not None


async def test_a_request_with_an_unknown_field_is_refused_by_name(
    control: FakeControl, serving: Serving
) -> None:
    service = "v1/projects/shop/services/orders"
    requests = [
        ("PUT", f"{service}/scale", b'{"replicas": 1, "secnods": 9}', "secnods"),
        ("POST", f"{service}/jobs", b'{"comand": ["true"]}', "comand"),
        ("POST", "v1/projects/shop/plan", b'{"name": "shop", "servces": []}', "servces"),
    ]  # fmt: skip
    async with aiohttp.ClientSession(
        "http://meshd/", connector=aiohttp.UnixConnector(path=str(serving.socket_path))
    ) as session:
        for method, path, body, field in requests:
            answer = await session.request(method, path, data=body)
            assert answer.status == 400
            assert field in (await answer.json(content_type=None))["error"]
    assert control.calls == []
    assert control.jobs.orders == []


async def test_a_response_with_unknown_fields_is_read(tmp_path: Path) -> None:
    """A newer daemon may send more than this client knows."""
    status = (
        b'{"version": "9", "runtime": "process", "runtime_state": "ok", "generation": [1, 2],'
        b' "workers": [1], "proxy": [], "later": {"a": 1}, "services": [{"project": "shop",'
        b' "name": "orders", "wanted": 1, "running": 1, "ready": 1, "minimum": 1, "maximum": 1,'
        b' "revision": "r1", "later": [2]}]}'
    )
    event = b'{"id": 7, "at": 1.0, "kind": "deploy", "later": true}'
    routes = {"/v1/status": status, "/v1/events": event + b"\n"}

    async def respond(request: web.Request) -> web.Response:
        return web.Response(body=routes[request.path])

    app = web.Application()
    app.add_routes([web.get(path, respond) for path in routes])
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.UnixSite(runner, str(tmp_path / "admin.sock")).start()
        async with Client(tmp_path / "admin.sock") as client:
            assert [s.name for s in (await client.status()).services] == ["orders"]
            assert [e.id async for e in client.follow_events()] == [7]
    finally:
        await runner.cleanup()


async def _chunks(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def test_volumes_are_streamed_both_ways(control: FakeControl, client: Client) -> None:
    user = getpass.getuser()
    assert [each.name for each in await client.volumes()] == ["shop_data"]
    data = b"".join([chunk async for chunk in client.read_volume("shop_data", True)])
    assert data == b"onetwo"
    with pytest.raises(Rejected, match="is not empty"):
        await client.check_restore("shop/data", False)
    assert await client.check_restore("shop/data", True) == "shop/data"
    await client.restore_volume("shop/data", _chunks(b"a", b"b" * 300_000), True)
    assert control.volumes.content["shop/data"] == [b"a" + b"b" * 300_000]
    await client.remove_volume("shop/data")
    assert control.volumes.calls == [
        ("read", "shop_data", True, user),
        ("restore", "shop/data", True, user),
        ("remove", "shop/data", user),
    ]


async def test_a_part_of_a_volume_is_not_taken_for_the_whole(
    control: FakeControl, client: Client
) -> None:
    control.volumes.failing = True
    with pytest.raises(ApiFailure, match="the backup failed before it was complete"):
        async for _ in client.read_volume("shop_data", False):
            pass
    with pytest.raises(NotFound, match="there is no volume 'other'"):
        async for _ in client.read_volume("other", False):
            pass


def _session(serving: Serving) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        "http://meshd/", connector=aiohttp.UnixConnector(path=str(serving.socket_path))
    )


async def test_without_its_lease_a_daemon_answers_and_changes_nothing(
    control: FakeControl, serving: Serving
) -> None:
    control.lease_expired = True
    async with _session(serving) as session:
        async with session.get("v1/status") as shown:
            assert shown.status == 200
        async with session.post("v1/replicas/x/drain") as refused:
            assert refused.status == 409
            assert "may not change anything" in (await refused.json(content_type=None))["error"]
        assert control.calls == []
        async with session.post("v1/shutdown?stop_replicas=0") as ended:
            assert ended.status == 202


async def test_errors_are_problems(control: FakeControl, serving: Serving) -> None:
    control.refuse = Rejected("not now")
    async with _session(serving) as session:
        answer = await session.post("v1/replicas/x/drain")
        assert answer.content_type == "application/problem+json"
        assert await answer.json(content_type=None) == {
            "type": "about:blank",
            "title": "Conflict",
            "status": 409,
            "detail": "not now",
            "error": "not now",
        }
        for method, path, status in [
            ("GET", "v1/nothing", 404),
            ("PATCH", "v1/status", 405),
            ("GET", f"v1/events?since={'9' * 5000}", 400),
        ]:
            answer = await session.request(method, path)
            problem = await answer.json(content_type=None)
            assert (answer.status, problem["status"]) == (status, status)
            assert problem["detail"]
            assert ("Allow" in answer.headers) == (status == 405)


async def test_a_bug_is_a_problem_without_its_details(
    control: FakeControl, serving: Serving
) -> None:
    control.refuse = RuntimeError("secret detail")
    async with _session(serving) as session:
        answer = await session.post("v1/replicas/x/drain")
        assert answer.status == 500
        assert "secret" not in await answer.text()


async def test_the_description_is_served(serving: Serving) -> None:
    async with _session(serving) as session:
        document = await (await session.get("openapi.json")).json()
        assert document["openapi"] == "3.1.0"
        assert document["paths"]["/v1/projects/{project}"]["put"]["x-role"] == "admin"


async def _pages(session: aiohttp.ClientSession, path: str) -> list[Any]:
    """Return all pages of a list, each as decoded JSON, by following the links."""
    found: list[Any] = []
    while path:
        answer = await session.get(path)
        assert answer.status == 200
        found.append(await answer.json())
        link = answer.links.get("next")
        path = str(link["url"].relative()).lstrip("/") if link else ""
        assert len(found) < 20
    return found


async def test_lists_are_returned_in_pages(control: FakeControl, serving: Serving) -> None:
    control.policy = [ServicePolicy(f"s{number}", None, False) for number in (3, 1, 2)]
    for number in range(1, 6):
        control.emit(Event(number, 1.0, "deploy"))
    jobs = [control.jobs.begin("shop", "orders", JobOrder(), "test") for _ in range(3)]
    path = "v1/projects/shop/policy"
    async with _session(serving) as session:
        assert [p["service"] for p in (await _pages(session, path))[0]] == ["s3", "s1", "s2"]
        paged = await _pages(session, f"{path}?limit=2")
        assert [[p["service"] for p in page] for page in paged] == [["s1", "s2"], ["s3"]]
        events = await _pages(session, "v1/events?limit=2")
        assert [[e["id"] for e in page] for page in events] == [[1, 2], [3, 4], [5]]
        pages = await _pages(session, "v1/jobs?limit=2")
        assert [len(page["jobs"]) for page in pages] == [2, 1]
        assert {j["id"] for page in pages for j in page["jobs"]} == {job.id for job in jobs}


async def test_events_are_sent_to_browsers(control: FakeControl, serving: Serving) -> None:
    for number in (1, 2):
        control.emit(Event(number, 1.0, "deploy"))
    headers = {"Accept": "text/event-stream", "Last-Event-ID": "1"}
    async with _session(serving) as session, asyncio.timeout(10):
        answer = await session.get("v1/events", headers=headers)
        assert answer.content_type == "text/event-stream"
        assert await answer.content.readline() == b"id: 2\n"
        line = await answer.content.readline()
        assert msgspec.json.decode(line.removeprefix(b"data: "), type=Event).id == 2
        assert await answer.content.readline() == b"\n"
        answer.close()


async def test_a_client_of_a_stream_that_is_too_far_behind_is_disconnected(
    control: FakeControl, client: Client
) -> None:
    following = client.follow_events()
    coming = asyncio.ensure_future(anext(following))
    await wait_until(lambda: control.listeners, what="the client follows")
    control.drop_listeners()
    async with asyncio.timeout(10):
        with pytest.raises(NoDaemon, match="closed the connection"):
            await coming


async def test_a_client_that_does_not_read_is_disconnected(
    control: FakeControl, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(responses, "WRITE_SECONDS", 0.1)
    with socket.socket(socket.AF_UNIX) as lazy:
        lazy.connect(str(serving.socket_path))
        lazy.sendall(b"GET /v1/events?follow=1 HTTP/1.1\r\nHost: meshd\r\n\r\n")
        await wait_until(lambda: control.listeners, what="the client follows")

        def is_disconnected() -> bool:
            for _ in range(100):
                control.emit(Event(len(control.stored) + 1, 1.0, "deploy", text="x" * 10_000))
            return not control.listeners

        await wait_until(is_disconnected, what="the client is disconnected")
