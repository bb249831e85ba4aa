"""Keys that a plain service shares with Compose, checked on real containers."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from meshd.model.runtime import ObservedReplica
from meshd.runtime.base import StartFailed, Unsupported
from meshd.runtime.docker.runtime import DockerRuntime
from meshd.spec.compose import load
from meshd.spec.model import Project
from tests.fakes.replicas import docker, docker_runtime, replica_spec, unique_project
from tests.support.waiting import wait_until

pytestmark = pytest.mark.engine
PROJECT = unique_project("plain")
NAME = f"{PROJECT}-box"

COMPOSE = """
services:
  db:
    image: ${IMAGE}
    container_name: ${BOX}
    hostname: dbhost
    init: true
    tty: true
    command: [sh, -c, "echo hi > /vf/x; cd /vf; exec python3 -m http.server 7000"]
    networks:
      back: {ipv4_address: 10.213.78.10, aliases: [db.alias], mac_address: "02:42:ac:1d:4e:0a"}
    volumes: [/vf, "data:/data"]
    stop_signal: SIGKILL
  side:
    image: ${IMAGE}
    network_mode: service:db
    volumes_from: ["db:ro"]
    command: [sleep, "600"]
    stop_signal: SIGKILL
  web.App:
    image: ${IMAGE}
    command: [sleep, "600"]
    links: ["db:thedb"]
    networks: [back]
    blkio_config: {weight: 300}
    volumes: [{type: tmpfs, target: /t, tmpfs: {mode: 0700, size: 1m}}]
    stop_signal: SIGKILL
  lone:
    image: ${IMAGE}
    network_mode: none
    command: [sleep, "600"]
    stop_signal: SIGKILL
networks:
  back:
    ipam: {config: [{subnet: 10.213.78.0/24, gateway: 10.213.78.1}]}
    labels: {team: food}
volumes:
  data: {labels: {a: b}, driver_opts: {type: tmpfs, device: tmpfs, o: size=1m}}
