"""What a replica gets from the mesh: variables and host names."""

import pytest

from meshd.model.operation import StartReplica
from meshd.model.runtime import MeshAddress
from meshd.reconcile.execute.replica_spec import replica_spec
from meshd.spec.model import Project, Service

GATEWAY = MeshAddress("web", "10.1.0.1", 80, "10.1.0.0/24")
START = StartReplica(name="r1", project="shop", service="web", revision="rev", cause="test")


def project(web: Service) -> Project:
    return Project(name="shop", services=(web, Service(name="api"), Service(name="db", plain=True)))


@pytest.mark.parametrize(
    ("given", "port"), [({}, "8080"), ({"PORT": "3000"}, "3000"), ({"PORT": "x"}, "x")]
)
def test_the_variable_port_of_the_file_is_kept(given: dict[str, str], port: str) -> None:
    web = Service(name="web", environment=given)
    assert replica_spec(START, project(web), web, GATEWAY, "").environment["PORT"] == port


def test_the_mesh_names_only_services_that_it_manages() -> None:
    web = Service(name="web")
    spec = replica_spec(START, project(web), web, GATEWAY, "")
    assert spec.hosts == {"web": "10.1.0.1", "api": "10.1.0.1"}
    assert {name for name in spec.environment if name.startswith("MESH_URL")} == {
        "MESH_URL_WEB",
        "MESH_URL_API",
    }


def test_a_plain_service_gets_nothing_from_the_mesh() -> None:
    web = Service(name="web", plain=True)
    assert replica_spec(START, project(web), web, GATEWAY, "token").environment == {}
