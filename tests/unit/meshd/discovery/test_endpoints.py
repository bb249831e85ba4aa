"""Which replicas become endpoints, and in which state."""

import msgspec
import pytest

from meshd.discovery.endpoints import (
    endpoints_by_service,
    find_shared_gateways,
    services_by_address,
)
from meshd.model.replica import Replica
from meshd.model.replica_phase import Phase

HANGS = "3 bad probes in a row (no answer within 1 s)"


def replica(phase: Phase, **fields: object) -> Replica:
    values = {"host": "10.0.0.2", "port": 8080, "ready_since": 5.0, **fields}
    return Replica(name="a", project="shop", service="web", revision="r", phase=phase, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seen", "state"),
    [
        (replica(Phase.PENDING, ready_since=0.0), None),
        (replica(Phase.STARTING, ready_since=0.0), None),
        (replica(Phase.PROBING, ready_since=0.0), None),
        (replica(Phase.READY), "ready"),
        (replica(Phase.READY, host=None), None),
        (replica(Phase.READY, unready="GET /ready answered 503"), "draining"),
        (replica(Phase.DRAINING), "draining"),
        (replica(Phase.DRAINING, ready_since=0.0), None),
        (replica(Phase.STOPPING), "draining"),
        (replica(Phase.DRAINING, counted_as_failure=True, cause=HANGS), "failed"),
        (replica(Phase.STOPPING, counted_as_failure=True, cause=HANGS), "failed"),
        (replica(Phase.DRAINING, counted_as_failure=True, cause="HTTP 500"), "draining"),
        (replica(Phase.FAILED), None),
        (replica(Phase.GONE), None),
    ],
)
def test_the_endpoint_of_a_replica_by_its_phase(seen: Replica, state: str | None) -> None:
    found = endpoints_by_service([seen])
    assert [e.state for group in found.values() for e in group] == ([state] if state else [])


def test_endpoints_are_ordered_within_their_service() -> None:
    first, second = (
        Replica(name=name, project="shop", service="web", revision="r", phase=Phase.READY,
                host="10.0.0.2", port=80, ready_since=7.0)
        for name in ("b", "a")
    )  # fmt: skip
    found = endpoints_by_service([first, second])
    assert [e.id for e in found["shop/web"]] == ["a", "b"]
    assert found == endpoints_by_service([second, first])
    assert found["shop/web"][0].ready_since == 7.0


def test_an_adopted_container_is_reached_at_any_of_its_addresses() -> None:
    theirs = replica(Phase.READY, alternatives=("10.1.0.2",))
    (found,) = endpoints_by_service([theirs])["shop/web"]
    assert (found.host, found.alternatives) == ("10.0.0.2", ("10.1.0.2",))


def test_addresses_identify_services() -> None:
    adopted = replica(Phase.READY, managed=False, addresses=("172.17.0.5", "10.1.0.5"))
    ours = replica(Phase.READY, addresses=("10.2.0.5",))
    assert services_by_address([adopted, ours]) == dict.fromkeys(
        ("172.17.0.5", "10.1.0.5", "10.2.0.5"), "shop/web"
    )


def test_shared_gateways_are_those_of_adopted_containers_and_copies() -> None:
    one, two = ("172.17.0.1", "172.17.0.0/16"), ("10.1.0.1", "10.1.0.0/24")
    adopted = replica(Phase.READY, managed=False, gateways=(one,))
    copy = replica(Phase.READY, copied=True, gateways=(one, two))
    ours = replica(Phase.READY, gateways=(("10.2.0.1", "10.2.0.0/24"),))
    assert find_shared_gateways([adopted, copy, ours]) == {one: "shop", two: "shop"}
    other = msgspec.structs.replace(adopted, project="blog")
    assert find_shared_gateways([adopted, copy, other]) == {one: "", two: "shop"}
