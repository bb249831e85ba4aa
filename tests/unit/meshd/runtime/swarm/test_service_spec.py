"""The Swarm service for a replica, key by key of the Compose file."""

from pathlib import Path
from typing import Any

import pytest

from meshd.model.runtime import ReplicaSpec
from meshd.runtime.swarm.service_spec import (
    NO_NODE,
    STOPPED,
    image_of,
    secret_files,
    secret_name,
    service_spec,
    stopped_spec,
)
from meshd.spec import labels
from meshd.spec.compose import load
from meshd.spec.model import Service

ID = "ab" * 32


def read(tmp_path: Path, text: str, **more: object) -> ReplicaSpec:
    """Read one service from a Compose file."""
    file = tmp_path / "compose.yml"
    file.write_text(f"name: shop\nservices:\n  web:\n    image: web:1\n{text}")
    (service,) = load([file], environment={"TOKEN": "abc"}).project.services
    return ReplicaSpec("shop-web-1", "shop", service, "rev1", **more)  # type: ignore[arg-type]


def spec(tmp_path: Path, text: str, **more: object) -> dict[str, Any]:
    replica = read(tmp_path, text, **more)
    ids = {secret_name(replica, each): "id1" for each in secret_files(replica.service)}
    return service_spec(replica, ids)


def container(tmp_path: Path, text: str) -> dict[str, Any]:
    return dict(spec(tmp_path, text)["TaskTemplate"]["ContainerSpec"])


def test_a_mesh_managed_replica(tmp_path: Path) -> None:
    text = """
    command: [serve, --fast]
    entrypoint: [/bin/app]
    expose: [8000]
    x-mesh: {}
"""
    environment = {"MESH_URL_API": "http://m/api"}
    made = spec(
        tmp_path, text, environment=environment, instance="mesh-a", attempt=2, placed="less busy"
    )
    assert made["Name"] == "shop-web-1"
    assert made["Labels"] == {
        "mesh.managed": "1",
        "mesh.project": "shop",
        "mesh.service": "web",
        "mesh.revision": "rev1",
        "mesh.replica": "shop-web-1",
        "mesh.port": "8000",
        "mesh.instance": "mesh-a",
        "mesh.placed": "less busy",
        "mesh.attempt": "2",
    }
    assert made["Mode"] == {"Replicated": {"Replicas": 1}}
    free_port = {"Protocol": "tcp", "TargetPort": 8000, "PublishMode": "host"}
    assert made["EndpointSpec"] == {"Mode": "dnsrr", "Ports": [free_port]}
    task = made["TaskTemplate"]
    assert task["RestartPolicy"] == {"Condition": "none"}
    assert task["Networks"] == [{"Target": "shop_default", "Aliases": ["web"]}]
    inner = task["ContainerSpec"]
    assert (inner["Command"], inner["Args"]) == (["/bin/app"], ["serve", "--fast"])
    assert inner["Env"] == ["PORT=8000", "MESH_URL_API=http://m/api"]
    assert inner["CapabilityDrop"] == ["NET_RAW"]
    assert not [name for name in inner["Labels"] if name.startswith(labels.PREFIX)]


def test_a_plain_replica_publishes_its_ports_on_its_node(tmp_path: Path) -> None:
    made = spec(tmp_path, "    ports: ['53:5353/udp', '8080']\n    container_name: dns\n")
    assert made["EndpointSpec"]["Ports"] == [
        {"Protocol": "udp", "TargetPort": 5353, "PublishMode": "host", "PublishedPort": 53},
        {"Protocol": "tcp", "TargetPort": 8080, "PublishMode": "host"},
    ]
    assert made["TaskTemplate"]["Networks"][0]["Aliases"] == ["web", "dns"]


def test_a_job_has_no_name_and_no_ports(tmp_path: Path) -> None:
    made = spec(tmp_path, "    expose: [80]\n    x-mesh: {}\n", job=True)
    assert made["Labels"][labels.JOB] == "shop-web-1"
    assert made["EndpointSpec"]["Ports"] == []
    assert made["TaskTemplate"]["Networks"] == [{"Target": "shop_default"}]
    assert made["TaskTemplate"]["ContainerSpec"]["Healthcheck"] == {"Test": ["NONE"]}


def test_resources_and_placement(tmp_path: Path) -> None:
    text = """
    deploy:
      placement: {constraints: [node.labels.disk==ssd]}
      resources:
        limits: {cpus: "0.5", memory: 64M, pids: 50}
        reservations: {cpus: "0.25", memory: 32M}
"""
    task = spec(tmp_path, text, node="w1")["TaskTemplate"]
    assert task["Placement"] == {"Constraints": ["node.labels.disk==ssd", "node.hostname==w1"]}
    assert task["Resources"] == {
        "Limits": {"NanoCPUs": 500_000_000, "MemoryBytes": 64 << 20, "Pids": 50},
        "Reservations": {"NanoCPUs": 250_000_000, "MemoryBytes": 32 << 20},
    }


