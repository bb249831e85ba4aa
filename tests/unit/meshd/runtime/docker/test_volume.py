"""What a tar shows while it passes: its first entry, and whether it is complete. What a cancelled
transfer leaves."""

import asyncio
import io
import tarfile
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from meshd.runtime.docker.engine import Engine
from meshd.runtime.docker.volume import TarStream, Volumes


def archive(*entries: tuple[str, bytes], kind: int = tarfile.PAX_FORMAT) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=kind) as tar:
        for name, content in entries:
            entry = tarfile.TarInfo(name)
            if name.endswith("/"):
                entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, 0o750, 999, 998
            entry.mtime = 1.5
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def passed(data: bytes, size: int = 700) -> TarStream:
    tar = TarStream()
    for start in range(0, len(data), size):
        tar.add(data[start : start + size])
    return tar


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("size", [1, 512, 700, 100_000])
def test_the_directory_itself_comes_first(kind: int, size: int) -> None:
    tar = passed(archive(("./", b""), ("./file", b"x" * 600), kind=kind), size)
    assert tar.is_complete
    assert tar.has_content
    root = tar.root
    assert root is not None
    assert (root.mode, root.uid, root.gid) == (0o750, 999, 998)


def test_a_tar_of_files_alone_has_no_entry_of_the_directory() -> None:
    tar = passed(archive(("value", b"x"), ("./", b"")))
    assert tar.root is None
    assert tar.has_content


def test_an_empty_directory_has_no_content() -> None:
    assert not passed(archive(("./", b""))).has_content
    assert not passed(archive(("./", b""), ("./lost+found/", b""))).has_content


@pytest.mark.parametrize(
    "data",
    [b"", b"garbage" * 300, archive(("a", b"x" * 600))[:1000], archive(("a", b"x" * 512))[:1024]],
)
def test_an_incomplete_tar_is_seen(data: bytes) -> None:
    tar = passed(data)
    assert not tar.is_complete
    assert tar.root is None


class SlowEngine:
    """An engine that creates a volume when it may, also if its client has gone by then."""

    def __init__(self) -> None:
        self.volumes: set[str] = set()
        self.asked, self.may, self.created = (asyncio.Event() for _ in range(3))

    async def version(self, _: web.Request) -> web.Response:
        return web.json_response({"ApiVersion": "1.47", "MinAPIVersion": "1.24"})

    async def create(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.asked.set()
        await asyncio.shield(asyncio.create_task(self._add(body["Name"])))
        return web.json_response(body, status=201)

    async def _add(self, name: str) -> None:
        await self.may.wait()
        self.volumes.add(name)
        self.created.set()

    async def inspect(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        known = name in self.volumes
        return web.json_response({"Name": name}, status=200 if known else 404)

    async def list_containers(self, _: web.Request) -> web.Response:
        return web.json_response([])

    async def delete(self, request: web.Request) -> web.Response:
        self.volumes.remove(request.match_info["name"])
        return web.Response(status=204)


@pytest.fixture
async def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SlowEngine]:
    slow = SlowEngine()
    app = web.Application()
    app.router.add_get("/version", slow.version)
    app.router.add_post("/{version}/volumes/create", slow.create)
    app.router.add_get("/{version}/volumes/{name}", slow.inspect)
    app.router.add_delete("/{version}/volumes/{name}", slow.delete)
    app.router.add_get("/{version}/containers/json", slow.list_containers)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "engine.sock")).start()
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/engine.sock")
    yield slow
    await runner.cleanup()


async def nothing() -> AsyncIterator[bytes]:
    yield b""


@pytest.mark.parametrize(
    "begin",
    [
        lambda volumes: volumes.stage("store", nothing()),
        lambda volumes: volumes.receive("store", {}, nothing()),
    ],
    ids=["stage", "receive"],
)
async def test_a_transfer_that_is_cancelled_at_once_leaves_no_volume(
    slow: SlowEngine, begin: Callable[[Volumes], Coroutine[Any, Any, None]]
) -> None:
    engine = Engine()
    await engine.open()
    try:
        transfer = asyncio.create_task(begin(Volumes(engine)))
        await slow.asked.wait()
        transfer.cancel()
        await asyncio.wait([transfer], timeout=0.1)
        slow.may.set()
        with pytest.raises(asyncio.CancelledError):
            await transfer
        await slow.created.wait()
        assert slow.volumes == set()
    finally:
        await engine.close()
