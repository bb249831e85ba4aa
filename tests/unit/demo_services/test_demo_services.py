"""Each service of the demo on its own, over a real socket."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import jwt
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from demo_services import (
    actions,
    auth,
    catalogue,
    couriers,
    document_store,
    orders,
    payments,
    restaurants,
    scenario,
    tracking,
)
from demo_services.mesh import Mesh
from demo_services.replica import Replica, Work


def replica(mean: float = 0.001, concurrency: int = 4, queue: int = 200) -> Replica:
    return Replica("test", Work(mean=mean, cv=0.1, concurrency=concurrency, queue=queue))


@pytest.fixture(autouse=True)
def own_data(tmp_path: os.PathLike[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path))


async def client(app: web.Application) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    async with TestClient(TestServer(app)) as opened:
        yield opened


async def test_a_token_from_login_is_accepted_by_verify() -> None:
    async for http in client(auth.build(replica())):
        token = (await (await http.post("/auth/login", json={"user": "eve"})).json())["token"]
        answer = await http.get("/auth/verify", headers={"Authorization": f"Bearer {token}"})
        assert (answer.status, (await answer.json())["user"]) == (200, "eve")


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer nonsense",
        "Basic abc",
        "Bearer " + jwt.encode({"sub": "x", "exp": 1}, auth.SECRET, algorithm="HS256"),
        "Bearer " + jwt.encode({"sub": "x", "exp": 2**33}, "k" * 32, algorithm="HS256"),
        "Bearer " + jwt.encode({"sub": "x"}, auth.SECRET, algorithm="HS256"),
    ],
    ids=["none", "garbage", "basic", "expired", "other key", "no expiry"],
)
async def test_verify_refuses_a_bad_token(header: str) -> None:
    async for http in client(auth.build(replica())):
        answer = await http.get("/auth/verify", headers={"Authorization": header})
        assert answer.status == 401


async def test_search_ranks_and_a_menu_is_found_by_id() -> None:
    async for http in client(restaurants.build(replica())):
        found = await (await http.get("/restaurants?q=thai")).json()
        ratings = [r["rating"] for r in found]
        assert len(found) == 20
        assert ratings == sorted(ratings, reverse=True)
        assert all("thai" in r["cuisine"] or "Thai" in r["name"] for r in found)
        menu = await (await http.get(f"/restaurants/{found[0]['id']}/menu")).json()
        assert {d["id"] for d in menu["menu"]} == {1, 2, 3, 4, 5, 6}
        for missing in ("0", "999999", "x"):
            assert (await http.get(f"/restaurants/{missing}/menu")).status == 404


def test_the_catalogue_is_the_same_on_every_replica() -> None:
    assert len(catalogue.restaurants()) == 3000
    assert catalogue.restaurants()[0] == catalogue.restaurants.__wrapped__()[0]


async def test_a_payment_is_taken_once() -> None:
    async for http in client(payments.build(replica())):
        first = await http.post("/payments", json={"id": "a", "amount": 500})
        again = await http.post("/payments", json={"id": "a", "amount": 500})
        assert (first.status, again.status) == (201, 200)
        assert (await again.json())["repeated"] is True
        assert (await http.post("/payments", json={"id": "b", "amount": -1})).status == 400


async def test_an_order_calls_all_three_services(monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        TestServer(auth.build(replica())) as a,
        TestServer(restaurants.build(replica())) as r,
        TestServer(payments.build(replica())) as p,
        TestClient(TestServer(orders.build(replica()))) as http,
    ):
        for name, server in (("AUTH", a), ("RESTAURANTS", r), ("PAYMENTS", p)):
            monkeypatch.setenv(f"MESH_URL_{name}", str(server.make_url("/")))
        headers = {"Authorization": f"Bearer {auth.issue('eve', time.time())}"}
        order = {"restaurant": 7, "dishes": [1, 2]}
        placed = await http.post("/orders", json=order, headers=headers)
        assert placed.status == 201
        body = await placed.json()
        menu = catalogue.find(7)
        assert menu is not None
        assert body["amount"] == menu.menu[0].price + menu.menu[1].price
        shown = await (await http.get(f"/orders/{body['id']}")).json()
        assert shown == body
        refused = await http.post("/orders", json=order)
        assert refused.status == 401
        odd = await http.post("/orders", json={"restaurant": 7, "dishes": [99]}, headers=headers)
        assert odd.status == 422


async def test_an_order_names_the_service_that_failed(
    monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    monkeypatch.setenv("MESH_URL_AUTH", f"http://127.0.0.1:{free_port}")
    async for http in client(orders.build(replica())):
        answer = await http.post("/orders", json={"restaurant": 1, "dishes": [1]})
        assert answer.status == 502
        assert "auth did not answer" in await answer.text()


@pytest.fixture
async def courier_service(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Replica]:
    """A running replica of `couriers`, which `tracking` finds."""
    made = replica()
    server = couriers.build(made)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    monkeypatch.setenv("MESH_URL_COURIERS", f"http://127.0.0.1:{port}")
    yield made
    await server.stop(0)


@pytest.mark.parametrize(
    ("url", "target", "path"),
    [
        ("http://couriers", "couriers:80", "/food.Couriers"),
        ("http://couriers:8080/", "couriers:8080", "/food.Couriers"),
        ("http://127.0.0.1:9/t/abc/couriers", "127.0.0.1:9", "/t/abc/couriers/food.Couriers"),
    ],
)
def test_couriers_is_found_at_a_base_url(url: str, target: str, path: str) -> None:
    assert couriers.locate_service(url) == (target, path)


async def test_tracking_asks_couriers_for_a_position(courier_service: Replica) -> None:
    async for http in client(tracking.build(replica())):
        answer = await (await http.get("/tracking/abc/position")).json()
        assert answer["lat"] == pytest.approx(52.55, abs=0.1)
        assert (answer["couriers"], answer["version"]) == ("1", "1")
        courier_service.faults.failing = 1
        failed = await http.get("/tracking/abc/position")
        assert (failed.status, await failed.text()) == (
            502, "couriers answered INTERNAL: injected fault"
        )  # fmt: skip
        cut = await (await http.get("/tracking/abc?seconds=1")).text()
        assert cut == "event: error\ndata: couriers answered INTERNAL: injected fault\n\n"


@pytest.mark.usefixtures("courier_service")
async def test_tracking_streams_positions_and_a_final_event() -> None:
    async for http in client(tracking.build(replica())):
        started = time.monotonic()
        answer = await http.get("/tracking/abc?seconds=2")
        first = await answer.content.readuntil(b"\n\n")
        assert time.monotonic() - started < 2  # before the end
        assert first.startswith(b"event: position\ndata: ")
        assert (await answer.content.read()).endswith(b"event: end\ndata: {}\n\n")


async def test_concurrency_is_limited_so_that_latency_grows_with_load() -> None:
    limited = replica(mean=0.05, concurrency=2)
    started = time.monotonic()

    async def one() -> None:
        async with limited.busy():
            pass

    await asyncio.gather(*(one() for _ in range(8)))
    assert time.monotonic() - started > 0.05 * 8 / 2 * 0.6


async def test_a_full_queue_answers_503() -> None:
    limited = replica(mean=5, concurrency=1, queue=1)
    tasks = [asyncio.create_task(limited.busy().__aenter__()) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(web.HTTPServiceUnavailable):
        async with limited.busy():
            pass
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_faults_can_be_set_and_removed() -> None:
    switched = replica()
    app = restaurants.build(switched)
    app.router.add_get("/healthz", switched.health)
    app.router.add_post("/_fault", switched.fault)
    async for http in client(app):
        await http.post("/_fault", json={"mode": "failing", "value": 1})
        assert (await http.get("/restaurants")).status == 500
        await http.post("/_fault", json={"mode": "none"})
        assert (await http.get("/restaurants")).status == 200
        await http.post("/_fault", json={"mode": "unhealthy"})
        assert (await http.get("/healthz")).status == 503
        await http.post("/_fault", json={"mode": "hanging"})
        with pytest.raises(asyncio.TimeoutError):
            await http.get("/restaurants", timeout=aiohttp.ClientTimeout(total=0.2))
        assert (await http.post("/_fault", json={"mode": "dancing"})).status == 400


def test_documents_are_stored_in_a_temporary_folder_without_a_volume(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DATA_DIR", "/nowhere")
    assert document_store.data_folder().is_dir()


@pytest.mark.parametrize("up", [True, False])
def test_the_state_of_a_running_mesh_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], up: bool
) -> None:
    state = tmp_path / "demo" / "state"
    state.mkdir(parents=True)
    if up:
        (state / "admin.sock").touch()
    scenario.clean_up(tmp_path / "demo")
    assert state.exists() is up
    assert (str(state) in capsys.readouterr().out) is up


def test_events_that_differ_only_in_their_replica_share_a_line() -> None:
    started = {"service": "orders", "kind": "replica.started", "text": "3 desired, 1 running"}
    assert actions.describe_events(
        [
            {**started, "replica": "a"},
            {**started, "replica": "b"},
            {**started, "kind": "replica.draining"},
            {"service": "", "kind": "deploy", "text": "deployed by eve"},
        ]
    ) == [
        "orders: 3 desired, 1 running (x2)",
        "orders: 3 desired, 1 running",
        "mesh: deployed by eve",
    ]


@pytest.mark.parametrize(
    ("samples", "text"),
    [
        ([(0.0, 1), (30.0, 4), (65.0, 4), (85.0, 2)], "1 → 4 → 2"),
        ([(0.0, 1), (30.0, 1), (85.0, 1)], "1 throughout: NOT scaled up in the rush"),
        ([(0.0, 1), (30.0, 3), (85.0, 3)], "1 → 3 → 3: NOT scaled down after the rush"),
        ([(0.0, 1), (30.0, 3)], "1 → 3 → 3: NOT scaled down after the rush"),
        ([], "not observed"),
    ],
)
def test_the_report_says_whether_services_scaled(
    samples: list[tuple[float, int]], text: str
) -> None:
    seen = actions.Observations(started=0.0)
    if samples:
        seen.replicas_ready = {"orders": samples, "payments": samples}
    assert actions.describe_scaling(seen, 90.0) == {"orders": text, "payments": text}


class FaultyMesh(Mesh):
    """A mesh whose replicas answer a change of their fault as `answers` says."""

    def __init__(self, answers: dict[str, Exception | None]) -> None:
        super().__init__(Path(), "process", "")
        self.answers = answers
        self.faults: dict[str, str] = {}

    async def set_fault(self, address: str, mode: str, value: float = 1) -> None:
        if error := self.answers[address]:
            raise error
        self.faults[address] = mode


@pytest.mark.parametrize("error", [TimeoutError(), aiohttp.ClientOSError("it has ended")])
async def test_a_replica_that_does_not_answer_does_not_end_the_demo(error: Exception) -> None:
    mesh = FaultyMesh({"a": None, "b": None, "c": error})
    seen = actions.Observations(started=0.0)
    replicas = [{"name": name, "address": name, "phase": "ready"} for name in "abc"]
    seen.services = {"restaurants": {"replicas": replicas}}
    await actions.slow_down(mesh, seen)
    assert mesh.faults == {"b": "slow"}
    assert "b becomes 6 times slower" in seen.lines[-1]
    mesh.answers = {"a": error, "b": None, "c": None}
    await actions.speed_up(mesh, seen)
    assert mesh.faults == {"b": "none", "c": "none"}
