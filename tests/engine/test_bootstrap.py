"""`meshd bootstrap`, `meshd node add` and `meshd node load` with real engines, in network
namespaces."""

import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import run_meshd
from tests.support.own_swarm import OwnNode, own_engines

pytestmark = [pytest.mark.engine, pytest.mark.slow]


@pytest.fixture(scope="module")
def engines() -> Iterator[list[OwnNode]]:
    with own_engines(["m1", "w1", "w2"]) as nodes:
        yield nodes


async def test_engines_become_a_swarm(engines: list[OwnNode], tmp_path: Path) -> None:
    """Also: a repeated call, a node behind SSH, and that no output has a join token."""
    m1, w1, w2 = engines
    said = []
    code, out, err = await run_meshd("bootstrap", m1.host, w1.host, "--dry-run", "-o", "json")
    assert (code, err) == (0, "")
    planned = [json.loads(line) for line in out.splitlines()]
    assert [each["action"] for each in planned] == ["would start the Swarm", "would join"]
    assert [each["address"] for each in planned] == ["", ""]
    given = f"{m1.host}={m1.address}"
    shown = await run_meshd("bootstrap", m1.host, "--advertise", given, "--dry-run")
    assert shown[1] == f"{m1.host}: m1 would start the Swarm as manager, at {m1.address}\n"
    nowhere = await run_meshd("bootstrap", m1.host, "--advertise", f"{m1.host}=m1.example.invalid")
    assert nowhere[0] == 1
    assert "m1.example.invalid cannot be resolved; expected an IP address" in nowhere[2]
    alone = await run_meshd("node", "add", w1.host, "--manager", m1.host)
    assert alone[0] == 1
    assert "is not part of a Swarm; `meshd bootstrap` makes one" in alone[2]
    for repeated in (False, True):
        done = await run_meshd("bootstrap", m1.host, w1.host)
        said += done[1:]
        assert done[0] == 0, done
        first, second = done[1].splitlines()[:2]
        word = "was part of it" if repeated else "started the Swarm"
        assert first == f"{m1.host}: m1 {word} as manager"
        assert second == f"{w1.host}: w1 {'was part of it' if repeated else 'joined'} as worker"
        assert f"Install meshd on {m1.host}" in done[1]

    ssh = tmp_path / "ssh"
    ssh.write_text(f"#!/bin/sh\nexec docker -H {w2.host} system dial-stdio\n")
    ssh.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    added = await run_meshd(
        "node", "add", "ssh://root@w2", "--role", "manager", "--advertise",
        f"ssh://root@w2={w2.address}", PATH=path, DOCKER_HOST=m1.host,
    )  # fmt: skip
    assert added[0] == 0, added
    said += added[1:]
    listed = m1.docker("node", "ls", "--format", "{{.Hostname}} {{.Status}} {{.ManagerStatus}}")
    assert sorted(listed.splitlines()) == ["m1 Ready Leader", "w1 Ready ", "w2 Ready Reachable"]
    for role in ("manager", "worker"):
        token = m1.docker("swarm", "join-token", "-q", role).strip()
        assert token.startswith("SWMTKN-")
        assert not any(token in text for text in said)


async def test_an_image_is_loaded_on_nodes(engines: list[OwnNode], tmp_path: Path) -> None:
    """Also: a repeated call copies nothing, one node that does not answer, an unknown image."""
    m1, w1, w2 = engines
    (tmp_path / "a-file").write_bytes(bytes(2_000_000))
    archive = tmp_path / "image.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(tmp_path / "a-file", "a-file")
    m1.docker("import", str(archive), "shop/web:1")
    ssh = tmp_path / "ssh"
    ssh.write_text(f"#!/bin/sh\nexec docker -H {w2.host} system dial-stdio\n")
    ssh.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    hosts = (w1.host, "ssh://root@w2")
    load = ("node", "load", *hosts, "--from", m1.host, "--image", "shop/web:1")
    for verb in ("loaded shop/web:1 (2.0 MB)", "has shop/web:1 already"):
        done = await run_meshd(*load, PATH=path)
        assert done == (0, "".join(f"{host}: {verb}\n" for host in hosts), "")
    ids = {node.docker("image", "inspect", "-f", "{{.Id}}", "shop/web:1") for node in engines}
    assert len(ids) == 1
    plain = await run_meshd(*load, "-o", "json", PATH=path)
    assert [json.loads(line)["copied"] for line in plain[1].splitlines()] == [False, False]

    unknown = await run_meshd("node", "load", w1.host, "--from", m1.host, "--image", "shop/none:2")
    assert unknown[::2] == (
        1, f"meshd: {m1.host} has no image shop/none:2; pull or build it there\n"
    )  # fmt: skip
    nowhere = await run_meshd(
        "node", "load", "unix:///nowhere.sock", "--image", "a", DOCKER_HOST=m1.host
    )
    assert nowhere[0] == 1
    assert "unix:///nowhere.sock (the command line) does not answer" in nowhere[2]


async def test_a_volume_is_copied_to_a_node(engines: list[OwnNode], tmp_path: Path) -> None:
    """Over SSH, also back under another name; a service of the daemon is not needed."""
    m1, _, w2 = engines
    (tmp_path / "a-file").write_bytes(bytes(2_000_000))
    archive = tmp_path / "image.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(tmp_path / "a-file", "a-file")
    m1.docker("import", str(archive), "filled:1")
    m1.docker("create", "--name", "filler", "-v", "data:/data", "filled:1", "none")
    m1.docker("cp", "-a", str(tmp_path / "a-file"), "filler:/data/a-file")
    ssh = tmp_path / "ssh"
    ssh.write_text(f"#!/bin/sh\nexec docker -H {w2.host} system dial-stdio\n")
    ssh.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    there = await run_meshd(
        "volume", "copy", "data", "ssh://root@w2", "--from", m1.host, "-o", "json", PATH=path
    )
    assert there[::2] == (0, ""), there
    said = json.loads(there[1])
    assert (said["entries"], said["bytes"]) == (1, 2_000_000)
    back = await run_meshd(
        "volume", "copy", "data", m1.host, "--from", "ssh://root@w2", "--as", "back", "-o", "json",
        PATH=path,
    )  # fmt: skip
    assert back[0] == 0, back
    assert json.loads(back[1])["digest"] == said["digest"]
    w2.docker("volume", "inspect", "data")
