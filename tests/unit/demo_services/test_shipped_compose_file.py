"""The docker-compose.yml at the top: meshd understands its labels and command, its paths exist."""

from typing import Any

import pytest
from ruamel.yaml import YAML

from meshd.cli.commands.up import command
from meshd.spec.labels import adopt
from tests.support.paths import ROOT

TOP = ROOT
FILE: dict[str, Any] = YAML(typ="safe").load(TOP / "docker-compose.yml")
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
ADOPTED = {name: service["labels"] for name, service in SERVICES.items() if "labels" in service}


@pytest.mark.parametrize("name", ADOPTED)
def test_meshd_adopts_each_service_of_the_application(name: str) -> None:
    labels = {**ADOPTED[name], "com.docker.compose.service": name}
    _, service = adopt(name, labels)
    assert (service.name, service.port) == (name, 8080)
    assert service.mesh.scale is not None
    assert service.mesh.scale.max > service.mesh.scale.min
    assert service.mesh.scale.objective or service.mesh.scale.concurrency
    routes = [str(route) for route in service.mesh.routes]
    caller = {"payments": "orders", "couriers": "tracking"}.get(name)
    assert routes == ([] if caller else [f"/{name}"])
    assert service.mesh.allow == ((caller,) if caller else None)
    if name == "couriers":
        assert (service.mesh.protocol, service.mesh.health.type) == ("h2c", "grpc")
    else:
        assert service.mesh.health.path == "/healthz"


def test_every_called_service_resolves_to_the_mesh() -> None:
    for name, service in SERVICES.items():
        if name not in ADOPTED:
            continue
        called = [v for k, v in service["environment"].items() if k.startswith("MESH_URL_")]
        hosts = {line.partition(":")[0] for line in service["extra_hosts"]}
        assert {url.removeprefix("http://") for url in called} == hosts
        assert hosts <= ADOPTED.keys()


def test_meshd_accepts_the_command() -> None:
    verb, *arguments = SERVICES["meshd"]["command"]
    assert verb == command.name
    context = command.make_context("up", [a for a in arguments if "$" not in a])
    assert (context.params["adopt"], context.params["runtime"]) == (True, "docker")


def test_mounted_and_built_paths_exist() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            if source.startswith("./"):
                assert (TOP / source).is_dir(), source
            elif not source.startswith(("/", "$")):
                assert source in FILE["volumes"]
        if "build" in service:
            context = TOP / service["build"]["context"]
            assert (context / service["build"].get("dockerfile", "Dockerfile")).is_file()
