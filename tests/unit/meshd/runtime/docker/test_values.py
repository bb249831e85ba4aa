"""What the engine is asked for and what its answers mean: pure, as tables."""

import copy
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from meshd.model.runtime import ContainerHealth, ReplicaSpec, ReplicaState
from meshd.runtime.base import EventKind
from meshd.runtime.docker.container import clone_request, create_request, image_of, next_number
from meshd.runtime.docker.create import pack_files
from meshd.runtime.docker.engine import api_version
from meshd.runtime.docker.images.build import Ignore, bases, pack
from meshd.runtime.docker.observe import (
    PEER_ADDRESSES,
    add_lost_peer,
    event_kind,
    is_replica,
    observe,
    stop_signal,
)
from meshd.runtime.docker.usage import parse_stats
from meshd.spec.model import (
    Build,
    DeviceRequest,
    EngineOptions,
    Mount,
    PublishedPort,
    Service,
)

COMPOSE = {
    "com.docker.compose.project": "shop",
    "com.docker.compose.service": "web",
    "com.docker.compose.container-number": "1",
    "com.docker.compose.config-hash": "0123456789abcdef",
    "com.docker.compose.oneoff": "False",
    "mesh.port": "9000",
}
INFO: dict[str, Any] = {
    "Id": "f" * 64,
    "Name": "/shop_web_1",
    "Created": "2026-01-02T03:04:05.123456789Z",
    "Image": "sha256:" + "a" * 64,
    "State": {
        "Status": "running", "Running": True, "Paused": False, "OOMKilled": False, "ExitCode": 0,
        "StartedAt": "2026-01-02T03:04:06Z", "FinishedAt": "0001-01-01T00:00:00Z",
    },
    "Config": {
        "Hostname": "f" * 12, "Image": "web:1", "Env": ["PORT=7000"], "Labels": COMPOSE,
        "ExposedPorts": {"53/udp": {}, "8443/tcp": {}, "8081/tcp": {}},
    },
    "HostConfig": {
        "NetworkMode": "shop_front", "PortBindings": {"9000/tcp": [{"HostPort": "80"}]},
        "RestartPolicy": {"Name": "always"}, "Binds": ["shop_data:/data:rw"],
    },
    "NetworkSettings": {"Networks": {
        "shop_front": {"IPAddress": "10.1.0.2", "Aliases": ["web", "f" * 12],
                       "Gateway": "10.1.0.1", "IPPrefixLen": 24},
        "shop_back": {"IPAddress": "10.2.0.2", "Aliases": ["web", "f" * 12]},
    }},
}  # fmt: skip


def info(**changes: Any) -> dict[str, Any]:
    """INFO with `Section__Key=value` set."""
    changed = copy.deepcopy(INFO)
    for path, value in changes.items():
        section, _, key = path.partition("__")
        changed[section][key] = value
    return changed


@pytest.mark.parametrize(
    ("image", "digest", "runs"),
    [
        ("", "", "shop_web"),
        ("", "0123456789abcdef01", "shop_web:meshd-0123456789abcdef"),
        ("here:5000/a/web", "ab", "here:5000/a/web:meshd-ab"),
        ("here:5000/a/web:7", "ab", "here:5000/a/web:meshd-ab"),
        ("web:7", "", "web:7"),
    ],
)
def test_a_built_revision_runs_the_image_of_its_context(image: str, digest: str, runs: str) -> None:
    service = Service(name="web", image=image, build=Build(context="/x", digest=digest))
    assert image_of("shop", service) == runs
    pulled = Service(name="web", image="a/web:7")
    assert image_of("shop", pulled) == "a/web:7"
    pinned = pulled.model_copy(update={"image_id": "0123456789abcdef01"})
    assert image_of("shop", pinned) == "a/web:meshd-0123456789abcdef"


def test_a_host_may_have_several_addresses() -> None:
    service = Service(name="web", image="i", extra_hosts={"h": "10.0.0.1,::1", "k": "10.0.0.2"})
    replica = ReplicaSpec(project="shop", service=service, revision="r", name="n")
    host = create_request(replica, "json-file").config["HostConfig"]
    assert host["ExtraHosts"] == ["h:10.0.0.1", "h:::1", "k:10.0.0.2"]


