"""Who calls whom: rates, errors and latencies of each caller, and of requests from outside."""

import msgspec
import pytest

from meshd.api.dto import CallEdge, ServiceStatus
from meshd.telemetry.call_edges import KEPT, WINDOW, CallEdges
from proxy.wire.report import Report, ServiceReport
from proxy.wire.snapshot import Generation
from tests.fakes import traffic
from tests.fakes.traffic import histogram

START = 1_000_000


def report(second: int, *services: ServiceReport, worker: int = 1) -> Report:
    start = float(START + second)
    return Report(worker, second, start, start + 1.0, Generation(), services=services)


def status(*names: str) -> list[ServiceStatus]:
    one = traffic.status().services[0]
    return [msgspec.structs.replace(one, name=name, project="shop") for name in names]


def by_caller(edges: object) -> dict[str, CallEdge]:
    assert isinstance(edges, list)
    return {edge.caller: edge for edge in edges}


def test_each_caller_has_its_own_figures() -> None:
    calls = CallEdges()
    slow = histogram(*[0.5] * 4)
    orders = ServiceReport(
        name="shop/orders",
        codes={"GET 2xx": 9, "GET 5xx": 1},
        total=histogram(*[0.5] * 4, *[0.01] * 6),
        calls={"shop/web": 4},
        call_errors={"shop/web": 1},
        call_latency={"shop/web": slow},
    )
    for second in range(WINDOW + 2):
        calls.take(report(second, orders))
        calls.take(report(second, orders, worker=2))
    found = by_caller(calls.list(status("orders", "idle"), START + WINDOW + 2.15))
    assert set(found) == {"", "shop/web"}
    inside, outside = found["shop/web"], found[""]
    assert (inside.service, inside.rps, inside.errors) == ("shop/orders", 8.0, 2.0)
    assert inside.p95 == pytest.approx(0.5, rel=0.04)
    assert (outside.rps, outside.errors) == (12.0, 0.0)
    assert outside.p95 == pytest.approx(0.01, rel=0.04)


def test_a_service_that_is_called_from_inside_only_has_no_edge_from_outside() -> None:
    calls = CallEdges()
    one = ServiceReport(
        name="shop/db",
        codes={"GET 2xx": 3},
        total=histogram(0.1, 0.1, 0.1),
        calls={"shop/web": 3},
        call_latency={"shop/web": histogram(0.1, 0.1, 0.1)},
    )
    for second in range(WINDOW + 2):
        calls.take(report(second, one))
    assert set(by_caller(calls.list(status("db"), START + WINDOW + 2.15))) == {"shop/web"}
    # What happened long ago is not shown, and is forgotten.
    assert calls.list(status("db"), START + 1000.0) == []
    calls.take(report(2000, one))
    assert len(calls._seconds) == 1
    for second in range(2001, 2001 + 2 * KEPT):
        calls.take(report(second, one))
    assert len(calls._seconds) == KEPT + 1
