"""The engine's requests for the Compose keys of a service: recorded, without an engine."""

import ast
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from meshd.model.runtime import ReplicaSpec
from meshd.runtime.base import StartFailed
from meshd.runtime.docker.container import CreateRequest, create_request
from meshd.spec.compose import load
from meshd.spec.model import Service

PEERS = {"db": "d" * 64}


def service_of(folder: Path, body: str, *, rest: str = "") -> Service:
    """Return the service `web` of a file with these keys; `rest` is the rest of the file."""
    text = f"name: shop\nservices:\n  web:\n    image: i\n{_indent(body, 4)}\n  db: {{image: d}}\n"
    (folder / "compose.yml").write_text(text + dedent(rest))
    return load([folder / "compose.yml"], environment={}).project.service("web")


def _indent(text: str, width: int) -> str:
    return "\n".join(" " * width + line for line in dedent(text).strip("\n").splitlines())


def request(
    folder: Path,
    body: str,
    *,
    rest: str = "",
    job: bool = False,
    hosts: dict[str, str] | None = None,
) -> CreateRequest:
    """Return the request for the service `web` of a file with these keys."""
    service = service_of(folder, body, rest=rest)
    replica = ReplicaSpec("shop-web-1", "shop", service, "r", job=job, hosts=hosts or {})
    return create_request(replica, "json-file", peers=PEERS)


def only(config: dict[str, Any], expected: dict[str, Any]) -> dict[str, Any]:
    return {key: config.get(key) for key in expected}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("privileged: true", {"Privileged": True}),
        ("ipc: shareable", {"IpcMode": "shareable"}),
        ("{ipc: 'service:db', pid: 'container:x'}",
         {"IpcMode": f"container:{'d' * 64}", "PidMode": "container:x"}),
        ("volumes_from: [db, 'container:x:ro']", {"VolumesFrom": ["d" * 64, "x:ro"]}),
        ("volumes_from: ['db:ro']", {"VolumesFrom": ["d" * 64 + ":ro"]}),
        ("annotations: {a: b}", {"Annotations": {"a": "b"}}),
        ("{cpu_count: 2, cpu_percent: 50}", {"CpuCount": 2, "CpuPercent": 50}),
        ("pids_limit: -1", {"PidsLimit": -1}),
        ("""
         blkio_config:
           weight: 300
           weight_device: [{path: /dev/sda, weight: 400}]
           device_read_bps: [{path: /dev/sda, rate: 12mb}]
           device_write_iops: [{path: /dev/sda, rate: 30}]
         """,
         {"BlkioWeight": 300, "BlkioWeightDevice": [{"Path": "/dev/sda", "Weight": 400}],
          "BlkioDeviceReadBps": [{"Path": "/dev/sda", "Rate": 12 * 1024**2}],
          "BlkioDeviceWriteIOps": [{"Path": "/dev/sda", "Rate": 30}]}),
        ("deploy: {resources: {reservations: {devices: [{capabilities: [gpu], count: 1}]}}}",
         {"DeviceRequests": [{"Driver": "", "Count": 1, "DeviceIDs": [],
                              "Capabilities": [["gpu"]], "Options": {}}]}),
        ("volumes: ['./a:/a:ro,Z', {type: bind, source: /b, target: /b, bind: {selinux: z}}]",
         {"Binds": ["DIR/a:/a:ro,Z", "/b:/b:rw,z"], "Mounts": []}),
        ("volumes: [{type: tmpfs, target: /t, tmpfs: {size: 1m, mode: '1777'}}]",
         {"Mounts": [{"Type": "tmpfs", "Target": "/t", "ReadOnly": False,
                      "TmpfsOptions": {"SizeBytes": 1024**2, "Mode": 0o1777}}]}),
        ("volumes: [{type: volume, target: /v, volume: {labels: {a: b}}}]",
         {"Mounts": [{"Type": "volume", "Target": "/v", "ReadOnly": False,
                      "VolumeOptions": {"Labels": {"a": "b"}}}]}),
        ("volumes: [{type: volume, source: v, target: /v, volume: {subpath: a/b}}]",
         {"Mounts": [{"Type": "volume", "Source": "shop_v", "Target": "/v", "ReadOnly": False,
                      "VolumeOptions": {"Subpath": "a/b"}}]}),
        ("volumes: [{type: image, source: x, target: /v, image: {subpath: a}}]",
         {"Mounts": [{"Type": "image", "Source": "x", "Target": "/v", "ReadOnly": True,
                      "ImageOptions": {"Subpath": "a"}}]}),
        ("volumes: [{type: bind, source: /b, target: /b, bind: {recursive: disabled}}]",
         {"Mounts": [{"Type": "bind", "Source": "/b", "Target": "/b", "ReadOnly": False,
                      "BindOptions": {"NonRecursive": True}}], "Binds": []}),
    ],
)  # fmt: skip
def test_keys_in_the_host_configuration(
    tmp_path: Path, body: str, expected: dict[str, Any]
) -> None:
    if body.startswith("{"):
        body = body.strip("{}").replace(", ", "\n").replace("'", "")
    found = request(tmp_path, body, rest="volumes: {v: }\n").config["HostConfig"]
    text = str(only(found, expected)).replace(str(tmp_path), "DIR")
    assert ast.literal_eval(text) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("tty: true\nstdin_open: true", {"Tty": True, "OpenStdin": True}),
        ("mac_address: 02:42:ac:11:65:43", {"MacAddress": "02:42:ac:11:65:43"}),
        ("hostname: box\ndomainname: lan", {"Hostname": "box", "Domainname": "lan"}),
        ("image: i", {"Tty": None, "MacAddress": None, "Hostname": None, "Healthcheck": None}),
        ("healthcheck: {disable: true}", {"Healthcheck": {"Test": ["NONE"]}}),
        ("healthcheck: {interval: 5s}", {"Healthcheck": {"Interval": 5 * 10**9}}),
        ("healthcheck: {disable: false}", {"Healthcheck": {}}),
        ("healthcheck: {test: [CMD, a], retries: 7, start_period: 1m, start_interval: 2s}",
         {"Healthcheck": {"Test": ["CMD", "a"], "Retries": 7, "StartPeriod": 60 * 10**9,
                          "StartInterval": 2 * 10**9}}),
    ],
)  # fmt: skip
def test_keys_of_the_container(tmp_path: Path, body: str, expected: dict[str, Any]) -> None:
    body = "" if body == "image: i" else body
    assert only(request(tmp_path, body).config, expected) == expected


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("host", "host"),
        ("none", "none"),
        ("bridge", "bridge"),
        ("service:db", f"container:{'d' * 64}"),
        ("container:x", "container:x"),
    ],
)
def test_network_mode(tmp_path: Path, mode: str, expected: str) -> None:
    body = f"network_mode: {mode}\nports: ['80:80']\nlinks: [db, 'db:data']"
    found = request(tmp_path, body)
    assert found.config["HostConfig"]["NetworkMode"] == expected
    assert "NetworkingConfig" not in found.config
    assert found.networks == {}
    assert ("PortBindings" in found.config["HostConfig"]) == (not expected.startswith("container:"))
    links = [f"{'d' * 64}:db", f"{'d' * 64}:data"] if mode == "bridge" else None
    assert found.config["HostConfig"].get("Links") == links


