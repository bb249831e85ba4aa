"""`meshd volume` on a real engine: backups and restores of real files, also interrupted ones."""

import asyncio
import contextlib
import gzip
import io
import json
import signal
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from meshd.runtime.base import VolumeFailure
from meshd.runtime.docker.runtime import DockerRuntime
from meshd.spec.model import Mount, Service
from tests.fakes.replicas import docker, docker_runtime, replica_spec, unique_project
from tests.support.mesh import TestMesh
from tests.support.scaled import events_of_kind, scaled_mesh
from tests.support.waiting import wait_until

pytestmark = pytest.mark.engine
PROJECT = unique_project("volumes")
VOLUME = f"{PROJECT}_store"
FILL = """
mkdir -p /d/sub/deep; echo hi > /d/sub/f; ln -s f /d/sub/l; ln /d/sub/f /d/sub/h
mkfifo /d/p; truncate -s 3M /d/sparse; printf x > "/d/a file"; touch -d @1000000000 /d/old
chown 70:71 /d/sub; chmod 700 /d/sub; chmod 4755 /d/old; chown 999:998 /d; chmod 750 /d
"""
LIST = "cd /d; find . -printf '%P %y %m %U:%G %s %n %l\\n' | sort; cat sub/f"
SERVER = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        value = open("/data/value").read() if os.path.exists("/data/value") else ""
        self.answer(value)
    def do_PUT(self):
        size = int(self.headers["Content-Length"])
        open("/data/value", "w").write(self.rfile.read(size).decode())
        self.answer("")
    def answer(self, text):
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("", int(os.environ["PORT"])), Handler).serve_forever()
"""
LARGE_BYTES = 40_000_000
"""More than the buffers between the engine and a reader that does not read."""


def shell(volume: str, script: str, image: str) -> str:
    """Run a script with the volume at /d."""
    mount = f"{volume}:/d"
    return docker("run", "--rm", "--network", "none", "-v", mount, image, "sh", "-ec", script)


def use_volume(image: str) -> str:
    """Start a container with the volume that meshd does not know; return its id."""
    command = ("--network", "none", "-v", f"{VOLUME}:/d", image, "sleep", "60")
    return docker("run", "-d", *command)


def is_staged(name: str) -> bool:
    """Whether a volume has the new content of one of ours until it takes its place."""
    return name.startswith("meshd.staged") and PROJECT in name


def remove_volumes() -> None:
    names = docker("volume", "ls", "-q").split()
    mine = [name for name in names if PROJECT in name]
    if mine:
        subprocess.run(["docker", "volume", "rm", *mine], capture_output=True, check=False)


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    yield
    remove_volumes()


@pytest.fixture
async def runtime(clean: None) -> AsyncIterator[DockerRuntime]:
    async with docker_runtime(PROJECT) as ready:
        yield ready


async def read(runtime: DockerRuntime, name: str) -> bytes:
    return b"".join([chunk async for chunk in runtime.read_volume(name)])


async def pieces(data: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def archive(**files: bytes) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


async def test_a_restored_volume_has_the_same_files(
    runtime: DockerRuntime, engine_image: str
) -> None:
    other = f"{PROJECT}_other"
    docker("volume", "create", "--label", "mine=1", other)
    shell(VOLUME, FILL, engine_image)
    shell(other, "echo stale > /d/stale", engine_image)
    data = await read(runtime, VOLUME)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getnames()[0] == "."
        assert "./sub/f" in tar.getnames()

    assert not await runtime.is_volume_empty(other)
    await runtime.stage_volume(other, pieces(data))
    assert shell(other, "cat /d/stale", engine_image) == "stale"
    await runtime.commit_volume(other)
    assert shell(other, LIST, engine_image) == shell(VOLUME, LIST, engine_image)
    assert docker("volume", "inspect", "-f", "{{.Labels.mine}}", other) == "1"
    names = {volume.name for volume in await runtime.volumes()}
    assert {name for name in names if PROJECT in name} == {VOLUME, other}
    assert [n for n in docker("volume", "ls", "-q").split() if is_staged(n)] == []
    for volume in (VOLUME, other):
        assert docker("ps", "-aq", "--filter", f"label=meshd.volume={volume}") == ""


@pytest.mark.parametrize("kind", ["cut", "cut between files", "no tar", "client gone"])
async def test_an_incomplete_archive_changes_nothing(
    runtime: DockerRuntime, engine_image: str, kind: str
) -> None:
    shell(VOLUME, "echo old > /d/value", engine_image)
    whole = archive(value=b"new" * 1000, more=b"x")

    async def gone() -> AsyncIterator[bytes]:
        yield whole[:512]
        raise ConnectionResetError("gone")

    data = {
        "cut": pieces(whole[:1500]),
        "cut between files": pieces(whole[:3584]),
        "no tar": pieces(b"garbage " * 500),
        "client gone": gone(),
    }[kind]
    error = ConnectionResetError if kind == "client gone" else VolumeFailure
    with pytest.raises(error, match="gone" if kind == "client gone" else f"volume {VOLUME}"):
        await runtime.stage_volume(VOLUME, data)
    assert shell(VOLUME, "cat /d/value", engine_image) == "old"
    assert PROJECT not in "".join(
        n for n in docker("volume", "ls", "-q").split() if n.startswith("meshd.staged")
    )


async def test_a_volume_in_use_is_not_replaced(runtime: DockerRuntime, engine_image: str) -> None:
    shell(VOLUME, "echo old > /d/value", engine_image)
    user = docker(
        "run", "-d", "--network", "none", "-v", f"{VOLUME}:/d", engine_image, "sleep", "60"
    )
    try:
        await runtime.stage_volume(VOLUME, pieces(archive(value=b"new")))
        with pytest.raises(VolumeFailure, match="is in use by"):
            await runtime.commit_volume(VOLUME)
        with pytest.raises(VolumeFailure, match="is in use by"):
            await runtime.remove_volume(VOLUME)
    finally:
        docker("rm", "-f", user)
    await runtime.discard_staged(VOLUME)
    assert shell(VOLUME, "cat /d/value", engine_image) == "old"


async def test_an_interrupted_restore_is_completed_before_a_container_starts(
    runtime: DockerRuntime, engine_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy ends after a part of the files, as when the control process is killed."""
    shell(VOLUME, "echo old > /d/value", engine_image)
    await runtime.stage_volume(VOLUME, pieces(archive(value=b"new\n", more=b"x")))
    real = runtime._volumes._write

    async def killed(volume: str, name: str, _: AsyncIterator[bytes]) -> None:
        await real(volume, name, pieces(archive(value=b"half\n")))
        raise VolumeFailure("killed")

    with monkeypatch.context() as patch:
        patch.setattr(runtime._volumes, "_write", killed)
        with pytest.raises(VolumeFailure, match="killed"):
            await runtime.commit_volume(VOLUME)
    (volume,) = [each for each in await runtime.volumes() if each.name == VOLUME]
    assert volume.incomplete
    web = Service(
        name="web",
        image=engine_image,
        command=("sh", "-c", "cat /data/value; ls /data; sleep 60"),
        volumes=(Mount(type="volume", source="store", target="/data"),),
    )
    replica = replica_spec(PROJECT, "web-1", web)
    await runtime.prepare(PROJECT, web)
    await runtime.start(replica)

    async def printed() -> bool:
        return list(await runtime.logs(replica.name, 9)) == ["new", "more", "value"]

    await wait_until(printed)
    (volume,) = [each for each in await runtime.volumes() if each.name == VOLUME]
    assert not volume.incomplete


