"""The settings of a spec, checked on a real container."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from meshd.discovery.listening import find_hint
from meshd.model.runtime import ContainerHealth, ReplicaState
from meshd.runtime.base import EventKind, StartFailed, Unsupported
from meshd.runtime.docker.engine import Engine
from meshd.runtime.docker.runtime import DockerRuntime
from meshd.spec.model import Network, Service
from tests.fakes.replicas import (
    ReceivedEvents,
    docker,
    docker_runtime,
    fetch,
    on_podman,
    replica_spec,
    service,
    start_and_wait,
    unique_project,
)
from tests.support.waiting import wait_until

pytestmark = pytest.mark.engine
PROJECT = unique_project("spec")


@pytest.fixture
async def runtime() -> AsyncIterator[DockerRuntime]:
    async with docker_runtime(PROJECT) as ready:
        yield ready


def inspected(name: str) -> dict:
    return json.loads(docker("inspect", name))[0]


async def test_everything_in_the_spec_reaches_the_container(
    runtime: DockerRuntime, engine_image: str, tmp_path
) -> None:
    (tmp_path / "menu.txt").write_text("pizza")
    tmp_path.chmod(0o755)
    script = """
import os, time
print(os.getcwd(), open('/menu/menu.txt').read(), flush=True)
time.sleep(600)
"""
    full = service(
        engine_image,
        script,
        "full",
        entrypoint=("/usr/bin/env",),
        environment={"COLOUR": "blue"},
        working_dir="/srv",
        user="65534",
        expose=(9100,),
        labels={"team": "food"},
        stop_signal="SIGINT",
        stop_grace_period=2.5,
        networks=("inner",),
        volumes=(
            {"type": "bind", "target": "/menu", "source": str(tmp_path), "read_only": True},
            {"type": "volume", "target": "/data", "source": "store"},
            {"type": "tmpfs", "target": "/scratch"},
        ),
        resources={"cpus": 0.5, "memory": 64 * 2**20, "pids": 50},
        init=True,
        read_only=True,
        cap_add=("SYS_NICE",),
        cap_drop=("MKNOD",),
        healthcheck={"test": ("CMD", "true"), "interval": 1.0},
    )
    replica = replica_spec(
        PROJECT, "full-1", full, environment={"MESH_URL_PAY": "x"}, hosts={"pay": "10.0.0.1"}
    )
    await start_and_wait(runtime, replica)
    found = inspected(replica.name)
    config, host = found["Config"], found["HostConfig"]
    assert set(config["Env"]) >= {"COLOUR=blue", "MESH_URL_PAY=x", "PORT=9100"}
    assert config["Entrypoint"] == ["/usr/bin/env"]
    assert config["Cmd"][0] == "python3"
    assert (config["StopSignal"], config["StopTimeout"], config["User"]) == ("SIGINT", 3, "65534")
    assert config["Labels"]["team"] == "food"
    assert config["Labels"]["mesh.managed"] == "1"
    assert (host["NanoCpus"], host["Memory"], host["PidsLimit"]) == (5 * 10**8, 64 * 2**20, 50)
    assert (host["Init"], host["ReadonlyRootfs"]) == (True, True)
    assert host["CapAdd"] == ["SYS_NICE"] or host["CapAdd"] == ["CAP_SYS_NICE"]
    assert {name.removeprefix("CAP_") for name in host["CapDrop"]} == {"MKNOD", "NET_RAW"}
    assert host["ExtraHosts"] == ["pay:10.0.0.1"]
    assert host["RestartPolicy"]["Name"] == "no"
    assert host["LogConfig"]["Config"]["max-size"] == "10m"
    assert {m["Destination"] for m in found["Mounts"]} >= {"/menu", "/data"}
    networks = set(found["NetworkSettings"]["Networks"])
    assert networks == {f"{PROJECT}.full", f"{PROJECT}_inner"}
    assert list(await runtime.logs(replica.name, 1)) == ["/srv pizza"]
    (observed,) = [r for r in await runtime.list() if r.name == replica.name]
    assert observed.host == found["NetworkSettings"]["Networks"][f"{PROJECT}.full"]["IPAddress"]
    assert len(observed.addresses) == 2
    docker("rm", "-f", replica.name)
    docker("volume", "rm", f"{PROJECT}_store")


@pytest.mark.parametrize(
    ("declared", "internal"),
    [
        ((), False),
        (("inside",), True),
        (("inside", "outside"), False),
    ],
)
async def test_own_network_is_internal_when_all_declared_ones_are(
    runtime: DockerRuntime, engine_image: str, declared: tuple[str, ...], internal: bool
) -> None:
    networks = (Network(name="inside", internal=True), Network(name="outside"))
    web = service(engine_image, networks=declared)
    await runtime.prepare(PROJECT, web, networks)
    await runtime.prepare(PROJECT, web, networks)
    own = json.loads(docker("network", "inspect", f"{PROJECT}.web"))
    assert len(own) == 1
    assert own[0]["Internal"] is internal
    (address,) = await runtime.mesh_addresses(PROJECT, ["web"])
    assert (address.service, address.port) == ("web", 80)
    assert address.host == own[0]["IPAM"]["Config"][0]["Gateway"]


async def test_replica_on_an_internal_network_reaches_the_mesh_alone(
    runtime: DockerRuntime, engine_image: str
) -> None:
    networks = (Network(name="inside", internal=True),)
    script = """