def test_options_of_the_container(tmp_path: Path) -> None:
    text = """
    hostname: box
    tty: true
    init: true
    read_only: true
    user: "1000"
    group_add: ["44"]
    working_dir: /srv
    stop_signal: SIGINT
    stop_grace_period: 3s
    sysctls: {net.core.somaxconn: 1024}
    ulimits: {nofile: 100}
    cap_add: [NET_ADMIN]
    shm_size: 1M
    dns: [10.0.0.1]
    extra_hosts: ["db:10.0.0.2"]
    healthcheck: {test: [CMD, "true"], interval: 3s}
    logging: {driver: local, options: {max-size: 1m}}
"""
    made = spec(tmp_path, text)["TaskTemplate"]
    inner = made["ContainerSpec"]
    assert (inner["Hostname"], inner["TTY"], inner["Init"]) == ("box", True, True)
    assert (inner["ReadOnly"], inner["User"], inner["Groups"]) == (True, "1000", ["44"])
    assert (inner["Dir"], inner["StopSignal"]) == ("/srv", "SIGINT")
    assert inner["StopGracePeriod"] == 3_000_000_000
    assert inner["Sysctls"] == {"net.core.somaxconn": "1024"}
    assert inner["Ulimits"] == [{"Name": "nofile", "Soft": 100, "Hard": 100}]
    assert inner["CapabilityAdd"] == ["NET_ADMIN"]
    assert inner["DNSConfig"]["Nameservers"] == ["10.0.0.1"]
    assert inner["Hosts"] == ["10.0.0.2 db"]
    assert inner["Healthcheck"] == {"Test": ["CMD", "true"], "Interval": 3_000_000_000}
    shm = {"Type": "tmpfs", "Target": "/dev/shm", "TmpfsOptions": {"SizeBytes": 1 << 20}}
    assert inner["Mounts"] == [shm]
    assert made["LogDriver"] == {"Name": "local", "Options": {"max-size": "1m"}}


def test_secrets_are_those_of_the_swarm(tmp_path: Path) -> None:
    (tmp_path / "app.conf").write_text("x=1")
    text = """
    secrets: [{source: token, target: t, mode: 0400, uid: "5"}]
    configs: [{source: conf, target: /etc/app.conf}]
secrets: {token: {environment: TOKEN}}
configs: {conf: {file: ./app.conf}}
"""
    made = container(tmp_path, text)
    files = {each["File"]["Name"]: each for each in made["Secrets"]}
    assert set(files) == {"/run/secrets/t", "/etc/app.conf"}
    assert files["/run/secrets/t"]["File"] == {
        "Name": "/run/secrets/t", "UID": "5", "GID": "0", "Mode": 0o400,
    }  # fmt: skip
    assert files["/etc/app.conf"]["File"]["Mode"] == 0o444
    assert made["Mounts"] == []
    assert all(each["SecretID"] == "id1" for each in files.values())
    assert len({each["SecretName"] for each in files.values()}) == 2


def test_the_name_of_a_secret_says_nothing_about_its_content(tmp_path: Path) -> None:
    text = "    configs: [conf]\nconfigs: {conf: {content: CONTENT}}\n"
    replica = read(tmp_path, text.replace("CONTENT", "one"))
    other = read(tmp_path, text.replace("CONTENT", "two"))
    names = {secret_name(each, each.service.volumes[0]) for each in (replica, other)}
    assert len(names) == 1
    later = ReplicaSpec("shop-web-2", "shop", other.service, "rev2")
    assert secret_name(later, later.service.volumes[0]) not in names


def test_volumes_are_created_on_the_node(tmp_path: Path) -> None:
    text = """
    volumes: ["data:/data", "/etc/hosts:/h:ro"]
volumes: {data: {driver_opts: {type: tmpfs, device: tmpfs}}}
"""
    volume, bind = container(tmp_path, text)["Mounts"]
    assert (volume["Type"], volume["Source"]) == ("volume", "shop_data")
    assert volume["VolumeOptions"]["DriverConfig"] == {
        "Name": "local", "Options": {"type": "tmpfs", "device": "tmpfs"},
    }  # fmt: skip
    assert volume["VolumeOptions"]["Labels"][labels.PROJECT] == "shop"
    assert (bind["Type"], bind["Source"], bind["ReadOnly"]) == ("bind", "/etc/hosts", True)


@pytest.mark.parametrize(
    ("pins", "expected"),
    [
        ({}, "reg:5000/web:1"),
        ({"image_id": ID}, f"sha256:{ID}"),
        ({"image_id": ID, "image_digest": "sha256:cd"}, "reg:5000/web@sha256:cd"),
    ],
)
def test_all_nodes_run_the_same_image(pins: dict[str, str], expected: str) -> None:
    service = Service.model_validate({"name": "web", "image": "reg:5000/web:1", **pins})
    assert image_of(service) == expected


def test_stopping_leaves_one_task_that_never_starts(tmp_path: Path) -> None:
    running = spec(tmp_path, "    command: [serve]\n")
    stopped = stopped_spec(running)
    assert stopped is not None
    assert stopped["Labels"] == {**running["Labels"], STOPPED: "1"}
    assert stopped["TaskTemplate"]["Placement"] == {"Constraints": [NO_NODE]}
    assert stopped["TaskTemplate"]["ContainerSpec"] == running["TaskTemplate"]["ContainerSpec"]
    assert stopped_spec(stopped) is None
