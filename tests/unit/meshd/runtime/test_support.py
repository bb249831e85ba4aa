"""What a runtime cannot do is named before anything is started, a line a service."""

from dataclasses import replace
from typing import Any

import pytest

from meshd.model.runtime import Capabilities
from meshd.runtime.docker.runtime import CAPABILITIES as DOCKER
from meshd.runtime.process.launch import CAPABILITIES as PROCESS
from meshd.runtime.support import unsupported, unsupported_features
from meshd.spec.model import Build, Healthcheck, Mount, Project, Service


def project(**fields: Any) -> Project:
    services = [{"name": "web", "command": ["run"]}, {"name": "db", "command": ["run"], **fields}]
    return Project.model_validate({"name": "shop", "services": services})


READABLE = (
    "callers are identified by a token in each replica's environment, which every process of the "
    "same user can read in /proc; run services that do not trust each other on Docker"
)


@pytest.mark.parametrize(
    ("fields", "can", "texts"),
    [
        ({}, PROCESS, ()),
        ({"mesh": {"allow": ["web"]}}, PROCESS, (f"service db: {READABLE}",)),
        ({"mesh": {"allow": []}}, PROCESS, (f"service db: {READABLE}",)),
        ({"mesh": {"allow": ["web"]}}, DOCKER, ()),
        ({"networks": ["back"]}, PROCESS,
         (f"service db: networks back do not isolate local processes; {READABLE}",)),
        ({"mesh": {"tcp": [5432]}}, PROCESS,
         ("service db: the mesh passes no connections on to TCP port 5432; only containers have "
          "this",)),
        ({"mesh": {"tcp": [5432], "scale": {"max": 3, "objective": {"latency": 0.1}}}}, DOCKER,
         ("service db: scale.objective needs requests, and the service has TCP ports only; use "
          "scale.concurrency, the connections per replica",)),
        ({"mesh": {"tcp": [5432], "scale": {"max": 3, "concurrency": 9}}}, DOCKER, ()),
        ({"expose": [80], "mesh": {"tcp": [5432], "scale": {"max": 3, "queue": 1}}}, DOCKER, ()),
        ({"user": "9", "resources": {"cpus": 2}}, PROCESS,
         ("service db: user 9 is ignored; it runs as the user of meshd; CPU limit 2 is not "
          "enforced",)),
    ],
)  # fmt: skip
def test_features_that_are_ignored(
    fields: dict[str, Any], can: Capabilities, texts: tuple[str, ...]
) -> None:
    assert unsupported_features(project(**fields), can) == texts


def test_an_engine_may_be_too_old() -> None:
    service = Service(
        name="web",
        image="i",
        healthcheck=Healthcheck(start_interval=1),
        volumes=(Mount(type="volume", source="v", target="/v", subpath="x"),),
    )
    old = replace(DOCKER, engine_api=(1, 41))
    assert [(each.refuse, each.text) for each in unsupported(service, old)] == [
        (True, "the subpath at /v needs Docker Engine 26.0"),
        (False, "healthcheck.start_interval needs Docker Engine 25.0, and is ignored"),
    ]
    assert unsupported(service, replace(DOCKER, engine_api=(1, 47))) == []
    assert unsupported(service, DOCKER) == []


def test_a_build_that_needs_buildkit_is_refused_before_anything_starts() -> None:
    build = Build(context="/x", secrets={"key": "/key"}, ssh={"default": ""})
    found = unsupported(Service(name="web", build=build), DOCKER)
    assert [each.refuse for each in found] == [True, True]
    assert str(found[0]).startswith("service web: build.secrets needs BuildKit, and the plugin")
    able = replace(DOCKER, buildkit=True)
    assert unsupported(Service(name="web", build=build), able) == []
    cached = Service(name="web", build=Build(context="/x", cache_to=("type=inline",)))
    assert [each.refuse for each in unsupported(cached, DOCKER)] == [False]
    assert unsupported(cached, able) == []
    other = Service(name="web", build=Build(context="/x", additional_contexts={"a": "service:b"}))
    assert [each.refuse for each in unsupported(other, able)] == [True]
    assert unsupported(Service(name="web", build=Build(context="/x")), DOCKER) == []