import os, socket, time
def reach(host, port):
    try:
        socket.create_connection((host, port), 1).close()
        return "yes"
    except OSError as e:
        return "no"
print(reach("mesh-here", 23080), reach("10.255.255.1", 80), flush=True)
time.sleep(600)
"""
    inner = service(engine_image, script, "inner", networks=("inside",))
    await runtime.prepare(PROJECT, inner, networks)
    (address,) = await runtime.mesh_addresses(PROJECT, ["inner"])
    server = await asyncio.start_server(lambda r, w: w.close(), address.host, 23080)
    async with server:
        replica = replica_spec(PROJECT, "inner-1", inner, hosts={"mesh-here": address.host})
        await start_and_wait(runtime, replica)
        assert list(await runtime.logs(replica.name, 1)) == ["yes no"]


async def test_a_changed_network_is_recreated_or_refused(
    runtime: DockerRuntime, engine_image: str
) -> None:
    web = service(engine_image, networks=("net",))
    await runtime.prepare(PROJECT, web, (Network(name="net"),))
    await runtime.prepare(PROJECT, web, (Network(name="net", internal=True),))
    (found,) = json.loads(docker("network", "inspect", f"{PROJECT}_net"))
    assert found["Internal"] is True
    await start_and_wait(runtime, replica_spec(PROJECT, "web-1", web))
    with pytest.raises(StartFailed, match="take the project down first"):
        await runtime.prepare(PROJECT, web, (Network(name="net"),))


async def test_container_health_is_observed(runtime: DockerRuntime, engine_image: str) -> None:
    check = {"test": ("CMD", "test", "-e", "/tmp/sick"), "interval": 0.5, "retries": 2}
    web = service(engine_image, healthcheck=check)
    replica = replica_spec(PROJECT, "web-1", web)
    async with ReceivedEvents(runtime) as heard:
        await start_and_wait(runtime, replica)
        sick = await heard.wait(EventKind.HEALTH, replica.name)
        docker("exec", replica.name, "touch", "/tmp/sick")
        well = await heard.wait(EventKind.HEALTH, replica.name, 2)
    assert sick.replica is not None
    assert sick.replica.health is ContainerHealth.UNHEALTHY
    assert well.replica is not None
    assert well.replica.health is ContainerHealth.HEALTHY


async def test_out_of_memory_is_observed(runtime: DockerRuntime, engine_image: str) -> None:
    script = "print('up', flush=True); b = bytearray(300 * 2**20)"
    greedy = service(engine_image, script, "greedy", resources={"memory": 32 * 2**20})
    replica = replica_spec(PROJECT, "greedy-1", greedy)
    async with ReceivedEvents(runtime) as heard:
        await start_and_wait(runtime, replica)
        died = await heard.wait(EventKind.DIED, replica.name)
    assert died.replica is not None
    assert died.replica.oom_killed
    assert died.replica.exit_code == 137
    if not on_podman(runtime):  # which has no such event
        engine = Engine()
        await engine.open()
        found = await engine.events_of(died.replica.runtime_id, "oom", died.at - 5, died.at + 1)
        await engine.close()
        assert {event["Action"] for event in found} == {"oom"}


async def test_a_harmless_signal_is_not_an_end(runtime: DockerRuntime, engine_image: str) -> None:
    script = "import signal, time; signal.signal(1, lambda *_: print('hup', flush=True))\n" + (
        "print('up', flush=True)\nwhile True: time.sleep(1)"
    )
    web = service(engine_image, script, stop_signal="SIGUSR1", init=True)
    replica = replica_spec(PROJECT, "web-1", web)
    async with ReceivedEvents(runtime) as heard:
        await start_and_wait(runtime, replica)
        docker("kill", "-s", "HUP", replica.name)
        docker("kill", "-s", "USR1", replica.name)
        await heard.wait(EventKind.DIED, replica.name)
        assert heard.kinds(replica.name) == ["started", "stopping", "died"]


async def test_a_container_on_another_port_is_known(
    runtime: DockerRuntime, engine_image: str
) -> None:
    script = """
