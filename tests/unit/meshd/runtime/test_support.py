"""What a runtime cannot do is named before anything is started, a line a service."""

from typing import Any

import pytest

from meshd.model.runtime import Capabilities
from meshd.runtime.docker.runtime import CAPABILITIES as DOCKER
from meshd.runtime.process.launch import CAPABILITIES as PROCESS
from meshd.runtime.support import unsupported_features
from meshd.spec.model import Project


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
        ({"user": "9", "resources": {"cpus": 2}}, PROCESS,
         ("service db: user 9 is ignored; it runs as the user of meshd; CPU limit 2 is not "
          "enforced",)),
    ],
)  # fmt: skip
def test_features_that_are_ignored(
    fields: dict[str, Any], can: Capabilities, texts: tuple[str, ...]
) -> None:
    assert unsupported_features(project(**fields), can) == texts
