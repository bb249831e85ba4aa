"""Pulls from a real registry with authentication: credentials, progress, digests, rollback."""

import asyncio
import base64
import json
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from meshd.model.runtime import ImageProgress
from meshd.runtime.base import ImageMissing, StartFailed
from meshd.runtime.docker.runtime import DockerRuntime
from meshd.spec.model import Build, Service
from tests.fakes.replicas import docker, docker_runtime, replica_spec, unique_project
from tests.support.registry import (
    IDENTITY_TOKEN,
    PASSWORD,
    USER,
    TokenServer,
    htpasswd_auth,
    registry,
)

pytestmark = [pytest.mark.engine, pytest.mark.tool("docker-registry")]
PROJECT = unique_project("registry")
LAYER_BYTES = 3_000_000
AUTH = {"auth": base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}
FILES = "/bin/sh /bin/sleep /lib/*/libc.so.6 /lib*/ld-linux*"
"""What a shell needs, in the base image."""


def make_image(name: str, base: str, content: bytes, folder: Path) -> None:
    """Build a small image with a shell and a file that cannot be compressed."""
    (folder / "content").write_bytes(content)
    archive = folder / "root.tar"
    run = ["docker", "run", "--rm", "--network", "none", base, "sh", "-c", f"tar -chf - {FILES}"]
    with archive.open("wb") as file:
        subprocess.run(run, check=True, stdout=file)
    subprocess.run(["tar", "-rf", archive, "-C", folder, "content"], check=True)
    docker("import", "--change", 'CMD ["/bin/sh", "-c", "sleep 600"]', str(archive), name)


