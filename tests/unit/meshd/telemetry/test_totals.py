"""Counts since the start: bounded labels, objectives, exemplars."""

from math import inf

import pytest

from meshd.spec.model.scale import Objective
from meshd.telemetry.totals import MAX_VALUES, ServiceTotals, count_misses
from proxy.wire.report import Exemplar, ServiceReport
from tests.fakes.traffic import histogram

WEB = "shop/web"


def overflows(totals: ServiceTotals) -> dict[str, int]:
    return {metric: count for metric, count in totals.overflows().items() if count}


def test_callers_beyond_the_cap_are_exposed_as_one_and_said_so() -> None:
    totals = ServiceTotals()
    for number in range(MAX_VALUES + 20):
        totals.add(ServiceReport(WEB, calls={f"shop/c{number}": 2}))
    found = totals.exposed_calls(WEB)
    assert len(found) == MAX_VALUES + 1
    assert found["other"] == 40
    assert overflows(totals) == {"meshd_calls_total": 40}
    # The callers that have a label keep it, and a scrape counts nothing twice.
    assert totals.exposed_calls(WEB) == found
    assert overflows(totals) == {"meshd_calls_total": 40}
    assert len(totals.service(WEB).calls) == MAX_VALUES + 20, "access is decided by all callers"


def test_methods_of_grpc_beyond_the_cap_take_no_memory() -> None:
    totals = ServiceTotals()
    for number in range(3 * MAX_VALUES):
        totals.add(ServiceReport(WEB, grpc={f"/a.B/M{number} OK": 1, f"/a.B/M{number} ABORTED": 1}))
    found = totals.service(WEB).grpc
    assert len(found) == 2 * (MAX_VALUES + 1)
    assert found["OTHER OK"] == 2 * MAX_VALUES
    assert overflows(totals) == {"meshd_grpc_requests_total": 4 * MAX_VALUES}


def test_reasons_beyond_the_cap_count_as_other() -> None:
    totals = ServiceTotals()
    totals.add(ServiceReport(WEB, failures={f"r{n}": 1 for n in range(MAX_VALUES + 5)}))
    assert totals.service(WEB).failures["other"] == 5


def test_an_overflow_stays_counted_when_its_service_goes() -> None:
    totals = ServiceTotals()
    totals.add(ServiceReport(WEB, failures={f"r{n}": 1 for n in range(MAX_VALUES + 5)}))
    totals.set_services([], {})
    assert overflows(totals) == {"meshd_proxy_failures_total": 5}
    assert totals.names() == []


@pytest.mark.parametrize(
    ("total", "failed", "errors", "latency", "misses"),
    [
        ((0.01, 0.01, 0.3), (), 0, 0.2, 1),
        ((0.01, 0.01, 0.3), (0.01,), 1, 0.2, 2),
        ((0.01, 0.3), (0.3,), 1, 0.2, 1),
        ((0.01, 0.01), (0.01,), 0, 0.2, 0),
        ((0.01, 9.0), (0.01,), 1, inf, 1),
        ((), (), 0, 0.2, 0),
    ],
    ids=["late", "late and failed", "both at once", "fault of the client", "no latency", "idle"],
)
def test_misses_are_late_or_failed_requests(
    total: tuple[float, ...],
    failed: tuple[float, ...],
    errors: int,
    latency: float,
    misses: int,
) -> None:
    assert count_misses(histogram(*total), histogram(*failed), errors, latency) == misses


def test_a_changed_objective_keeps_what_was_counted() -> None:
    totals = ServiceTotals()
    totals.set_services([WEB], {WEB: Objective(latency=0.2, share=95)})
    slow = ServiceReport(WEB, codes={"GET 2xx": 2}, total=histogram(0.01, 0.3))
    totals.add(slow)
    totals.set_services([WEB], {WEB: Objective(latency=1.0, share=99)})
    totals.add(slow)
    found = totals.objective(WEB)
    assert (found.requests, found.misses, found.latency, found.share) == (4, 1, 1.0, 99)
    totals.set_services([WEB], {})
    assert totals.objective(WEB).latency == inf


def test_exemplars_of_different_durations_are_kept() -> None:
    totals = ServiceTotals()
    short, long = Exemplar("a", 0.003, 1.0), Exemplar("b", 0.7, 1.0)
    totals.add(ServiceReport(WEB, exemplars=(short, long)))
    newer = Exemplar("c", 0.003, 2.0)
    totals.add(ServiceReport(WEB, exemplars=(newer,)))
    assert list(totals.exemplars(WEB)) == [newer, long]
    totals.set_services([], {})
    assert not totals.exemplars(WEB)