# Through the command line


def compose(image: str) -> str:
    script = SERVER.replace("\n", "\n        ")
    return f"""
name: {PROJECT}
services:
  web:
    image: {image}
    command:
      - python3
      - -c
      - |
        {script}
    volumes: ["store:/data"]
    stop_grace_period: 1s
    x-mesh:
      routes: [/]
      drain: 1s
      health: {{path: /, interval: 200ms}}
      parking: {{timeout: 60s}}
volumes: {{store: {{}}}}
"""


async def fetch(mesh: TestMesh, value: str | None = None) -> tuple[int, str]:
    timeout = aiohttp.ClientTimeout(total=90)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        method = "GET" if value is None else "PUT"
        async with session.request(method, f"http://{mesh.address}/", data=value) as answer:
            return answer.status, await answer.text()


async def ready(mesh: TestMesh) -> None:
    await mesh.until("web", lambda s: s["ready"] == 1 == len(s["replicas"]), 30)


@pytest.fixture
async def mesh(engine_image: str, clean: None) -> AsyncIterator[TestMesh]:
    async with scaled_mesh("docker") as mesh:
        done = await mesh.up(compose(engine_image))
        assert done.code == 0, done.out + done.err
        await ready(mesh)
        yield mesh


async def test_backup_and_restore_with_the_service_stopped(
    mesh: TestMesh, engine_image: str, tmp_path: Path
) -> None:
    assert await fetch(mesh, "first") == (200, "")
    listed = await mesh.run("volume", "ls")
    assert f"{VOLUME}" in listed.out
    assert "web" in listed.out
    file = tmp_path / "store.tar"
    statuses: list[int] = []
    done = asyncio.Event()

    async def request() -> None:
        while not done.is_set():
            statuses.append((await fetch(mesh))[0])

    requesting = asyncio.create_task(request())
    backed_up = await mesh.run("volume", "backup", "store", "-o", str(file))
    assert backed_up.code == 0, backed_up.err
    await ready(mesh)
    done.set()
    await requesting
    assert set(statuses) == {200}, "requests wait while the service is stopped"
    with tarfile.open(file) as tar:
        member = tar.extractfile("./value")
        assert member is not None
        assert member.read() == b"first"
    assert [f.name for f in tmp_path.iterdir()] == ["store.tar"]
    assert file.stat().st_mode & 0o777 == 0o600

    await fetch(mesh, "second")
    refused = await mesh.run("volume", "restore", "store", str(file))
    assert refused.code == 1
    assert "is not empty; --force" in refused.err
    compressed = tmp_path / "store.tar.gz"
    compressed.write_bytes(gzip.compress(file.read_bytes()))
    restored = await mesh.run("volume", "restore", f"{PROJECT}/store", str(compressed), "--force")
    assert restored.code == 0, restored.err
    assert await fetch(mesh) == (200, "first")

    compressed.write_bytes(compressed.read_bytes()[:-20])
    broken = await mesh.run("volume", "restore", "store", str(compressed), "--force")
    assert broken.code == 1
    assert "store.tar.gz cannot be read" in broken.err
    assert await fetch(mesh) == (200, "first")
    unknown = await mesh.run("volume", "backup", "stor", "-o", str(file))
    assert unknown.code == 1
    assert "there is no volume 'stor'" in unknown.err
    assert [e["text"].split(" by ")[0] for e in await events_of_kind(mesh, "volume.restore")] == [
        f"volume {VOLUME} restored"
    ]

    live = await mesh.run("volume", "backup", "store", "--live", "-o", str(file))
    assert live.code == 0
    user = docker(
        "run", "-d", "--network", "none", "-v", f"{VOLUME}:/d", engine_image, "sleep", "60"
    )
    try:
        other = await mesh.run("volume", "backup", "store", "-o", str(file))
        assert other.code == 1
        assert "which meshd does not manage; stop it first" in other.err
    finally:
        docker("rm", "-f", user)


