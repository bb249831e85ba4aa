"""Create, clone, inspect and discard containers on the engine.

Called by `runtime`, which decides; `container` builds the requests.
"""

import tarfile
from collections.abc import Iterable
from io import BytesIO

from aiodocker.containers import DockerContainer

from meshd.model.runtime import ReplicaSpec
from meshd.runtime.base import ImageMissing, ReplicaNotFound, StartFailed
from meshd.runtime.docker.container import CreateRequest, clone_request, next_number
from meshd.runtime.docker.engine import Engine, Info
from meshd.spec.model import Mount

START_PATIENCE = 60.0
"""Seconds that creating or starting a container may take."""


async def create(engine: Engine, name: str, wanted: CreateRequest, image: str = "") -> str:
    """Create a container and connect its networks; return its id. `image` is the user's name of
    its image."""
    used = wanted.config["Image"]
    named = used if image in ("", used) else f"{image} ({used})"
    absent = ImageMissing(f"replica {name}: image {named} is not on the engine")
    taken = StartFailed(f"a container named {name} already exists; remove it first")
    errors = {404: absent, 409: taken}
    async with engine.request(START_PATIENCE, errors, StartFailed) as docker:
        container = await docker.containers.create(wanted.config, name=name)
    try:
        if wanted.files:
            archive = pack_files(wanted.files)
            async with engine.request(START_PATIENCE, otherwise=StartFailed) as docker:
                await docker.containers.container(container.id).put_archive(  # type: ignore[no-untyped-call]
                    "/", archive
                )
        for network, endpoint in wanted.networks.items():
            async with engine.request(otherwise=StartFailed) as docker:
                found = await docker.networks.get(network)
                await found.connect({"Container": container.id, "EndpointConfig": endpoint})
    except StartFailed:
        await discard(engine, container.id)
        raise
    return container.id


def pack_files(files: Iterable[Mount]) -> bytes:
    """Return a tar of the files of a container, with their modes and owners."""
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for file in files:
            content = file.content.encode()
            entry = tarfile.TarInfo(file.target.lstrip("/"))
            entry.size, entry.mode = len(content), file.mode
            entry.uid, entry.gid = file.uid, file.gid
            tar.addfile(entry, BytesIO(content))
    return buffer.getvalue()


async def discard(engine: Engine, container: str) -> None:
    """Remove a container that could not be started; it may be gone already."""
    try:
        async with engine.request(errors={404: not_found(container)}) as docker:
            await docker.containers.container(container).delete(force=True, v=True)
    except ReplicaNotFound:
        return


async def build_clone_request(engine: Engine, replica: ReplicaSpec) -> CreateRequest:
    """Return the request that creates one more of the container that `replica` is a clone of."""
    original = await inspect(engine, str(replica.clone_of))
    async with engine.request() as docker:
        others = [labels(found) for found in await docker.containers.list(all=True)]
    marks = original["Config"].get("Labels") or {}
    return clone_request(original, replica.name, next_number(others, marks), replica.instance)


async def inspect(engine: Engine, container: str) -> Info:
    """Inspect a container. Raises ReplicaNotFound."""
    async with engine.request(errors={404: not_found(container)}) as docker:
        return await docker.containers.container(container).show()


def labels(container: DockerContainer) -> dict[str, str]:
    """Return the labels of a listed container."""
    marks: dict[str, str] = container["Labels"] or {}
    return marks


def not_found(name: str) -> ReplicaNotFound:
    """Return the error for a container that does not exist."""
    return ReplicaNotFound(f"no container {name} is on the engine")