import socket
sockets = [socket.create_server(("0.0.0.0", 3000)), socket.create_server(("127.0.0.1", 8080))]
print("listening", flush=True)
while True: sockets[0].accept()
"""
    replica = replica_spec(PROJECT, "other-1", service(engine_image, script, "other"))
    await start_and_wait(runtime, replica)
    (seen,) = [each for each in await runtime.list() if each.name == replica.name]
    assert find_hint(str(seen.host), 3000, seen.pid) == ""
    assert "on 127.0.0.1:8080 only" in find_hint(str(seen.host), 8080, seen.pid)
    assert "listens on port 3000" in find_hint(str(seen.host), 80, seen.pid)


async def test_container_without_an_address(runtime: DockerRuntime, engine_image: str) -> None:
    name = f"{PROJECT}-bare"
    labels = ("--label", f"mesh.project={PROJECT}", "--label", "mesh.service=bare")
    docker("run", "-d", "--name", name, "--network", "none", *labels, engine_image, "sleep", "60")
    (bare,) = [r for r in await runtime.list() if r.name == name]
    assert (bare.host, bare.port, bare.addresses) == (None, 0, ())
    assert (bare.state, bare.managed) == (ReplicaState.RUNNING, False)


async def test_container_created_but_never_started(
    runtime: DockerRuntime, engine_image: str
) -> None:
    name = f"{PROJECT}-new"
    docker("create", "--name", name, "--label", f"mesh.project={PROJECT}", engine_image, "true")
    (new,) = [r for r in await runtime.list() if r.name == name]
    assert (new.state, new.host, new.exit_code) == (ReplicaState.CREATED, None, None)
    assert (new.started_at, new.finished_at) == (0.0, 0.0)
    assert new.service == name
    await runtime.remove(name)


async def test_wrong_mount_and_wrong_node_are_refused(
    runtime: DockerRuntime, engine_image: str
) -> None:
    mount = {"type": "bind", "target": "/x", "source": "/no/such/place", "must_exist": True}
    lost = service(engine_image, volumes=(mount,))
    replica = replica_spec(PROJECT, "web-1", lost)
    await runtime.prepare(PROJECT, lost)
    with pytest.raises(StartFailed, match="/no/such/place"):
        await runtime.start(replica)
    with pytest.raises(Unsupported, match="elsewhere"):
        await runtime.start(replica_spec(PROJECT, "web-1", lost, node="elsewhere"))
    with pytest.raises(Unsupported, match="neither image nor build"):
        await runtime.prepare(PROJECT, Service(name="void", command=("x",)))
    assert not [r for r in await runtime.list() if r.project == PROJECT]


async def test_a_missing_host_directory_is_created(
    runtime: DockerRuntime, engine_image: str, tmp_path: Path
) -> None:
    missing = tmp_path / "data"
    mount = {"type": "bind", "target": "/data", "source": str(missing)}
    web = service(engine_image, volumes=(mount,))
    await runtime.prepare(PROJECT, web)
    await runtime.start(replica_spec(PROJECT, "web-bind", web))
    assert missing.is_dir()


async def test_teardown_keeps_volumes_and_names_what_blocks_it(
    runtime: DockerRuntime, engine_image: str
) -> None:
    volume = {"type": "volume", "target": "/data", "source": "store"}
    web = service(engine_image, networks=("net",), volumes=(volume,))
    await runtime.prepare(PROJECT, web)
    guest = f"{PROJECT}-guest"
    docker("run", "-d", "--name", guest, "--network", f"{PROJECT}_net", engine_image, "sleep", "60")
    with pytest.raises(Exception, match=f"{PROJECT}_net"):
        await runtime.teardown(PROJECT)
    docker("rm", "-f", guest)
    await runtime.teardown(PROJECT)
    left = docker("network", "ls", "--filter", f"label=mesh.project={PROJECT}", "-q")
    assert left == ""
    assert docker("volume", "rm", f"{PROJECT}_store") == f"{PROJECT}_store"


async def test_server_answers_with_a_forged_address_impossible(
    runtime: DockerRuntime, engine_image: str
) -> None:
    script = """
