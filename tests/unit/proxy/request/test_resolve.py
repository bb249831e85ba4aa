"""Who may call a service at a mesh listener, by source address."""

import pytest

from proxy.request.resolve import find_fast_path_call, is_allowed
from proxy.state.routing_table import Routing
from proxy.state.service_state import ServiceState
from proxy.wire.snapshot import Generation, Listener, Route, Service, Snapshot, Target

OPEN, LISTED, ROUTED = "demo/menu", "demo/payments", "demo/web"
CALLERS = {"172.18.0.9": "demo/orders"}


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("172.18.0.9", {OPEN, LISTED, ROUTED}),  # a replica of orders
        ("172.18.0.8", {OPEN, ROUTED}),  # another container of the network
        ("172.18.0.1", {OPEN, ROUTED}),  # the host
        ("127.0.0.1", {OPEN, ROUTED}),  # the host, masqueraded
        ("172.17.0.5", {ROUTED}),  # another network
        ("203.0.113.1", {ROUTED}),  # another host
        ("2001:db8::1", {ROUTED}),
    ],
)
@pytest.mark.parametrize("kind", ["mesh", "virtual"])
def test_who_may_call(kind: str, address: str, allowed: set[str]) -> None:
    services = (
        Service(OPEN, "1"),
        Service(LISTED, "1", allow=("demo/orders",)),
        Service(ROUTED, "1"),
    )
    states = {each.name: ServiceState(each, None, 1) for each in services}
    for each in services:
        states[each.name].update(each, 0.0, 0.0, spans=False)
    snapshot = Snapshot(
        Generation(1, 1),
        services=services,
        routes=(Route("1", (Target(ROUTED),)),),
        callers=CALLERS,
    )
    routing = Routing(snapshot, states, {})
    listener = Listener("172.18.0.1:80", "mesh", "demo/", ("172.18.0.0/16",))
    virtual = Listener("172.18.0.1:15780", "virtual", "demo/", ("172.18.0.0/16",))
    used = listener if kind == "mesh" else virtual
    for _ in range(2):  # the second answer may come from a cache
        _, caller = routing.identify_caller(used, address)
        found = {
            name
            for name, state in states.items()
            if is_allowed(routing, state, used, caller, address)
        }
        assert found == allowed
    if kind == "mesh":
        fast = find_fast_path_call(routing, listener, address, b"menu")
        assert (fast is not None) == (OPEN in allowed)


def test_without_a_known_network_everyone_is_inside() -> None:
    service = Service(OPEN, "1")
    state = ServiceState(service, None, 1)
    routing = Routing(Snapshot(Generation(1, 1), services=(service,)), {OPEN: state}, {})
    assert is_allowed(routing, state, Listener("172.18.0.1:80", "mesh"), "", "203.0.113.1")
    assert is_allowed(
        routing, state, Listener("0.0.0.0:80", "published", service=OPEN), "", "203.0.113.1"
    )
