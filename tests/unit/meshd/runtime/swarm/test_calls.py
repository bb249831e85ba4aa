"""Where replicas call other services."""

from meshd.runtime.swarm.calls import call_through, join_address
from tests.fakes.replicas import replica_spec, service


def test_calls_go_to_another_proxy_with_the_same_token() -> None:
    environment = {
        "MESH_URL_API": "http://10.0.0.1:15781/.mesh/abc/api",
        "OTHER": "http://10.0.0.1:80/",
        "PORT": "80",
    }
    replica = replica_spec("shop", "web-1", service("web"), environment=environment)
    moved = call_through(replica, "10.0.0.1:15781", "[fd00::2]:15781")
    assert moved.environment == {
        **environment,
        "MESH_URL_API": "http://[fd00::2]:15781/.mesh/abc/api",
    }
    assert call_through(replica, "10.0.0.9:15781", "10.0.0.2:15781") == replica
    assert join_address("fd00::2", 1) == "[fd00::2]:1"
