"""Copying images between engines (stubs): what is not copied, and what a failure says."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from meshd.runtime.base import ImageMissing, RuntimeFailure
from meshd.runtime.swarm.setup.hosts import Host, open_hosts
from meshd.runtime.swarm.setup.images import copy_image

NO_SPACE = b'{"errorDetail":{"message":"x"},"error":"no space left on device"}\r\n'
ARCHIVE = bytes(range(256)) * 4096


class ImageEngine:
    """An engine with images, by name. `answer`: what it says to a load; empty: success."""

    def __init__(self, images: dict[str, str], machine: str = "amd64", answer: bytes = b"") -> None:
        self.images, self.machine, self.answer = images, machine, answer
        self.loaded = b""

    async def version(self, _: web.Request) -> web.Response:
        return web.json_response({"ApiVersion": "1.41", "Os": "linux", "Arch": self.machine})

    async def inspect(self, request: web.Request) -> web.Response:
        found = self.images.get(request.match_info["name"])
        if found is None:
            return web.json_response({"message": "no such image"}, status=404)
        return web.json_response({"Id": found, "Os": "linux", "Architecture": "amd64"})

    async def save(self, request: web.Request) -> web.Response:
        if self.answer:
            return web.json_response({"message": "layer is damaged"}, status=500)
        assert request.query["names"] == "shop/web:1"
        return web.Response(body=ARCHIVE)

    async def load(self, request: web.Request) -> web.Response:
        self.loaded = await request.read()
        if not self.answer:
            self.images["shop/web:1"] = "sha256:1"
        return web.Response(body=self.answer or b'{"stream":"Loaded image: shop/web:1"}\r\n')


@asynccontextmanager
async def running(folder: Path, *engines: ImageEngine) -> AsyncIterator[Sequence[Host]]:
    """Yield the engines as hosts, named by their sockets."""
    runners, names = [], []
    try:
        for number, engine in enumerate(engines):
            app = web.Application(client_max_size=2**24)
            app.router.add_get("/version", engine.version)
            app.router.add_get("/{api}/version", engine.version)
            app.router.add_get("/{api}/images/get", engine.save)
            app.router.add_get("/{api}/images/{name:.*}/json", engine.inspect)
            app.router.add_post("/{api}/images/load", engine.load)
            runner = web.AppRunner(app)
            await runner.setup()
            runners.append(runner)
            await web.UnixSite(runner, str(folder / f"{number}.sock")).start()
            names.append(f"unix://{folder}/{number}.sock")
        async with open_hosts(names) as hosts:
            yield hosts
    finally:
        for runner in runners:
            await runner.cleanup()


async def test_an_image_is_copied_once(tmp_path: Path) -> None:
    target = ImageEngine({"shop/web:1": "sha256:0"})
    sent: list[int] = []
    async with running(tmp_path, ImageEngine({"shop/web:1": "sha256:1"}), target) as (a, b):
        assert await copy_image(a, b, "shop/web:1", sent.append)
        assert target.loaded == ARCHIVE
        assert sent == sorted(sent)
        assert sent[-1] == len(ARCHIVE)
        assert not await copy_image(a, b, "shop/web:1", sent.append)


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        (ImageEngine({}), ImageEngine({}), r"0\.sock has no image shop/web:1; pull or build"),
        (
            ImageEngine({"shop/web:1": "sha256:1"}),
            ImageEngine({}, machine="arm64"),
            r"image shop/web:1 is for linux/amd64, and unix:.*1\.sock is linux/arm64",
        ),
        (
            ImageEngine({"shop/web:1": "sha256:1"}),
            ImageEngine({}, answer=NO_SPACE),
            r"1\.sock: no space left on device",
        ),
        (
            ImageEngine({"shop/web:1": "sha256:1"}, answer=b"-"),
            ImageEngine({}),
            r"0\.sock: layer is damaged",
        ),
        (
            ImageEngine({"shop/web:1": "sha256:1"}),
            ImageEngine({}, answer=b'{"stream":"Loaded image: other"}'),
            r"1\.sock did not keep image shop/web:1",
        ),
    ],
)
async def test_a_failure_is_told(
    tmp_path: Path, source: ImageEngine, target: ImageEngine, expected: str
) -> None:
    async with running(tmp_path, source, target) as (a, b):
        with pytest.raises((RuntimeFailure, ImageMissing), match=expected):
            await copy_image(a, b, "shop/web:1", lambda _: None)