def remove(*images: str) -> None:
    """Remove images from the engine by name, as a prune does with those that nothing uses."""
    subprocess.run(["docker", "rmi", "-f", *images], capture_output=True, check=False)


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The storage of a registry with the image team/app, versions 1 and 2."""
    from tests.conftest import ENGINE_IMAGE

    folder = tmp_path_factory.mktemp("registry")
    with registry(folder / "storage") as address:
        for version in ("1", "2"):
            name = f"{address}/team/app:{version}"
            make_image(name, ENGINE_IMAGE, os.urandom(LAYER_BYTES), folder)
            docker("push", name)
            remove(name)
    return folder / "storage"


@pytest.fixture
def private(storage: Path, tmp_path: Path) -> Iterator[str]:
    """The address of a registry that asks for a password."""
    with registry(storage, htpasswd_auth(tmp_path)) as address:
        yield address


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return tmp_path / "config.json"


@pytest.fixture
async def runtime(cleanup: list[str]) -> AsyncIterator[DockerRuntime]:
    async with docker_runtime(PROJECT) as ready:
        yield ready


@pytest.fixture
def cleanup() -> Iterator[list[str]]:
    """References of repositories whose images are removed afterwards."""
    repositories: list[str] = []
    yield repositories
    for repository in reversed(repositories):
        names = docker("images", "--format", "{{.ID}}", repository).split()
        if names:
            remove(*dict.fromkeys(names))


async def test_a_login_is_used_and_a_missing_one_is_reported(
    runtime: DockerRuntime, private: str, config: Path, cleanup: list[str]
) -> None:
    image = f"{private}/team/app:1"
    cleanup.append(f"{private}/team/app")
    web = Service(name="web", image=image)
    with pytest.raises(ImageMissing, match=f"service web: image {image} .*no basic auth cred"):
        await runtime.prepare(PROJECT, web)
    assert "cannot be pulled" in str(await runtime.unobtainable_reason(PROJECT, web))

    wrong = {"auth": base64.b64encode(b"ada:wrong").decode()}
    config.write_text(json.dumps({"auths": {private: wrong}}))
    with pytest.raises(ImageMissing, match="unauthorized"):
        await runtime.prepare(PROJECT, web)

    for key in (private, f"https://{private}", f"http://{private}/v1/"):
        config.write_text(json.dumps({"auths": {key: AUTH}}))
        assert await runtime.unobtainable_reason(PROJECT, web) is None
        await runtime.prepare(PROJECT, web)
        remove(image)


async def test_a_helper_gives_the_login(
    runtime: DockerRuntime,
    private: str,
    config: Path,
    cleanup: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = f"{private}/team/app:1"
    cleanup.append(f"{private}/team/app")
    helper = config.with_name("docker-credential-safe")
    helper.write_text(f'#!/bin/sh\necho \'{{"Username": "{USER}", "Secret": "{PASSWORD}"}}\'\n')
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{helper.parent}:{os.environ['PATH']}")
    web = Service(name="web", image=image)
    config.write_text(json.dumps({"credHelpers": {private: "gone"}, "credsStore": "safe"}))
    with pytest.raises(ImageMissing, match=f"docker-credential-gone.* names for {private}, cannot"):
        await runtime.prepare(PROJECT, web)
    config.write_text(json.dumps({"credHelpers": {private: "safe"}, "credsStore": "gone"}))
    await runtime.prepare(PROJECT, web)


async def test_a_missing_helper_does_not_stop_a_public_pull(
    runtime: DockerRuntime, storage: Path, config: Path, cleanup: list[str]
) -> None:
    config.write_text(json.dumps({"credsStore": "gone"}))
    with registry(storage) as public:
        cleanup.append(f"{public}/team/app")
        web = Service(name="web", image=f"{public}/team/app:1")
        await runtime.prepare(PROJECT, web)
        lost = Service(name="web", image=f"{public}/team/app:3")
        with pytest.raises(ImageMissing, match=r"not found.*docker-credential-gone"):
            await runtime.prepare(PROJECT, lost)


@pytest.mark.parametrize(
    ("entry", "used"),
    [
        (AUTH, "password"),
        (
            {"auth": base64.b64encode(b"00000000:").decode(), "identitytoken": IDENTITY_TOKEN},
            "identity token",
        ),
    ],
    ids=["password", "identity-token"],
)
async def test_a_token_server_gets_the_login(
    runtime: DockerRuntime,
    storage: Path,
    tmp_path: Path,
    config: Path,
    cleanup: list[str],
    entry: dict[str, str],
    used: str,
) -> None:
    async with TokenServer(tmp_path) as tokens:
        with registry(storage, tokens.auth()) as address:
            cleanup.append(f"{address}/team/app")
            web = Service(name="web", image=f"{address}/team/app:1")
            with pytest.raises(ImageMissing, match=r"denied|unauthorized"):
                await runtime.prepare(PROJECT, web)
            tokens.requests.clear()
            config.write_text(json.dumps({"auths": {f"https://{address}": entry}}))
            await runtime.prepare(PROJECT, web)
            assert set(tokens.requests) == {used}


async def test_a_pull_reports_its_progress(
    runtime: DockerRuntime, private: str, config: Path, cleanup: list[str]
) -> None:
    image = f"{private}/team/app:1"
    cleanup.append(f"{private}/team/app")
    config.write_text(json.dumps({"auths": {private: AUTH}}))
    pulling = asyncio.create_task(runtime.resolve([Service(name="web", image=image)], fetch=True))
    seen: list[ImageProgress] = []
    while not pulling.done():
        seen += runtime.image_progress()
        await asyncio.sleep(0)
    await pulling
    assert {(each.image, each.service, each.action) for each in seen} == {(image, "web", "pull")}
    assert seen[-1].detail in ("0 of 1 layers", "1 of 1 layers")
    assert LAYER_BYTES < seen[-1].total < 3 * LAYER_BYTES
    assert seen[-1].current == seen[-1].total
    assert runtime.image_progress() == []


async def test_an_image_by_digest_and_a_rollback_survive_the_removal_of_images(
    runtime: DockerRuntime, private: str, config: Path, cleanup: list[str]
) -> None:
    repository = f"{private}/team/app"
    cleanup.append(repository)
    config.write_text(json.dumps({"auths": {private: AUTH}}))
    (first,) = await runtime.resolve([Service(name="web", image=f"{repository}:1")], fetch=True)
    (second,) = await runtime.resolve([Service(name="web", image=f"{repository}:2")], fetch=True)
    assert first.image_digest.startswith("sha256:")
    assert first.image_digest != second.image_digest
    for service in (first, second):
        await runtime.prepare(PROJECT, service)
    remove(*docker("images", "--format", "{{.ID}}", repository).split())
    assert docker("images", "-q", repository) == ""

    await runtime.prepare(PROJECT, first)
    started = await runtime.start(replica_spec(PROJECT, "first", first))
    assert docker("inspect", "-f", "{{.Image}}", started.name) == f"sha256:{first.image_id}"

    by_digest = f"{repository}:9@{second.image_digest}"
    (fixed,) = await runtime.resolve([Service(name="web", image=by_digest)], fetch=True)
    await runtime.prepare(PROJECT, fixed)
    started = await runtime.start(replica_spec(PROJECT, "fixed", fixed))
    assert docker("inspect", "-f", "{{.Image}}", started.name) == f"sha256:{second.image_id}"


async def test_a_build_from_a_private_base_uses_the_login(
    runtime: DockerRuntime, private: str, config: Path, cleanup: list[str], tmp_path: Path
) -> None:
    cleanup += [f"{private}/team/app", f"{PROJECT}_web"]
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(f"FROM {private}/team/app:1\nENV NEW=1\n")
    web = Service(name="web", build=Build(context=str(context)))
    with pytest.raises(StartFailed, match="no basic auth credentials"):
        await runtime.prepare(PROJECT, web)
    config.write_text(json.dumps({"auths": {private: AUTH}}))
    await runtime.prepare(PROJECT, web)
