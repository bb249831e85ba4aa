"""The flight recorder: what a worker remembers of real requests, and saves when it is asked to."""

import time
from pathlib import Path

from meshd.store.flight_records import FlightRecords
from proxy.observe.flight import Flight, RecordOrder
from proxy.observe.flight_ring import FlightRing
from proxy.worker.flight_files import FlightFiles
from tests.support.proxy_policies import close_after_request, route
from tests.support.proxy_scene import OK, answers, get, on_uvloop, scene, service
from tests.support.waiting import wait_until

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def saved(state: Path, ring: FlightRing, order: RecordOrder) -> list[Flight]:
    """The requests that a worker saves for an order."""
    records = FlightRecords(state)
    made = records.create(order)
    files = FlightFiles(
        str(state / "records"), 3, ring, ("token",), lambda: {"shop": "round-robin"}
    )
    files.refresh()
    await wait_until(lambda: records.find(made.id).workers == 1)
    (path,) = (state / "records" / made.id).glob("worker-*")
    assert path.stat().st_mode & 0o777 == 0o600
    return list(records.read(made.id))


@on_uvloop
async def test_requests_of_both_paths_are_saved_with_their_routing(tmp_path: Path) -> None:
    ring = FlightRing()
    async with scene({"flights": ring}) as s:
        good, bad = await s.origin(answers(OK)), await s.origin(close_after_request)
        s.install(
            service(good, good),
            service(bad, name="bad"),
            routes=(route(), route("bad", path="/bad")),
        )
        client = await s.client()
        for path in ("/first", "/second?token=secret", "/bad", "/fourth"):
            await client.send(get(path, f"traceparent: {TRACE}"))
            await client.response()
        flights = await saved(tmp_path, ring, RecordOrder(time.time()))
        by_path = {flight.request.target: flight for flight in flights}
        assert list(by_path) == ["/first", "/second?token=REDACTED", "/bad", "/fourth"]
        fourth = by_path["/fourth"]
        assert (fourth.request.status, fourth.request.service, fourth.route) == (
            200, "shop", "r/*",
        )  # fmt: skip
        assert (fourth.choice, fourth.algorithm, fourth.candidates) == (
            "balanced", "round-robin", 2,
        )  # fmt: skip
        assert fourth.request.trace_id == "0af7651916cd43dd8448eb211c80319c"
        assert fourth.request.total > 0.0
        failed = by_path["/bad"]
        assert (failed.request.status, failed.request.failure) == (502, "closed")
        assert (failed.request.endpoint, failed.choice) == ("bad-0", "only")
        only = await saved(tmp_path, ring, RecordOrder(time.time(), service="bad"))
        assert [flight.request.target for flight in only] == ["/bad"]


@on_uvloop
async def test_a_request_that_leaves_the_fast_path_has_its_routing(tmp_path: Path) -> None:
    body = b"x" * 2_000_000
    large = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    ring = FlightRing()
    async with scene({"flights": ring}) as s:
        await s.serve(answers(large), answers(large))
        client = await s.client()
        for _ in range(4):
            await client.send(get("/parts"))
            await client.response()
        flights = await saved(tmp_path, ring, RecordOrder(time.time()))
        assert [(flight.choice, flight.candidates) for flight in flights] == [("balanced", 2)] * 4


@on_uvloop
async def test_quick_requests_are_left_out_when_there_are_many(tmp_path: Path) -> None:
    ring = FlightRing()
    async with scene({"flights": ring}) as s:
        await s.serve(answers(OK))
        client = await s.client()
        s.plane.set_record_after(60.0)
        for _ in range(3):
            await client.send(get("/quick"))
            await client.response()
        assert not ring.flights()
        s.plane.set_record_after(0.0)
        await client.send(get("/slow"))
        await client.response()
        assert len(ring.flights()) == 1


@on_uvloop
async def test_old_orders_and_nonsense_are_not_followed(tmp_path: Path) -> None:
    ring = FlightRing()
    async with scene({"flights": ring}) as s:
        await s.serve(answers(OK))
        client = await s.client()
        await client.send(get("/"))
        await client.response()
        records = FlightRecords(tmp_path)
        old = records.create(RecordOrder(time.time() - 3600.0))
        empty = records.create(RecordOrder(time.time(), service="other"))
        nonsense = tmp_path / "records" / "nonsense"
        nonsense.mkdir()
        (nonsense / "order.json").write_bytes(b"{")
        files = FlightFiles(str(tmp_path / "records"), 1, ring, True, dict)
        files.refresh()
        await files.save(empty.id, RecordOrder(time.time(), service="other"))
        await files.save("not-there", RecordOrder(time.time()))
        assert [record.workers for record in records.list()] == [0, 0]
        assert {record.id for record in records.list()} == {old.id, empty.id}
        missing = FlightFiles(str(tmp_path / "none"), 1, ring, True, dict)
        missing.refresh()