def test_mounts_and_networks_of_a_create_request() -> None:
    volumes = (
        Mount(type="volume", source="a", target="/a", nocopy=True, volume_name="shop-a"),
        Mount(type="volume", source="b", target="/b"),
        Mount(type="bind", source="/", target="/host", read_only=True, propagation="rslave"),
        Mount(type="bind", source="/d", target="/d"),
        Mount(type="bind", source="/x", target="/x", must_exist=True, propagation="rshared"),
        Mount(type="bind", source="/a:b", target="/c"),
        Mount(type="bind", source="/key", target="/run/secrets/k", read_only=True, version="1"),
        Mount(type="tmpfs", target="/run", options="rw,size=16m,mode=1777"),
        Mount(type="file", target="/run/secrets/s", content="hush", mode=0o440, uid=5, gid=6),
    )
    service = Service(
        name="web", image="i", volumes=volumes, networks=("x", "y"), network_names={"x": "shop-net"}
    )
    replica = ReplicaSpec(project="shop", service=service, revision="r", name="n")
    request = create_request(replica, "json-file")
    host = request.config["HostConfig"]
    assert host["Mounts"] == [
        {"Type": "volume", "Target": "/a", "ReadOnly": False, "Source": "shop-a",
         "VolumeOptions": {"NoCopy": True}},
        {"Type": "volume", "Target": "/b", "ReadOnly": False, "Source": "shop_b"},
        {"Type": "bind", "Target": "/x", "ReadOnly": False, "Source": "/x",
         "BindOptions": {"Propagation": "rshared"}},
        {"Type": "bind", "Target": "/c", "ReadOnly": False, "Source": "/a:b"},
        {"Type": "bind", "Target": "/run/secrets/k", "ReadOnly": True, "Source": "/key"},
    ]  # fmt: skip
    assert host["Binds"] == ["/:/host:ro,rslave", "/d:/d:rw"]
    assert host["Tmpfs"] == {"/run": "rw,size=16m,mode=1777"}
    assert list(request.networks) == ["shop-net", "shop_y"]
    assert request.files == volumes[-1:]
    with tarfile.open(fileobj=io.BytesIO(pack_files(request.files))) as tar:
        (entry,) = tar.getmembers()
        content = tar.extractfile(entry)
        assert content is not None
        assert content.read() == b"hush"
    assert (entry.name, entry.mode, entry.uid, entry.gid) == ("run/secrets/s", 0o440, 5, 6)


def test_the_container_of_a_plain_service_is_that_of_the_file() -> None:
    ports = (
        PublishedPort(target=80, published="8080", host_ip="127.0.0.1"),
        PublishedPort(target=80, published="8081-8085"),
        PublishedPort(target=53, protocol="udp"),
    )
    service = Service(
        name="db",
        image="i",
        plain=True,
        expose=(5432, 80),
        ports=ports,
        networks=("default", "back"),
        aliases={"back": ("store",)},
        cap_drop=("CHOWN",),
    )
    replica = ReplicaSpec(
        project="shop", service=service, revision="r", name="n", hosts={"api": "10.0.0.9"}
    )
    config = create_request(replica, "json-file").config
    host = config["HostConfig"]
    assert config["Env"] == []
    assert list(config["ExposedPorts"]) == ["5432/tcp", "80/tcp", "53/udp"]
    assert host["PortBindings"] == {
        "80/tcp": [
            {"HostIp": "127.0.0.1", "HostPort": "8080"},
            {"HostIp": "", "HostPort": "8081-8085"},
        ],
        "53/udp": [{"HostIp": "", "HostPort": ""}],
    }
    assert host["NetworkMode"] == "shop_default"
    assert host["CapDrop"] == ["CHOWN"]
    assert host["ExtraHosts"] == ["api:10.0.0.9"]
    assert config["NetworkingConfig"]["EndpointsConfig"] == {"shop_default": {"Aliases": ["db"]}}
    assert create_request(replica, "").networks == {"shop_back": {"Aliases": ["db", "store"]}}
    job = create_request(replace(replica, job=True), "").config
    assert "PortBindings" not in job["HostConfig"]
    assert job["ExposedPorts"] == {}


