"""Images that exist, are missing, or are built; and the runtime that `auto` selects for them."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from meshd.publish.compile import NO_PEERS
from meshd.runtime.base import ImageMissing, StartFailed
from meshd.runtime.docker.runtime import DockerRuntime
from meshd.runtime.select import choose
from meshd.runtime.select import make_runtime as runtime_of
from meshd.spec.fingerprint import compute_revision
from meshd.spec.model import Build, Project, Service
from tests.fakes.replicas import docker, docker_runtime, replica_spec, unique_project
from tests.support.mesh import TestMesh
from tests.support.waiting import wait_until

pytestmark = pytest.mark.engine
PROJECT = unique_project("image")
MISSING = "no-registry.invalid/nothing:1"


@pytest.fixture
async def runtime() -> AsyncIterator[DockerRuntime]:
    async with docker_runtime(PROJECT) as ready:
        yield ready


@pytest.fixture
def context(tmp_path: Path, engine_image: str) -> Path:
    (tmp_path / "Dockerfile").write_text(
        "ARG BASE=nowhere.invalid/x\nFROM ${BASE} AS first\nCOPY . /app\n"
        'FROM first\nCMD ["sh", "-c", "ls /app; cat /app/greeting; sleep 600"]\n'
    )
    (tmp_path / "greeting").write_text("hello\n")
    (tmp_path / ".dockerignore").write_text("# not these\n*.log\nvenv\n!keep.log\n")
    (tmp_path / "a.log").write_text("x")
    (tmp_path / "keep.log").write_text("x")
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / "big").write_text("x")
    return tmp_path


def built(context: Path, base: str, **fields: object) -> Service:
    build = Build(context=str(context), args={"BASE": base}, **fields)  # type: ignore[arg-type]
    return Service(name="built", build=build)


async def test_missing_image_is_named(runtime: DockerRuntime) -> None:
    lost = Service(name="lost", image=MISSING)
    with pytest.raises(ImageMissing, match=rf"service lost: image {MISSING}"):
        await runtime.prepare(PROJECT, lost)
    with pytest.raises(ImageMissing, match=MISSING):
        await runtime.start(replica_spec(PROJECT, "lost-1", lost))
    held = lost.model_copy(update={"image_id": "0" * 64})
    with pytest.raises(ImageMissing, match=rf"{MISSING} \(no-registry.invalid/nothing:meshd-0"):
        await runtime.start(replica_spec(PROJECT, "lost-2", held))


async def test_diff_names_an_image_that_cannot_be_had(tmp_path: Path, engine_image: str) -> None:
    form = (
        "name: {project}\nservices:\n  box:\n    image: {image}\n    command: [sleep, '600']\n"
        "    init: true\n"
    )
    mesh = TestMesh(tmp_path, "docker")
    try:
        done = await mesh.up(form.format(project=PROJECT, image=engine_image))
        assert done.code == 0, done.out + done.err
        changed = tmp_path / "changed.yml"
        changed.write_text(form.format(project=PROJECT, image=MISSING))
        diff = await mesh.run("diff", "-f", str(changed))
        shown = diff.out + diff.err
        assert diff.code == 2, shown
        assert f"would be rejected: service box: image {MISSING} is not on the engine" in shown
        changed.write_text(form.format(project=PROJECT, image=engine_image))
        assert (await mesh.run("diff", "-f", str(changed))).code == 0
    finally:
        await mesh.end()


async def test_a_deployment_pins_the_image_of_a_name(
    runtime: DockerRuntime, engine_image: str
) -> None:
    name = f"{PROJECT}-app:latest"
    docker("tag", engine_image, name)
    asked = Service(name="web", image=name, command=("sleep", "600"), pull="never")
    try:
        (old,) = await runtime.resolve((asked,), fetch=True)
        assert old.image_id == docker("image", "inspect", "--format", "{{.Id}}", name)[7:]
        assert (await runtime.resolve((asked,)))[0] == old
        holder = docker("create", engine_image, "true")
        docker("commit", "--change", "ENV NEW=1", holder, name)
        docker("rm", holder)
        (new,) = await runtime.resolve((asked,))
        assert compute_revision(new) != compute_revision(old)

        for service, env in ((old, False), (new, True)):
            await runtime.prepare(PROJECT, service)
            started = await runtime.start(
                replica_spec(PROJECT, f"{PROJECT}-{env}".lower(), service)
            )
            environment_of = docker("inspect", "--format", "{{.Config.Env}}", started.name)
            assert ("NEW=1" in environment_of) == env

        lost = old.model_copy(update={"image_id": "0" * 64})
        with pytest.raises(ImageMissing, match="is no longer on the engine; deploy it again"):
            await runtime.prepare(PROJECT, lost)
        nowhere = Service(name="web", image=MISSING, pull="never")
        with pytest.raises(ImageMissing, match="pull_policy: never forbids pulling it"):
            await runtime.resolve((nowhere,), fetch=True)
        assert (await runtime.resolve((nowhere,))) == [nowhere]
        again = asked.model_copy(update={"image": MISSING, "pull": "always"})
        with pytest.raises(ImageMissing, match="pulling it failed"):
            await runtime.resolve((again,), fetch=True)
    finally:
        left = docker("images", "-q", "--no-trunc", f"{PROJECT}-app").split()
        own = docker("images", "--format", "{{.Repository}}:{{.Tag}}", f"{PROJECT}-app").split()
        ends = docker("ps", "-aq", "--filter", f"label=mesh.project={PROJECT}").split()
        if ends:
            docker("rm", "-f", *ends)
        if left:
            docker("rmi", *own)


async def test_the_context_is_built_again_only_if_it_changed(
    runtime: DockerRuntime, context: Path, engine_image: str
) -> None:
    web = built(context, engine_image)
    image = f"{PROJECT}_built"
    ids = []
    try:
        await runtime.prepare(PROJECT, web)
        first = docker("image", "inspect", "-f", "{{.Id}}", image)
        ids.append(first)
        replica = replica_spec(PROJECT, "built-1", web)
        await runtime.start(replica)

        async def said() -> bool:
            return len(await runtime.logs(replica.name, 10)) == 4

        await wait_until(said)
        lines = list(await runtime.logs(replica.name, 10))
        assert lines == ["Dockerfile", "greeting", "keep.log", "hello"]
        began = time.monotonic()
        await runtime.prepare(PROJECT, web)
        print(f"nothing to build: {time.monotonic() - began:.3f} s")
        assert docker("image", "inspect", "-f", "{{.Id}}", image) == first
        (context / "greeting").write_text("good evening\n")
        await runtime.prepare(PROJECT, web)
        assert docker("image", "inspect", "-f", "{{.Id}}", image) != first
    finally:
        docker("rm", "-f", f"{PROJECT}-built-1")
        docker("rmi", "-f", image, *ids)


async def test_target_ends_the_build_at_its_stage(
    runtime: DockerRuntime, context: Path, engine_image: str
) -> None:
    image = f"{PROJECT}_built"
    try:
        await runtime.prepare(PROJECT, built(context, engine_image, target="first"))
        first = docker("image", "inspect", "-f", "{{json .Config}}", image)
        assert "greeting" not in first
        assert '"meshd.build"' in first
    finally:
        docker("rmi", "-f", image)


async def test_the_ports_of_a_built_image_are_known_before_it_is_built(
    runtime: DockerRuntime, context: Path, engine_image: str
) -> None:
    base = f"{PROJECT}-base"
    (context / "Dockerfile").write_text(f"FROM {engine_image}\nEXPOSE 4000 53/udp\n")
    docker("build", "-t", base, str(context))
    try:
        (context / "Dockerfile").write_text(f"FROM {base}\nEXPOSE 3000\n")
        (pinned,) = await runtime.resolve([built(context, base)])
        assert pinned.image_ports == (3000, 4000)
        assert pinned.port == 3000
        plain = built(context, base).model_copy(update={"plain": True})
        assert (await runtime.resolve([plain]))[0].image_ports == ()
        (context / "Dockerfile").unlink()
    finally:
        docker("rmi", "-f", base)


async def test_failing_build_shows_its_step(
    runtime: DockerRuntime, context: Path, engine_image: str
) -> None:
    (context / "Dockerfile").write_text(f"FROM {engine_image}\nRUN echo broken step; false\n")
    with pytest.raises(StartFailed, match=r"service built: building .*\n(.|\n)*broken step"):
        await runtime.prepare(PROJECT, built(context, engine_image))
    with pytest.raises(StartFailed, match="context cannot be read"):
        await runtime.prepare(PROJECT, built(context, engine_image, dockerfile="Other"))


@pytest.mark.parametrize("base", ["there", "missing"])
async def test_auto_takes_docker_if_every_image_is_available(
    context: Path, engine_image: str, base: str
) -> None:
    there = base == "there"
    services = (
        Service(name="plain", image=engine_image),
        built(context, engine_image if there else MISSING),
    )
    choice = await choose("auto", [Project(name=PROJECT, services=services)])
    print(choice.reason)
    assert choice.name == ("docker" if there else "process")
    assert "\n" not in choice.reason
    assert there or MISSING in choice.reason
    made = runtime_of(choice.name, context, None, lambda: NO_PEERS, lambda _: None)
    assert made.name == choice.name


async def test_auto_without_an_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    choice = await choose("auto", [])
    print(choice.reason)
    assert choice.name == "process"
    assert "none.sock" in choice.reason
    assert (await choose("docker", [])).name == "docker"