@pytest.mark.parametrize("how", ["ctrl-c", "kill the command", "kill the control process"])
async def test_the_service_comes_back_after_an_interrupted_backup(
    mesh: TestMesh, engine_image: str, how: str
) -> None:
    assert await fetch(mesh, "first") == (200, "")
    shell(VOLUME, f"head -c {LARGE_BYTES} /dev/urandom > /d/large", engine_image)
    command = [sys.executable, "-m", "meshd", "volume", "backup", "store", "--state", mesh.state]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, limit=1000
    )
    assert process.stdout is not None
    await process.stdout.readexactly(512)  # the tar has begun, and is not read any further
    running = docker("ps", "-q", "--filter", f"volume={VOLUME}")
    assert running == "", "the service is stopped"
    if how == "kill the control process":
        mesh.kill(mesh.child("meshd.daemon"))
    else:
        process.send_signal(signal.SIGINT if how == "ctrl-c" else signal.SIGKILL)
    await process.communicate()
    assert process.returncode != 0
    await ready(mesh)
    assert await fetch(mesh) == (200, "first")
    helpers = ("ps", "-aq", "--filter", f"label=meshd.volume={VOLUME}")
    await wait_until(lambda: docker(*helpers) == "")


async def test_ctrl_c_during_a_restore_changes_nothing(mesh: TestMesh, engine_image: str) -> None:
    assert await fetch(mesh, "first") == (200, "")
    before = (await mesh.service("web"))["replicas"][0]["name"]
    command = [
        sys.executable, "-m", "meshd", "volume", "restore", "store", "--force",
        "--state", mesh.state,
    ]  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    process.stdin.write(archive(value=b"x" * 2_000_000)[:1_500_000])
    await process.stdin.drain()
    await wait_until(lambda: f"meshd.staged.{VOLUME}" in docker("volume", "ls", "-q").split(), 20)
    process.send_signal(signal.SIGINT)
    with contextlib.suppress(ConnectionError):
        await process.communicate()
    assert process.returncode != 0
    await wait_until(
        lambda: f"meshd.staged.{VOLUME}" not in docker("volume", "ls", "-q").split(), 20
    )
    assert await fetch(mesh) == (200, "first")
    assert (await mesh.service("web"))["replicas"][0]["name"] == before, "it was never stopped"