def test_options_of_the_engine_in_a_create_request() -> None:
    options = EngineOptions(
        hostname="box",
        cpuset="0,1",
        cpu_quota=50_000,
        mem_swappiness=0,
        memswap_limit=-1,
        ipc="host",
        cgroup="private",
        storage_opt={"size": "1G"},
        devices=("/dev/a:/dev/b:rw",),
        device_cgroup_rules=("c 1:* r",),
        gpus=(DeviceRequest(count=-1),),
    )
    service = Service(name="web", image="i", options=options)
    replica = ReplicaSpec(project="shop", service=service, revision="r", name="n")
    config = create_request(replica, "json-file").config
    assert config["Hostname"] == "box"
    assert "Domainname" not in config
    expected: dict[str, Any] = {
        "CpusetCpus": "0,1",
        "CpuQuota": 50_000,
        "MemorySwappiness": 0,
        "MemorySwap": -1,
        "IpcMode": "host",
        "CgroupnsMode": "private",
        "StorageOpt": {"size": "1G"},
        "Devices": [
            {"PathOnHost": "/dev/a", "PathInContainer": "/dev/b", "CgroupPermissions": "rw"}
        ],
        "DeviceCgroupRules": ["c 1:* r"],
        "DeviceRequests": [
            {"Driver": "", "Count": -1, "DeviceIDs": [], "Capabilities": [["gpu"]], "Options": {}}
        ],
    }
    assert {key: config["HostConfig"].get(key) for key in expected} == expected
    plain = create_request(
        ReplicaSpec(project="shop", service=Service(name="web"), revision="r", name="n"), ""
    ).config
    assert not expected.keys() & plain["HostConfig"].keys()
    assert "Hostname" not in plain


def test_a_dockerfile_in_the_compose_file_is_packed(tmp_path: Path) -> None:
    (tmp_path / "app").write_text("x")
    build = Build(context=str(tmp_path), dockerfile_inline="FROM base\nCOPY app /\n")
    packed = pack(build)
    with packed.file, tarfile.open(fileobj=packed.file) as tar:
        assert sorted(tar.getnames()) == sorted(["app", packed.dockerfile])
        content = tar.extractfile(packed.dockerfile)
        assert content is not None
        assert content.read() == b"FROM base\nCOPY app /\n"
    other = pack(build.model_copy(update={"dockerfile_inline": "FROM other\n"}))
    other.file.close()
    assert other.digest != packed.digest
    assert bases(build) == ("base",)


def test_a_context_that_the_engine_fetches_is_not_read() -> None:
    build = Build(context="https://example.test/x.git")
    digests = set()
    for each in (build, build, build.model_copy(update={"context": "https://example.test/y.git"})):
        packed = pack(each)
        packed.file.close()
        digests.add(packed.digest)
    assert len(digests) == 2
    assert (bases(build), packed.dockerfile) == ((), "Dockerfile")


def test_adopted_container_observed() -> None:
    seen = observe(INFO, "node-1")
    assert (seen.name, seen.project, seen.service) == ("shop_web_1", "shop", "web")
    assert (seen.revision, seen.managed, seen.node) == ("0123456789ab", False, "node-1")
    assert (seen.host, seen.port) == ("10.2.0.2", 9000)
    assert seen.addresses == ("10.2.0.2", "10.1.0.2")
    assert seen.alternatives == ("10.1.0.2",)
    assert seen.gateways == (("10.1.0.1", "10.1.0.0/24"),)
    assert (seen.state, seen.exit_code, seen.health) == (
        ReplicaState.RUNNING,
        None,
        ContainerHealth.NONE,
    )
    assert seen.finished_at == 0.0
    assert seen.started_at - seen.created_at == pytest.approx(0.876544, abs=1e-5)


def checked(day: str) -> dict[str, Any]:
    """Return the state of a failed check that ran on a day."""
    return {"Status": "unhealthy", "Log": [{"Start": f"{day}T00:00:00.0Z", "ExitCode": 1}]}


