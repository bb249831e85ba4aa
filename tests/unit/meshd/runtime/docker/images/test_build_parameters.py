"""The parameters of a build, and what the engine's own builder does not have."""

import json

import pytest

from meshd.runtime.docker.images.build_parameters import (
    build_parameters,
    buildkit_keys,
    cache_keys,
    choose_platform,
    services_as_contexts,
)
from meshd.spec.model import Build, Ulimit


def test_parameters_of_a_plain_build() -> None:
    build = Build(context="/x", args={"A": "1"})
    assert build_parameters(("shop_web",), build, "Dockerfile", {"l": "1"}, "") == [
        ("t", "shop_web"),
        ("dockerfile", "Dockerfile"),
        ("target", ""),
        ("buildargs", '{"A": "1"}'),
        ("labels", '{"l": "1"}'),
        ("forcerm", "1"),
    ]


def test_everything_that_the_engine_takes() -> None:
    build = Build(
        context="https://example.test/x.git",
        target="stage",
        cache_from=("a", "b"),
        extra_hosts={"h": "10.0.0.1,10.0.0.2"},
        labels={"team": "food"},
        network="host",
        no_cache=True,
        pull=True,
        shm_size=1024,
        tags=("x:1", "web"),
        ulimits={"nofile": Ulimit(soft=1, hard=2)},
    )
    found = build_parameters(("web",), build, "Dockerfile", {"l": "1"}, "linux/arm64")
    assert [value for name, value in found if name == "t"] == ["web", "x:1"]
    assert [value for name, value in found if name == "extrahosts"] == [
        "h:10.0.0.1",
        "h:10.0.0.2",
    ]
    given = dict(found)
    assert json.loads(given["labels"]) == {"team": "food", "l": "1"}
    assert json.loads(given["ulimits"]) == [{"Name": "nofile", "Soft": 1, "Hard": 2}]
    assert json.loads(given["cachefrom"]) == ["a", "b"]
    expected = {
        "remote": "https://example.test/x.git",
        "target": "stage",
        "networkmode": "host",
        "nocache": "1",
        "platform": "linux/arm64",
        "pull": "1",
        "shmsize": "1024",
    }
    assert expected.items() <= given.items()


def test_what_needs_buildkit() -> None:
    assert buildkit_keys(Build(context="/x", platforms=("linux/amd64",))) == []
    build = Build(
        context="/x",
        additional_contexts={"a": "/a", "b": "service:base"},
        secrets={"s": "/s"},
        secret_values={"t": "x"},
        cache_to=("type=inline",),
    )
    assert buildkit_keys(build) == ["additional_contexts", "secrets"]
    assert cache_keys(build) == ["cache_to"]
    assert services_as_contexts(build) == ["service:base"]


@pytest.mark.parametrize(
    ("listed", "of_service", "chosen"),
    [
        ((), "", ""),
        ((), "linux/arm64", "linux/arm64"),
        (("linux/arm64", "linux/amd64"), "", ""),
        (("linux/arm64", "linux/riscv64"), "", "linux/arm64"),
        (("linux/arm64", "linux/amd64"), "linux/arm64", "linux/arm64"),
    ],
)
def test_one_platform_is_built(listed: tuple[str, ...], of_service: str, chosen: str) -> None:
    build = Build(context="/x", platforms=listed)
    assert choose_platform(build, of_service, "linux/amd64") == chosen