def test_a_peer_that_does_not_run_fails_the_start(tmp_path: Path) -> None:
    service = service_of(tmp_path, "network_mode: service:db")
    assert service.depends_on == ("db",)
    with pytest.raises(StartFailed, match="service db, which it shares a namespace with"):
        create_request(ReplicaSpec("n", "shop", service, "r"), "")


NETWORKS = """
networks:
  back: {driver: macvlan}
  meet.Jitsi:
  front: {name: host, external: true}
"""


def test_networks_with_addresses_and_options(tmp_path: Path) -> None:
    body = """
    hostname: box
    links: ['db:data', db]
    external_links: [other, 'x:y']
    networks:
      meet.Jitsi: {aliases: [meet]}
      front:
      back:
        ipv4_address: 10.0.0.2
        ipv6_address: fd00::2
        link_local_ips: [169.254.1.1]
        mac_address: 02:42:ac:11:65:43
        driver_opts: {a: 1}
        priority: 7
        gw_priority: 3
        interface_name: eth7
    """
    found = request(tmp_path, body, rest=NETWORKS)
    names = {"Links": ["db:data", "other:other", "x:y"]}
    assert found.config["HostConfig"]["NetworkMode"] == "shop_back"
    assert found.config["NetworkingConfig"]["EndpointsConfig"] == {
        "shop_back": {
            "Aliases": ["web", "box"],
            **names,
            "IPAMConfig": {
                "IPv4Address": "10.0.0.2",
                "IPv6Address": "fd00::2",
                "LinkLocalIPs": ["169.254.1.1"],
            },
            "MacAddress": "02:42:ac:11:65:43",
            "GwPriority": 3,
            "DriverOpts": {"a": "1", "com.docker.network.endpoint.ifname": "eth7"},
        }
    }
    assert found.networks == {
        "shop_meet.Jitsi": {"Aliases": ["web", "meet", "box"], **names},
        "host": {},
    }
    assert found.config["MacAddress"] == "02:42:ac:11:65:43"
    assert found.api == (1, 49)
    job = request(tmp_path, body, rest=NETWORKS, job=True)
    assert job.config["NetworkingConfig"]["EndpointsConfig"] == {"shop_back": names}
    assert "MacAddress" not in job.config


def test_a_link_to_a_mesh_managed_service_is_a_name_of_the_mesh(tmp_path: Path) -> None:
    found = request(tmp_path, "links: ['db:data']", hosts={"db": "10.9.0.1"})
    assert found.config["HostConfig"]["ExtraHosts"] == ["db:10.9.0.1", "data:10.9.0.1"]


def test_the_name_and_the_platform_of_a_container(tmp_path: Path) -> None:
    body = "container_name: box\nplatform: linux/arm64"
    found = request(tmp_path, body)
    assert (found.name, found.platform, found.api) == ("box", "linux/arm64", (0, 0))
    assert found.config["Labels"]["mesh.container-name"] == "box"
    meshed = request(tmp_path, f"{body}\nx-mesh: {{}}")
    assert meshed.name == ""
    assert request(tmp_path, body, job=True).name == ""


def test_newer_features_need_a_newer_version_of_the_api(tmp_path: Path) -> None:
    assert request(tmp_path, "healthcheck: {start_interval: 1s}").api == (1, 44)
    body = "volumes: [{type: volume, source: v, target: /v, volume: {subpath: a}}]"
    assert request(tmp_path, body, rest="volumes: {v: }\n").api == (1, 45)
