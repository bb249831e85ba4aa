"""The progress of a pull, and the calls that the engine gets, recorded by a stub of it."""

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from meshd.runtime.base import ImageMissing
from meshd.runtime.docker.engine import Engine
from meshd.runtime.docker.images.image import Images, is_for_platform
from meshd.runtime.docker.images.pull import PullProgress
from meshd.spec.model import EngineOptions, Service

LOGIN = {"auth": base64.b64encode(b"ada:secret").decode()}
HUB_LOGIN = {"auths": {"https://index.docker.io/v1/": LOGIN}}
DIGEST = "sha256:" + "c" * 64


class StubEngine:
    """An engine that has the images in `present`, and answers a pull with `messages`."""

    def __init__(self) -> None:
        self.present: dict[str, list[str]] = {}
        self.messages: list[dict[str, object]] = [{"status": "ok"}]
        self.pulls: list[tuple[str, str, dict[str, str] | None]] = []
        self.platforms: list[str] = []

    async def version(self, _: web.Request) -> web.Response:
        return web.json_response({"ApiVersion": "1.44", "MinAPIVersion": "1.24"})

    async def inspect(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in self.present:
            return web.json_response({"message": "no such image"}, status=404)
        return web.json_response(
            {
                "Id": "sha256:" + "b" * 64,
                "RepoDigests": self.present[name],
                "Config": {"Labels": None},
            }
        )

    async def create(self, request: web.Request) -> web.Response:
        header = request.headers.get("X-Registry-Auth")
        login = json.loads(base64.urlsafe_b64decode(header)) if header else None
        self.platforms.append(request.query.get("platform", ""))
        self.pulls.append((request.query["fromImage"], request.query["tag"], login))
        return web.Response(text="\n".join(map(json.dumps, self.messages)))


@pytest.fixture
async def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StubEngine]:
    engine = StubEngine()
    app = web.Application()
    app.router.add_get("/version", engine.version)
    app.router.add_get("/{version}/images/{name:.+}/json", engine.inspect)
    app.router.add_post("/{version}/images/create", engine.create)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "engine.sock")).start()
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/engine.sock")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    yield engine
    await runner.cleanup()


@pytest.fixture
async def images(stub: StubEngine) -> AsyncIterator[Images]:
    engine = Engine()
    await engine.open()
    yield Images(engine)
    await engine.close()


@pytest.mark.parametrize(
    ("image", "asked"),
    [
        ("postgres:16", ("postgres", "16")),
        ("docker.io/library/postgres", ("postgres", "latest")),
        (f"team/app:1@{DIGEST}", ("team/app", DIGEST)),
    ],
)
async def test_the_login_of_docker_hub_is_used_for_short_names(
    stub: StubEngine, images: Images, tmp_path: Path, image: str, asked: tuple[str, str]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(HUB_LOGIN))
    await images.ensure("shop", Service(name="db", image=image))
    ((repository, tag, login),) = stub.pulls
    assert (repository, tag) == asked
    assert login == {
        "username": "ada",
        "password": "secret",
        "serveraddress": "https://index.docker.io/v1/",
    }


async def test_an_image_without_a_login_is_pulled_without_one(
    stub: StubEngine, images: Images
) -> None:
    await images.ensure("shop", Service(name="web", image="ghcr.io/a/b"))
    assert stub.pulls == [("ghcr.io/a/b", "latest", None)]


@pytest.mark.parametrize(
    ("image", "listed"),
    [
        ("docker.io/valkey/valkey:8", "valkey/valkey"),
        ("library/postgres:15", "postgres"),
        ("docker.io/postgres:15", "postgres"),
        ("postgres:15", "docker.io/library/postgres"),
        ("ghcr.io/a/b:1", "ghcr.io/a/b"),
    ],
)
async def test_the_digest_is_found_under_every_name(
    stub: StubEngine, images: Images, image: str, listed: str
) -> None:
    stub.present[image] = [f"other/{listed}@sha256:{'d' * 64}", f"{listed}@{DIGEST}"]
    pinned = await images.pin(Service(name="db", image=image), fetch=False)
    assert pinned.image_digest == DIGEST


@pytest.mark.parametrize(
    "message", [{"error": "denied"}, {"errorDetail": {"message": "denied"}, "error": "denied"}]
)
async def test_a_failed_pull_has_the_reason_of_the_registry(
    stub: StubEngine, images: Images, message: dict[str, object]
) -> None:
    stub.messages = [{"status": "Pulling"}, message]
    with pytest.raises(ImageMissing, match=r"service web: image a is not .*failed: denied$"):
        await images.ensure("shop", Service(name="web", image="a"))


def test_progress_counts_layers_and_bytes() -> None:
    pull = PullProgress("a", "web", 0.0)
    assert (pull.detail, pull.received, pull.sizes) == ("", {}, {})
    for message in (
        {"status": "Pulling from library/a", "id": "latest"},
        {"status": "Already exists", "id": "base"},
        {"status": "Pulling fs layer", "id": "one"},
        {"status": "Pulling fs layer", "id": "two"},
        {"status": "Downloading", "id": "one", "progressDetail": {"current": 10, "total": 100}},
        {"status": "Downloading", "id": "two", "progressDetail": {"current": 5, "total": -1}},
        {"status": "Downloading", "id": "one", "progressDetail": {"current": 60, "total": 100}},
    ):
        pull.add(message)
    assert (pull.detail, pull.received, pull.sizes) == ("1 of 3 layers", {"one": 60}, {"one": 100})
    for message in (
        {"status": "Download complete", "id": "one", "progressDetail": {}},
        {"status": "Extracting", "id": "one", "progressDetail": {"current": 1, "total": 7}},
        {"status": "Pull complete", "id": "one"},
        {"status": "Digest: sha256:1"},
    ):
        pull.add(message)
    assert (pull.detail, pull.received, pull.sizes) == ("2 of 3 layers", {"one": 100}, {"one": 100})


@pytest.mark.parametrize(
    ("platform", "fits"),
    [
        ("", True),
        ("linux", True),
        ("linux/ARM", True),
        ("linux/arm/v7", True),
        ("linux/arm/v6", False),
        ("linux/amd64", False),
    ],
)
def test_the_platform_of_an_image(platform: str, fits: bool) -> None:
    image = {"Os": "linux", "Architecture": "arm", "Variant": "v7"}
    assert is_for_platform(image, platform) == fits


async def test_an_image_of_another_platform_is_pulled(stub: StubEngine, images: Images) -> None:
    stub.present["app"] = []
    options = EngineOptions(platform="linux/arm64")
    await images.pin(Service(name="web", image="app", options=options), fetch=True)
    assert stub.pulls == [("app", "latest", None)]
    assert stub.platforms == ["linux/arm64"]