@pytest.mark.parametrize(
    ("changes", "field", "expected"),
    [
        ({"Config__Labels": {"mesh.service": "web"}}, "port", 7000),
        ({"Config__Labels": {"mesh.service": "web"}, "Config__Env": []}, "port", 8081),
        (
            {"Config__Labels": {"mesh.port": "x"}, "Config__Env": None, "Config__ExposedPorts": {}},
            "port",
            8080,
        ),
        ({"Config__Labels": {"mesh.service": "web"}}, "project", "default"),
        ({"Config__Labels": {"mesh.service": "web"}}, "revision", "a" * 12),
        ({"Config__Labels": {"mesh.port": "1"}}, "service", "shop_web_1"),
        ({"Config__Labels": {"mesh.managed": "1"}}, "managed", True),
        ({"NetworkSettings__Networks": {}}, "host", None),
        ({"NetworkSettings__Networks": {}}, "port", 0),
        ({"HostConfig__NetworkMode": "host"}, "host", "127.0.0.1"),
        ({"State__Status": "restarting"}, "state", ReplicaState.EXITED),
        ({"State__Status": "dead"}, "state", ReplicaState.EXITED),
        ({"State__Status": "stopping"}, "state", ReplicaState.STOPPING),
        ({"State__Status": "paused"}, "state", ReplicaState.PAUSED),
        ({"State__Running": False}, "host", None),
        ({"State__Health": {"Status": "unhealthy"}}, "health", ContainerHealth.UNHEALTHY),
        ({"State__Health": checked("9999-01-01")}, "health", ContainerHealth.UNHEALTHY),
        ({"State__Health": checked("2001-01-01")}, "health", ContainerHealth.STARTING),
    ],
)
def test_observation(changes: dict[str, Any], field: str, expected: object) -> None:
    assert getattr(observe(info(**changes), "n"), field) == expected


def test_a_container_in_the_network_of_another_one_is_reached_there() -> None:
    shared = info(NetworkSettings__Networks={}, HostConfig__NetworkMode="container:abc")
    assert observe(shared, "n").host is None
    seen = observe({**shared, PEER_ADDRESSES: ["10.9.0.2", "10.9.1.2"]}, "n")
    assert (seen.host, seen.port, seen.addresses) == ("10.9.0.2", 9000, ())
    assert seen.alternatives == ("10.9.1.2",)


@pytest.mark.parametrize(
    ("action", "attributes", "stop", "expected"),
    [
        ("start", {}, 15, EventKind.STARTED),
        ("kill", {"signal": "15"}, 15, EventKind.STOPPING),
        ("kill", {"signal": "9"}, 15, EventKind.STOPPING),
        ("kill", {"signal": "15"}, 2, None),
        ("kill", {"signal": "1"}, 15, None),
        ("die", {}, 15, EventKind.DIED),
        ("stop", {}, 15, None),
        ("destroy", {}, 15, EventKind.REMOVED),
        ("remove", {}, 15, EventKind.REMOVED),
        ("health_status: unhealthy", {}, 15, EventKind.HEALTH),
        ("pause", {}, 15, EventKind.PAUSED),
        ("unpause", {}, 15, EventKind.UNPAUSED),
        ("exec_create: sh", {}, 15, None),
        ("create", {}, 15, None),
    ],
)
def test_events(
    action: str, attributes: dict[str, str], stop: int, expected: EventKind | None
) -> None:
    assert event_kind(action, attributes, stop) is expected


@pytest.mark.parametrize(
    ("name", "number"),
    [
        (None, 15),
        ("", 15),
        ("SIGINT", 2),
        ("int", 2),
        ("10", 10),
        ("SIGWHAT", 15),
        ("SIGRTMIN+3", 37),
        ("RTMIN+3", 37),
        ("SIGRTMAX-1", 63),
        ("37", 37),
    ],
)
def test_stop_signals(name: str | None, number: int) -> None:
    assert stop_signal(info(Config__StopSignal=name)) == number