import os, socket
try:
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
    print("raw sockets", flush=True)
except PermissionError:
    print("no raw sockets", flush=True)
import time; time.sleep(600)
"""
    replica = replica_spec(PROJECT, "web-1", service(engine_image, script))
    await start_and_wait(runtime, replica)
    assert list(await runtime.logs(replica.name, 1)) == ["no raw sockets"]


async def test_host_network_is_reached_on_loopback(
    runtime: DockerRuntime, engine_image: str
) -> None:
    name, port = f"{PROJECT}-host", "23081"
    command = ("python3", "-m", "http.server", port, "-d", "/opt")
    marks = (f"mesh.project={PROJECT}", "mesh.service=files", f"mesh.port={port}")
    labels = [part for mark in marks for part in ("--label", mark)]
    docker("run", "-d", "--name", name, "--network", "host", *labels, engine_image, *command)
    (files,) = [r for r in await runtime.list() if r.name == name]
    assert (files.host, files.port) == ("127.0.0.1", int(port))

    async def answers() -> bool:
        try:
            return "Directory listing" in await fetch("127.0.0.1", files.port)
        except OSError:
            return False

    await wait_until(answers)


async def test_changes_by_other_programs_are_reported_at_once(
    runtime: DockerRuntime, engine_image: str
) -> None:
    web = service(engine_image, resources={"memory": 256 * 2**20})
    replica = replica_spec(PROJECT, "web-drift", web)
    async with ReceivedEvents(runtime) as heard:
        await start_and_wait(runtime, replica)
        assert [seen.drift for seen in await runtime.list() if seen.name == replica.name] == [""]
        docker("update", "--cpus", "0.5", replica.name)
        limited = await heard.wait(EventKind.CHANGED, replica.name)
        docker("network", "disconnect", f"{PROJECT}.web", replica.name)
        alone = await heard.wait(EventKind.CHANGED, replica.name, 2)
        docker("rename", replica.name, "web-renamed")
        renamed = await heard.wait(EventKind.CHANGED, "web-renamed")
    docker("rename", "web-renamed", replica.name)
    assert limited.replica is not None
    assert limited.replica.drift == (
        "was changed by something other than meshd: the CPU limit is 0.5 CPUs instead of none"
    )
    assert alone.replica is not None
    assert alone.replica.drift.endswith(f"; it was disconnected from {PROJECT}.web")
    assert renamed.replica is not None
    assert renamed.replica.drift == f"carries the labels of {replica.name}"
