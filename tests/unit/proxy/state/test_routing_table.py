"""How the names of services are found in the routing of one generation."""

from proxy.state.routing_table import Routing
from proxy.state.service_state import ServiceState
from proxy.wire.snapshot import Generation, Service, Snapshot


def test_a_name_with_capitals_is_found_in_lower_case() -> None:
    names = ("shop/Api", "shop/web", "shop/WEB")
    services = {name: ServiceState(Service(name=name, fingerprint="")) for name in names}
    routing = Routing(Snapshot(Generation()), services, {})
    for project, name, found in (
        ("shop", "api", "shop/Api"),
        ("shop", "Api", "shop/Api"),
        ("shop", "web", "shop/web"),
        ("", "shop/api", "shop/Api"),
    ):
        service = routing.find_service(project, name)
        assert service is not None
        assert service.name == found
    assert routing.find_service("shop", "other") is None