"""


@pytest.fixture
async def runtime() -> AsyncIterator[DockerRuntime]:
    async with docker_runtime(PROJECT) as ready:
        yield ready
    docker("volume", "rm", "-f", f"{PROJECT}_data")


@pytest.fixture
def project(engine_image: str, tmp_path: Path) -> Project:
    return load_project(engine_image, tmp_path, COMPOSE)


def load_project(image: str, folder: Path, text: str) -> Project:
    (folder / "compose.yml").write_text(text)
    variables = {"IMAGE": image, "BOX": NAME}
    return load([folder / "compose.yml"], project=PROJECT, environment=variables).project


async def run(
    runtime: DockerRuntime, project: Project, service: str, suffix: str = "1"
) -> ObservedReplica:
    given = project.service(service)
    await runtime.prepare(PROJECT, given, project.networks)
    return await runtime.start(replica_spec(PROJECT, f"{service}-{suffix}", given))


def fetch(container: str, host: str) -> str:
    program = (
        "import urllib.request as u, time\n"
        "for _ in range(50):\n"
        "    try: print(u.urlopen('http://HOST:7000/x', timeout=2).read().decode()); break\n"
        "    except OSError as e: time.sleep(0.1)\n"
    )
    return docker("exec", container, "python3", "-c", program.replace("HOST", host)).strip()


async def test_names_networks_and_mounts_are_those_of_compose(
    runtime: DockerRuntime, project: Project
) -> None:
    db = await run(runtime, project, "db")
    side = await run(runtime, project, "side")
    web = await run(runtime, project, "web.App")
    lone = await run(runtime, project, "lone")
    assert db.name == f"{PROJECT}-db-1"
    assert docker("inspect", NAME, "--format", "{{.Id}}").strip() == db.runtime_id
    assert db.host == "10.213.78.10"
    for host in ("thedb", "db", "db.alias", "dbhost", NAME):
        assert fetch(web.runtime_id, host) == "hi", host
    assert fetch(side.runtime_id, "127.0.0.1") == "hi"
    assert docker("exec", side.runtime_id, "cat", "/vf/x").strip() == "hi"
    assert docker("exec", web.runtime_id, "stat", "-c", "%a", "/t").strip() == "700"
    assert "eth0" not in docker("exec", lone.runtime_id, "cat", "/proc/net/dev")
    await wait_until(lambda: runtime.logs(db.name, 5))
    assert not any(each.drift for each in await runtime.list() if each.project == PROJECT)


async def test_a_successor_takes_the_name_and_what_shares_with_it_is_replaced(
    runtime: DockerRuntime, project: Project
) -> None:
    first = await run(runtime, project, "db")
    side = await run(runtime, project, "side")
    await runtime.stop(first.name, 0)
    drift = {each.name: each.drift for each in await runtime.list()}[side.name]
    assert drift.startswith(f"shares a namespace or mounts with {first.runtime_id[:12]}")
    second = await run(runtime, project, "db", "2")
    names = {each.name: each.runtime_id for each in await runtime.list()}
    assert names[f"{PROJECT}-db-1"] == first.runtime_id
    assert names[f"{PROJECT}-db-2"] == second.runtime_id
    assert docker("inspect", NAME, "--format", "{{.Id}}").strip() == second.runtime_id
    await runtime.remove(first.name)
    await runtime.stop(second.name, 0)
    await runtime.remove(second.name)
    assert NAME not in docker("ps", "-a", "--format", "{{.Names}}")


async def test_a_network_or_volume_with_other_options_is_not_used(
    runtime: DockerRuntime, project: Project, engine_image: str, tmp_path: Path
) -> None:
    await runtime.prepare(PROJECT, project.service("db"), project.networks)
    await runtime.prepare(PROJECT, project.service("db"), project.networks)
    other = COMPOSE.replace("10.213.78.0/24", "10.213.78.0/25")
    changed = load_project(engine_image, tmp_path, other)
    await runtime.prepare(PROJECT, changed.service("web.App"), changed.networks)  # unused: replaced
    subnet = docker("network", "inspect", f"{PROJECT}_back", "--format", "{{json .IPAM.Config}}")
    assert "10.213.78.0/25" in subnet
    larger = load_project(engine_image, tmp_path, COMPOSE.replace("size=1m}", "size=2m}"))
    with pytest.raises(StartFailed, match="other options than in the file"):
        await runtime.prepare(PROJECT, larger.service("db"), project.networks)


async def test_what_the_engine_is_too_old_for_is_named(
    runtime: DockerRuntime, engine_image: str, tmp_path: Path
) -> None:
    text = """
    services:
      web:
        image: ${IMAGE}
        volumes: [{type: volume, source: data, target: /d, volume: {subpath: a}}]
    volumes: {data: }
    """
    given = load_project(engine_image, tmp_path, text)
    with pytest.raises(Unsupported, match=r"subpath at /d needs Docker Engine 26\.0"):
        await runtime.prepare(PROJECT, given.service("web"), given.networks)


async def test_the_namespace_of_a_container_of_others_is_no_drift(
    runtime: DockerRuntime, engine_image: str, tmp_path: Path
) -> None:
    other = f"{PROJECT}-other"
    docker("run", "-d", "--name", other, engine_image, "sleep", "600")
    text = f"""
    services:
      side:
        image: ${{IMAGE}}
        network_mode: container:{other}
        volumes_from: [container:{other}]
        command: [sleep, "600"]
        stop_signal: SIGKILL
    """
    try:
        side = await run(runtime, load_project(engine_image, tmp_path, text), "side")
        assert {each.name: each.drift for each in await runtime.list()}[side.name] == ""
    finally:
        docker("rm", "-f", other)
    assert "has ended" in {each.name: each.drift for each in await runtime.list()}[side.name]