@pytest.mark.parametrize(
    ("given", "sent"), [({}, None), ({"stop_signal": "SIGRTMIN+3"}, "SIGRTMIN+3")]
)
def test_without_a_stop_signal_that_of_the_image_holds(
    given: dict[str, str], sent: str | None
) -> None:
    of = Service(name="web", image="app", **given)  # type: ignore[arg-type]
    made = create_request(ReplicaSpec("x", "p", of, "r"), "json-file")
    assert made.config.get("StopSignal") == sent


@pytest.mark.parametrize(
    ("marks", "expected"),
    [
        ({"mesh.service": "a"}, True),
        ({"mesh.route": "/"}, True),
        ({"other": "1"}, False),
        ({"mesh.service": "a", "com.docker.compose.oneoff": "True"}, False),
        ({"mesh.service": "a", "com.docker.compose.oneoff": "False"}, True),
    ],
)
def test_containers_that_are_replicas(marks: dict[str, str], expected: bool) -> None:
    assert is_replica(marks) is expected


def test_a_clone_keeps_all_but_exclusive_settings() -> None:
    before = copy.deepcopy(INFO)
    made = clone_request(INFO, "shop-web-x", 4)
    assert before == INFO
    config, host = made.config, made.config["HostConfig"]
    assert config["Labels"] == COMPOSE | {
        "com.docker.compose.container-number": "4",
        "mesh.managed": "1",
        "mesh.replica": "shop-web-x",
        "mesh.clone-of": "shop_web_1",
    }
    assert "Hostname" not in config
    assert (config["Image"], config["Env"]) == ("web:1", ["PORT=7000"])
    assert host["Binds"] == ["shop_data:/data:rw"]
    assert (host["PortBindings"], host["RestartPolicy"]) == ({}, {"Name": "no"})
    assert config["NetworkingConfig"] == {"EndpointsConfig": {"shop_front": {"Aliases": ["web"]}}}
    assert made.networks == {"shop_back": {"Aliases": ["web"]}}


@pytest.mark.parametrize(
    ("mode", "networks"),
    [("host", set()), ("default", {"extra"}), ("container:abc", set()), ("none", set())],
)
def test_clone_of_a_special_network_mode(mode: str, networks: set[str]) -> None:
    attached = {name: {"Aliases": None} for name in ("bridge", "extra")}
    made = clone_request(
        info(HostConfig__NetworkMode=mode, NetworkSettings__Networks=attached), "x", 2
    )
    assert set(made.networks) == networks
    assert "NetworkingConfig" not in made.config


def test_container_numbers_are_per_service() -> None:
    other = COMPOSE | {"com.docker.compose.service": "api"}
    key = "com.docker.compose.container-number"
    known = [COMPOSE, COMPOSE | {key: "7"}, COMPOSE | {key: "x"}, other | {key: "9"}, {}]
    assert next_number(known, COMPOSE) == 8
    assert next_number(known, other) == 10
    assert next_number([], COMPOSE) == 1


@pytest.mark.parametrize(
    ("added", "dropped", "expected"),
    [
        ((), (), ["NET_RAW"]),
        (("NET_ADMIN",), ("MKNOD",), ["MKNOD", "NET_RAW"]),
        (("cap_net_raw",), (), []),
        (("ALL",), (), []),
    ],
)
def test_net_raw_is_dropped_unless_asked_for(
    added: tuple[str, ...], dropped: tuple[str, ...], expected: list[str]
) -> None:
    of = Service(name="web", image="i", cap_add=added, cap_drop=dropped)
    made = create_request(ReplicaSpec("x", "p", of, "r"), "journald")
    assert made.config["HostConfig"]["CapDrop"] == expected
    assert "LogConfig" not in made.config["HostConfig"]


def test_environment_of_the_mesh_wins_and_has_a_port() -> None:
    of = Service(name="web", image="i", environment={"A": "service", "B": "service"})
    made = create_request(ReplicaSpec("x", "p", of, "r", {"B": "mesh"}), "json-file")
    assert made.config["Env"] == ["PORT=8080", "A=service", "B=mesh"]
    assert "Cmd" not in made.config
    json.dumps(made.config)


@pytest.mark.parametrize(
    ("newest", "oldest", "expected"),
    [("1.41", "1.12", "v1.41"), ("1.52", "1.44", "v1.44"), ("1.40", "1.12", "v1.40")],
)
def test_api_version(newest: str, oldest: str, expected: str) -> None:
    assert api_version({"ApiVersion": newest, "MinAPIVersion": oldest}) == expected


