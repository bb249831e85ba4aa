"""What the engine shows of a container against what it was made with."""

from typing import Any

import pytest

from meshd.model.runtime import ReplicaSpec
from meshd.runtime.docker.container import create_request
from meshd.runtime.docker.drift import (
    applied_limits,
    default_limits,
    describe_drift,
    enforced_limits,
)
from meshd.runtime.docker.events import Sightings
from meshd.spec import labels
from meshd.spec.model import Service

ABILITIES = dict.fromkeys(("CpuCfsQuota", "CPUShares", "CPUSet", "MemoryLimit", "PidsLimit"), True)
SPEC = {"name": "web", "image": "app", "networks": ["back"]}


def made(resources: dict[str, Any] | None = None, **abilities: bool) -> dict[str, Any]:
    """What an engine shows of a container that was just made."""
    service = Service.model_validate({**SPEC, "resources": resources or {}})
    limits = enforced_limits({**ABILITIES, **abilities})
    asked = create_request(ReplicaSpec("shop-web-a", "shop", service, "r1"), "json-file", limits)
    host = {**asked.config["HostConfig"]}
    host.setdefault("PidsLimit", None)
    host["RestartPolicy"] = {"Name": "no", "MaximumRetryCount": 0}
    networks = {*asked.config["NetworkingConfig"]["EndpointsConfig"], *asked.networks}
    return {
        "Name": "/shop-web-a",
        "Config": {"Labels": asked.config["Labels"]},
        "HostConfig": host,
        "NetworkSettings": {"Networks": {name: {} for name in networks}},
    }


def test_a_new_container_has_no_drift() -> None:
    assert describe_drift(made()) == ""
    assert describe_drift(made({"cpus": 0.5, "memory": 64 << 20, "pids": 20})) == ""


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"Memory": 128 << 20}, "the memory limit is 128 MiB instead of none"),
        ({"NanoCpus": 500_000_000}, "the CPU limit is 0.5 CPUs instead of none"),
        ({"CpusetCpus": "0"}, "the set of CPUs is 0 instead of none"),
        ({"PidsLimit": 5}, "the limit of processes is 5 instead of none"),
        ({"RestartPolicy": {"Name": "always"}}, "the restart policy is always"),
    ],
)
def test_a_changed_limit_is_named(change: dict[str, Any], text: str) -> None:
    info = made()
    info["HostConfig"] |= change
    assert describe_drift(info) == f"was changed by something other than meshd: {text}"


def test_limits_that_the_engine_sets_itself_are_not_drift() -> None:
    podman = {"PidsLimit": 2048, "CpuQuota": 50000, "CpuPeriod": 100000}
    info = made({"cpus": 0.5, "memory": 100 << 20})
    info["HostConfig"] |= podman
    first = default_limits(info)
    assert describe_drift(info, first) == ""
    info["HostConfig"] |= {"PidsLimit": 100}
    assert "the limit of processes is 100 instead of none" in describe_drift(info, first)
    # A requested limit still counts, unless the engine rounded it when it created the container.
    info["HostConfig"] |= {**podman, "Memory": 96 << 20}
    assert "the memory limit is 96 MiB instead of 100 MiB" in describe_drift(info, first)
    assert describe_drift(info, applied_limits(info)) == ""


def test_sightings_remember_what_a_container_had_at_first() -> None:
    sightings = Sightings()
    info = {**made(), "Id": "c1", "Created": "2026-01-01T00:00:00Z", "Image": "sha256:1"}
    info["State"] = {
        "Status": "running", "Running": True, "ExitCode": 0,
        "StartedAt": "2026-01-01T00:00:00Z", "FinishedAt": "0001-01-01T00:00:00Z",
    }  # fmt: skip
    info["HostConfig"]["PidsLimit"] = 2048
    assert sightings.see(info, "n", 1.0).drift == ""
    info["HostConfig"]["PidsLimit"] = 5
    assert "the limit of processes is 5" in sightings.see(info, "n", 2.0).drift
    sightings.keep((), sightings.known())
    assert sightings.see(info, "n", 3.0).drift == ""


def test_no_limit_is_written_in_several_ways() -> None:
    info = made()
    info["HostConfig"] |= {"PidsLimit": -1, "Memory": None, "CpusetCpus": ""}
    assert describe_drift(info) == ""


def test_settings_that_the_engine_does_not_enforce_are_not_drift() -> None:
    info = made({"pids": 20}, PidsLimit=False)
    info["HostConfig"]["PidsLimit"] = None
    assert describe_drift(info) == ""


def test_a_disconnected_or_added_network_is_named() -> None:
    info = made()
    del info["NetworkSettings"]["Networks"]["shop_back"]
    info["NetworkSettings"]["Networks"]["bridge"] = {}
    assert (
        describe_drift(info)
        == "was changed by something other than meshd: it was disconnected from shop_back; "
        "it was connected to bridge"
    )


def test_a_container_with_the_labels_of_another_is_a_duplicate() -> None:
    info = made()
    info["Name"] = "/quirky_hopper"
    assert describe_drift(info) == "carries the labels of shop-web-a"


def test_unknown_settings_are_not_drift() -> None:
    info = made()
    del info["Config"]["Labels"][labels.CREATED_WITH]
    info["HostConfig"]["Memory"] = 1
    assert describe_drift(info) == ""
    info["Config"]["Labels"] = {"mesh.service": "web"}
    assert describe_drift(info) == ""


def test_an_overlay_that_a_migration_adds_is_no_drift() -> None:
    info = made()
    info["NetworkSettings"]["Networks"]["shop_back__swarm"] = {}
    assert describe_drift(info) == ""
