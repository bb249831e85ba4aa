"""Reports on the further ports of a service are folded into the service."""

from meshd.telemetry.fold import fold_ports
from proxy.wire.report import EndpointReport, Exemplar, Histogram, Report, ServiceReport
from proxy.wire.snapshot import Generation


def report(*services: ServiceReport) -> Report:
    return Report(
        worker=1, sequence=1, start=0.0, end=1.0, generation=Generation(), services=services
    )


def test_ports_of_a_service_are_added_up() -> None:
    main = ServiceReport(
        name="shop/web",
        arrivals=2,
        codes={"GET 2xx": 2},
        parked=1,
        total=Histogram({3: 2}, 0.5),
        calls={"shop/a": 1},
        exemplars=(Exemplar("a", 0.1, 1.0),),
        endpoints=(
            EndpointReport("w1", "r", in_flight=1, started=2, latency=Histogram({3: 2}, 0.5)),
        ),
    )
    further = ServiceReport(
        name="shop/web:9000",
        arrivals=3,
        codes={"GET 2xx": 1, "GET 5xx": 2},
        parked=2,
        total=Histogram({3: 1, 4: 2}, 0.25),
        calls={"shop/a": 2, "shop/b": 1},
        exemplars=(Exemplar("b", 0.2, 1.0),),
        endpoints=(
            EndpointReport("w1", "r", in_flight=2, started=3, ejected=True, limit=4),
            EndpointReport("w2", "r", in_flight=1),
        ),
    )
    other = ServiceReport(name="shop/db", arrivals=1)

    web, db = fold_ports(report(main, other, further)).services

    assert db == other
    assert (web.name, web.arrivals, web.parked) == ("shop/web", 5, 3)
    assert [each.trace_id for each in web.exemplars] == ["a", "b"]
    assert web.codes == {"GET 2xx": 3, "GET 5xx": 2}
    assert web.total == Histogram({3: 3, 4: 2}, 0.75)
    assert web.calls == {"shop/a": 3, "shop/b": 1}
    first, second = web.endpoints
    assert (first.id, first.in_flight, first.started, first.ejected, first.limit) == (
        "w1", 3, 5, True, 4,
    )  # fmt: skip
    assert first.latency == Histogram({3: 2}, 0.5)
    assert (second.id, second.in_flight) == ("w2", 1)


def test_a_further_port_alone_counts_for_its_service() -> None:
    (web,) = fold_ports(report(ServiceReport(name="shop/web:9000", arrivals=1))).services

    assert (web.name, web.arrivals) == ("shop/web", 1)


def test_a_report_without_further_ports_is_passed_on_as_it_is() -> None:
    plain = report(ServiceReport(name="shop/web"))

    assert fold_ports(plain) is plain