@pytest.mark.parametrize(
    ("patterns", "name", "ignored"),
    [
        (["*.log"], "a.log", True),
        (["*.log"], "sub/a.log", False),
        (["**/*.log"], "sub/deep/a.log", True),
        (["**/*.log"], "a.log", True),
        (["venv"], "venv/lib/x.py", True),
        (["/venv/"], "venv/lib/x.py", True),
        (["venv"], "venv2", False),
        (["*", "!src"], "src/a.py", False),
        (["*", "!src", "src/*.pyc"], "src/a.pyc", True),
        (["a?c"], "abc", True),
        (["a.c"], "abc", False),
        ([], "anything", False),
    ],
)
def test_dockerignore(patterns: list[str], name: str, ignored: bool) -> None:
    assert Ignore(patterns).matches(name) is ignored


@pytest.mark.parametrize(
    ("text", "args", "expected"),
    [
        ("FROM a:1\n", {}, ("a:1",)),
        ("from --platform=linux/amd64 a AS x\nFROM x\nFROM b", {}, ("a", "b")),
        ("ARG BASE=python:3\nFROM ${BASE}\n", {}, ("python:3",)),
        ("ARG BASE=python:3\nFROM $BASE\n", {"BASE": "mine"}, ("mine",)),
        ("FROM ${BASE:-other}\n", {}, ("other",)),
        ("FROM scratch\n", {}, ()),
    ],
)
def test_bases(tmp_path: Path, text: str, args: dict[str, str], expected: tuple[str, ...]) -> None:
    (tmp_path / "Dockerfile").write_text(text)
    assert bases(Build(context=str(tmp_path), args=args)) == expected


def test_digest_follows_content_and_not_time(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM a\n")
    file = tmp_path / "app.py"
    file.write_text("one")
    build = Build(context=str(tmp_path))

    def digest(of: Build) -> str:
        context = pack(of)
        context.file.close()
        return context.digest

    first = digest(build)
    (tmp_path / "app.py").touch()
    assert digest(build) == first
    assert digest(build.model_copy(update={"args": {"A": "1"}})) != first
    file.write_text("two")
    assert digest(build) != first
    file.write_text("one")
    file.rename(tmp_path / "other.py")
    assert digest(build) != first


def test_a_container_that_does_not_run_uses_nothing() -> None:
    assert parse_stats(None, 1.0) is None
    assert parse_stats({"memory_stats": {}, "cpu_stats": {}}, 1.0) is None
    stats = {"memory_stats": {"usage": 70, "stats": {"inactive_file": 20}},
            "cpu_stats": {"cpu_usage": {"total_usage": 3_000_000_000}}}  # fmt: skip
    usage = parse_stats(stats, 1.0)
    assert usage is not None
    assert (usage.cpu_seconds, usage.memory) == (3.0, 50)


@pytest.mark.parametrize(
    ("host", "alive", "lost"),
    [
        ({"NetworkMode": f"container:{'a' * 64}"}, {"a" * 64}, False),
        ({"NetworkMode": f"container:{'a' * 64}"}, set(), True),
        ({"NetworkMode": "shop_front", "IpcMode": f"container:{'a' * 64}"}, set(), True),
        ({"NetworkMode": "shop_front", "VolumesFrom": [f"{'a' * 64}:ro"]}, set(), True),
        ({"NetworkMode": "shop_front", "VolumesFrom": ["other:ro"]}, set(), False),
        ({"NetworkMode": "shop_front", "IpcMode": "shareable"}, set(), False),
    ],
)
def test_a_replica_whose_peer_has_ended_must_be_created_again(
    host: dict[str, Any], alive: set[str], lost: bool
) -> None:
    marks = {"mesh.managed": "1", "mesh.replica": "shop_web_1"}
    changed = {**info(Config__Labels=marks), "HostConfig": host}
    seen = add_lost_peer(replace(observe(INFO, "n"), managed=True), changed, alive)
    assert bool(seen.drift) == lost