async def test_an_unused_volume_is_listed_and_deleted(mesh: TestMesh, engine_image: str) -> None:
    refused = await mesh.run("volume", "rm", "store", "--yes")
    assert refused.code == 1
    assert f"is used by {PROJECT}/web" in refused.err
    left = f"{PROJECT}_left"
    docker("volume", "create", "--label", f"mesh.project={PROJECT}", left)
    volumes = json.loads((await mesh.run("volume", "ls", "-o", "json")).out)
    states = {each["name"]: each["state"] for each in volumes if PROJECT in each["name"]}
    assert states == {VOLUME: "used", left: "unused"}
    asked = await mesh.run("volume", "rm", "left")
    assert asked.code == 1
    assert left in docker("volume", "ls", "-q").split()
    removed = await mesh.run("volume", "rm", "left", "--yes")
    assert removed.code == 0, removed.err
    assert left not in docker("volume", "ls", "-q").split()


async def test_a_volume_that_a_revision_does_not_mention_is_kept_and_named(
    mesh: TestMesh, engine_image: str
) -> None:
    changed = compose(engine_image).replace("store:/data", "new:/data")
    changed = changed.replace("volumes: {store: {}}", "volumes: {new: {}}")
    path = mesh.folder / "changed.yml"
    path.write_text(changed)
    line = f"volume {VOLUME} is used by no service any more and is kept"
    assert line in (await mesh.run("diff", "-f", str(path))).out
    done = await mesh.run("deploy", "-f", str(path))
    assert done.code == 0, done.err
    assert line in done.err
    assert VOLUME in docker("volume", "ls", "-q").split()

    asked = await mesh.run("down", "--volumes")
    assert asked.code == 1
    assert f"{PROJECT}_new (web)" in asked.err
    assert f"{VOLUME} (used by no service)" in asked.err
    assert (await mesh.service("web"))["ready"] == 1, "nothing was stopped"
    removed = await mesh.run("down", "--volumes", "--yes")
    assert removed.code == 0, removed.err
    assert f"{VOLUME}: deleted" in removed.out
    assert [n for n in docker("volume", "ls", "-q").split() if PROJECT in n] == []
