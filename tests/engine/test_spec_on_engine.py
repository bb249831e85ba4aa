"""Less common settings of a Compose file, checked on a real container."""

import json
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from meshd.runtime.base import StartFailed
from meshd.runtime.docker.runtime import DockerRuntime
from meshd.spec.compose import load
from tests.fakes.replicas import (
    docker,
    docker_runtime,
    replica_spec,
    start_and_wait,
    unique_project,
)

pytestmark = pytest.mark.engine
PROJECT = unique_project("words")

COMPOSE = """
services:
  web:
    image: ${IMAGE}
    command: [sh, -c, "echo up; sleep 600"]
    networks: {back: {aliases: [store]}}
    tmpfs: /scratch:size=1m
    secrets: [key]
    configs: [{source: menu, target: /etc/menu.txt}]
    security_opt: ["no-new-privileges:true"]
    group_add: ["4242"]
    sysctls: [net.core.somaxconn=512]
    ulimits: {nofile: {soft: 100, hard: 200}, core: 0}
    shm_size: 8m
    extra_hosts: ["bank=10.9.8.7"]
    dns: 10.9.8.1
    dns_search: example.com
    dns_opt: [timeout:1]
    logging: {driver: json-file, options: {max-size: 1m}}
networks: {back: }
secrets: {key: {file: ./key}}
configs: {menu: {file: ./menu.txt}}
"""


@pytest.fixture
async def runtime() -> AsyncIterator[DockerRuntime]:
    async with docker_runtime(PROJECT) as ready:
        yield ready


async def test_every_setting_of_the_file_reaches_the_container(
    runtime: DockerRuntime, engine_image: str, tmp_path: Path
) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "key").write_text("hush")
    (tmp_path / "menu.txt").write_text("pizza")
    (tmp_path / "compose.yml").write_text(COMPOSE)
    loaded = load([tmp_path / "compose.yml"], project=PROJECT, environment={"IMAGE": engine_image})
    replica = replica_spec(PROJECT, "web-1", loaded.project.service("web"))

    await start_and_wait(runtime, replica)

    found = json.loads(docker("inspect", replica.name))[0]
    host = found["HostConfig"]
    assert "store" in found["NetworkSettings"]["Networks"][f"{PROJECT}_back"]["Aliases"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["GroupAdd"] == ["4242"]
    # Engines raise an exec's own soft limit on files to the hard one now and then.
    assert {"Name": "nofile", "Soft": 100, "Hard": 200} in host["Ulimits"]
    assert host["ShmSize"] == 8 * 1024**2
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "1m"}}
    seen = docker(
        "exec",
        replica.name,
        "sh",
        "-c",
        "cat /run/secrets/key /etc/menu.txt /proc/sys/net/core/somaxconn; ulimit -c;"
        "id -G; df -k /scratch | tail -1; getent hosts bank; cat /etc/resolv.conf;"
        "touch /run/secrets/key 2>&1 || true",
    )
    for part in ("hushpizza512", "512\n0\n", "4242", " 1024 ", "10.9.8.7", "example.com"):
        assert part in seen, part
    assert "Read-only file system" in seen


STORAGE = """
services:
  web:
    image: ${IMAGE}
    command: [sh, -c, "echo up; sleep 600"]
    networks: [named, theirs]
    volumes: ["named:/named:nocopy", "theirs:/theirs", ".:/host:ro,private"]
    tmpfs: ["/scratch:rw,noexec,size=1m,mode=1777"]
    secrets: [{source: token, uid: "7", gid: "8", mode: 0440}]
    configs: [menu]
networks: {named: {name: "${COMPOSE_PROJECT_NAME}-net"}, theirs: {external: true, name: "${OTHER}"}}
volumes: {named: {name: "${COMPOSE_PROJECT_NAME}-data"}, theirs: {external: true, name: "${OTHER}"}}
secrets: {token: {environment: TOKEN}}
configs: {menu: {content: "pizza ${KIND}"}}
"""


async def test_named_and_external_storage_and_files_with_a_given_content(
    runtime: DockerRuntime, engine_image: str, tmp_path: Path
) -> None:
    other = f"{PROJECT}-other"
    variables = {"IMAGE": engine_image, "TOKEN": "hush", "OTHER": other, "KIND": "plain"}
    (tmp_path / "compose.yml").write_text(STORAGE)
    loaded = load([tmp_path / "compose.yml"], project=PROJECT, environment=variables)
    service = loaded.project.service("web")
    networks = loaded.project.networks
    with pytest.raises(StartFailed, match=f"the external network {other} does not exist"):
        await runtime.prepare(PROJECT, service, networks)
    docker("network", "create", other)
    try:
        with pytest.raises(StartFailed, match=f"the external volume {other} does not exist"):
            await runtime.prepare(PROJECT, service, networks)
        docker("volume", "create", other)
        await runtime.prepare(PROJECT, service, networks)
        replica = replica_spec(PROJECT, "web-2", service)
        await start_and_wait(runtime, replica)

        found = json.loads(docker("inspect", replica.name))[0]
        assert {f"{PROJECT}-net", other} <= set(found["NetworkSettings"]["Networks"])
        mounts = {each["Destination"]: each for each in found["Mounts"]}
        assert mounts["/named"]["Name"] == f"{PROJECT}-data"
        assert mounts["/theirs"]["Name"] == other
        assert mounts["/host"]["Propagation"] == "private"
        seen = docker(
            "exec",
            replica.name,
            "sh",
            "-c",
            "stat -c '%u %g %a' /run/secrets/token; cat /run/secrets/token /menu;"
            "stat -c %a /menu; mount | grep /scratch",
        )
        for part in ("7 8 440\n", "hushpizza plain444\n", "noexec", "size=1024k"):
            assert part in seen, seen
    finally:
        for arguments in (
            ("rm", "-f", f"{PROJECT}-web-2"),
            ("network", "rm", other),
            ("volume", "rm", other, f"{PROJECT}-data"),
        ):
            with suppress(AssertionError):
                docker(*arguments)
