"""Which replica of its node a proxy passes a connection of another node on to."""

from proxy.peer.routes import PeerRoutes
from proxy.wire.snapshot import Endpoint, Generation, Service, Snapshot


def test_a_port_at_several_addresses_leads_nowhere() -> None:
    """Containers in no Swarm may have the same port; a task has one of its node for itself."""
    found = [
        Endpoint(id="a", host="10.0.0.1", port=40000, node="m1"),
        Endpoint(id="b", host="172.18.0.2", port=8080, node="m1"),
        Endpoint(id="c", host="172.18.0.3", port=8080, node="m1"),
        Endpoint(id="d", host="172.18.0.4", port=9000, node="m1"),
        Endpoint(id="e", host="10.0.0.2", port=9001, node="w1"),
    ]
    routes = PeerRoutes()
    routes.own_node = "m1"
    routes.install(
        Snapshot(Generation(), services=(Service("shop/web", "f", endpoints=tuple(found)),))
    )
    ports = (40000, 8080, 9000, 9001)
    assert [routes.find_own(port) for port in ports] == ["10.0.0.1", "", "172.18.0.4", ""]
