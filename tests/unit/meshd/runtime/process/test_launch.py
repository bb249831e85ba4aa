"""What a replica becomes as a local process, and what of a spec that leaves out."""

import sys

import pytest

from meshd.model.runtime import ReplicaSpec
from meshd.runtime.base import Unsupported
from meshd.runtime.docker.runtime import CAPABILITIES as DOCKER
from meshd.runtime.process.launch import CAPABILITIES as PROCESS
from meshd.runtime.process.launch import build_launch
from meshd.runtime.support import unsupported
from meshd.spec.model import Build, Service

HOST = {"PATH": "/bin", "AWS_SECRET": "x", "HOME": "/root"}


def replica(**fields: object) -> ReplicaSpec:
    of = Service.model_validate({"name": "web", "command": ("python", "-m", "app"), **fields})
    return ReplicaSpec("web-1", "shop", of, "r1", {"MESH_URL_PAY": "u"}, directory="/srv/shop")


@pytest.mark.parametrize(
    ("fields", "argv"),
    [
        ({}, (sys.executable, "-m", "app")),
        ({"command": ("python3", "x")}, (sys.executable, "x")),
        ({"command": ("/usr/bin/python3", "x")}, ("/usr/bin/python3", "x")),
        ({"entrypoint": ("env", "-i"), "command": ("python",)}, ("env", "-i", "python")),
        ({"entrypoint": ("run",), "command": None}, ("run",)),
    ],
)
def test_command(fields: dict[str, object], argv: tuple[str, ...]) -> None:
    assert build_launch(replica(**fields), HOST).argv == argv


@pytest.mark.parametrize(
    ("working_dir", "directory"),
    [("", "/srv/shop/"), ("app", "/srv/shop/app"), ("/opt/app", "/opt/app")],
)
def test_directory(working_dir: str, directory: str) -> None:
    assert build_launch(replica(working_dir=working_dir), HOST).directory == directory


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("", "SIGTERM"),
        ("SIGTERM", "SIGTERM"),
        ("int", "SIGINT"),
        ("10", "SIGUSR1"),
        ("SIGRTMIN+3", "37"),
    ],
)
def test_stop_signal(given: str, name: str) -> None:
    assert build_launch(replica(stop_signal=given), HOST).stop_signal == name


def test_the_environment_has_few_variables_of_the_host() -> None:
    environment = build_launch(replica(environment={"HOME": "/else"}), HOST).environment
    assert environment == {
        "PATH": "/bin",
        "HOME": "/else",
        "PYTHONUNBUFFERED": "1",
        "MESH_URL_PAY": "u",
    }


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"command": None, "image": "nginx"}, "service web: has no command"),
        ({"command": ()}, "service web: has no command"),
        ({"stop_signal": "SIGWHAT"}, "stop_signal SIGWHAT"),
        ({"stop_signal": "99"}, "stop_signal 99"),
    ],
)
def test_refused(fields: dict[str, object], reason: str) -> None:
    with pytest.raises(Unsupported, match=reason):
        build_launch(replica(**fields), HOST)


def test_clones_are_refused() -> None:
    with pytest.raises(Unsupported, match="cannot be cloned"):
        build_launch(ReplicaSpec("a", "p", replica().service, "r", clone_of="b"), HOST)


def test_unsupported_features_of_processes_are_named() -> None:
    of = Service.model_validate(
        {
            "name": "web",
            "image": "nginx:1",
            "build": Build(context="/src"),
            "user": "nobody",
            "read_only": True,
            "cap_add": ("NET_ADMIN",),
            "networks": ("front", "back"),
            "volumes": ({"type": "volume", "target": "/data", "source": "d"},),
            "resources": {"cpus": 0.5, "memory": 64 << 20, "pids": 5},
            "healthcheck": {"test": ("CMD", "true")},
        }
    )
    found = unsupported(of, PROCESS)
    assert [lack.refuse for lack in found] == [True] + [False] * 12
    said = "\n".join(map(str, found))
    for word in (
        "no command", "nginx:1", "/src", "user nobody", "read_only", "cap_add", "front, back",
        "/data", "CPU limit 0.5", "memory limit 64 MiB", "pids limit 5", "healthcheck",
        "token",
    ):  # fmt: skip
        assert word in said
    assert all(line.startswith("service web: ") for line in said.splitlines())


def test_docker_supports_everything_but_a_missing_image() -> None:
    assert unsupported(Service(name="web", image="nginx", networks=("a",)), DOCKER) == []
    (lack,) = unsupported(Service(name="web", command=("x",)), DOCKER)
    assert lack.refuse
