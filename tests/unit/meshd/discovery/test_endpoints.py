"""Which replicas are endpoints, and in which state."""

import msgspec
import pytest

from meshd.discovery.endpoints import callers, endpoints, shared_gateways
from meshd.model.replica import Replica
from meshd.model.replica_phase import Phase


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
        (replica(Phase.FAILED), None),
        (replica(Phase.GONE), None),
    ],
)
def test_a_phase_makes_an_endpoint_of_a_state_or_none(seen: Replica, state: str | None) -> None:
    found = endpoints([seen])
    assert [e.state for group in found.values() for e in group] == ([state] if state else [])


def test_endpoints_are_by_service_in_a_fixed_order() -> None:
    first, second = (
        Replica(name=name, project="shop", service="web", revision="r", phase=Phase.READY,
                host="10.0.0.2", port=80, ready_since=7.0)
        for name in ("b", "a")
    )  # fmt: skip
    found = endpoints([first, second])
    assert [e.id for e in found["shop/web"]] == ["a", "b"]
    assert found == endpoints([second, first])
    assert found["shop/web"][0].ready_since == 7.0


def test_replicas_are_known_by_their_addresses() -> None:
    adopted = replica(Phase.READY, managed=False, addresses=("172.17.0.5", "10.1.0.5"))
    ours = replica(Phase.READY, addresses=("10.2.0.5",))
    assert callers([adopted, ours]) == dict.fromkeys(
        ("172.17.0.5", "10.1.0.5", "10.2.0.5"), "shop/web"
    )


def test_gateways_are_shared_where_adopted_containers_or_their_copies_are() -> None:
    one, two = ("172.17.0.1", "172.17.0.0/16"), ("10.1.0.1", "10.1.0.0/24")
    adopted = replica(Phase.READY, managed=False, gateways=(one,))
    copy = replica(Phase.READY, copied=True, gateways=(one, two))
    ours = replica(Phase.READY, gateways=(("10.2.0.1", "10.2.0.0/24"),))
    assert shared_gateways([adopted, copy, ours]) == {one: "shop", two: "shop"}
    other = msgspec.structs.replace(adopted, project="blog")
    assert shared_gateways([adopted, copy, other]) == {one: "", two: "shop"}
