"""Create, clone, inspect and discard containers on the engine.

Called by `runtime`, which decides; `container` builds the requests.
"""

import contextlib
import json
import tarfile
from collections.abc import Collection, Iterable
from io import BytesIO

from aiodocker.containers import DockerContainer

from meshd.model.runtime import ReplicaSpec
from meshd.runtime.base import ImageMissing, ReplicaNotFound, StartFailed
from meshd.runtime.docker.container import CreateRequest, clone_request, next_number
from meshd.runtime.docker.engine import PATIENCE, Engine, Info
from meshd.runtime.docker.observe import PEER_ADDRESSES
from meshd.spec import labels as spec_labels
from meshd.spec.model import Mount

START_PATIENCE = 60.0
"""Seconds that creating or starting a container may take."""


async def create(engine: Engine, name: str, wanted: CreateRequest, image: str = "") -> str:
    """Create a container and connect its networks; return its id. `name` is that of the replica,
    `image` the user's name of its image."""
    used = wanted.config["Image"]
    named = used if image in ("", used) else f"{image} ({used})"
    absent = ImageMissing(f"replica {name}: image {named} is not on the engine")
    given = wanted.name or name
    taken = StartFailed(f"a container named {given} already exists; remove it first")
    if wanted.name:
        await _free_name(engine, wanted, taken)
    params = {"name": given} | ({"platform": wanted.platform} if wanted.platform else {})
    async with engine.request(START_PATIENCE, {404: absent, 409: taken}, StartFailed) as docker:
        api = engine.version_for(wanted.api)
        created = await docker._query_json(
            f"{api}/containers/create",
            method="POST",
            data=json.dumps(wanted.config, sort_keys=True),
            params=params,
            versioned_api=False,
        )
    container = str(created["Id"])
    try:
        if wanted.files:
            archive = pack_files(wanted.files)
            async with engine.request(START_PATIENCE, otherwise=StartFailed) as docker:
                await docker.containers.container(container).put_archive(  # type: ignore[no-untyped-call]
                    "/", archive
                )
        for network, endpoint in wanted.networks.items():
            async with engine.request(otherwise=StartFailed) as docker:
                await docker._query_json(
                    f"{api}/networks/{network}/connect",
                    method="POST",
                    data=json.dumps({"Container": container, "EndpointConfig": endpoint}),
                    versioned_api=False,
                )
    except StartFailed:
        await discard(engine, container)
        raise
    return container


async def _free_name(engine: Engine, wanted: CreateRequest, taken: StartFailed) -> None:
    """Rename the container with the wanted name if it is a predecessor of the same service, to the
    name of its replica. Raises `taken` if it is another one."""
    try:
        found = await inspect(engine, wanted.name)
    except ReplicaNotFound:
        return
    marks, own = found["Config"].get("Labels") or {}, wanted.config["Labels"]
    keys = (spec_labels.MANAGED, spec_labels.PROJECT, spec_labels.SERVICE)
    if any(marks.get(key) != own[key] for key in keys):
        raise taken
    async with engine.request(
        errors={404: not_found(wanted.name)}, otherwise=StartFailed
    ) as docker:
        container = docker.containers.container(found["Id"])
        await container.rename(marks[spec_labels.REPLICA])


async def find_peers(engine: Engine, project: str, services: Collection[str]) -> dict[str, str]:
    """Return the id of the newest running container of each of these services, if it has one."""
    filters = {"label": [f"{spec_labels.MANAGED}=1", f"{spec_labels.PROJECT}={project}"]}
    async with engine.request(otherwise=StartFailed) as docker:
        listed = await docker.containers.list(filters=filters)
    found: dict[str, str] = {}
    for container in sorted(listed, key=lambda each: int(each["Created"])):
        marks = labels(container)
        if marks.get(spec_labels.SERVICE) in services and spec_labels.JOB not in marks:
            found[marks[spec_labels.SERVICE]] = container.id
    return found


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


async def inspect(engine: Engine, container: str, patience: float = PATIENCE) -> Info:
    """Inspect a container. Raises ReplicaNotFound."""
    async with engine.request(patience, {404: not_found(container)}) as docker:
        info: Info = await docker.containers.container(container).show()
    if info["State"]["Status"] == "stopping":  # Podman reports it as not running, but it is
        info["State"]["Running"] = True
    await _add_peer_addresses(engine, info)
    return info


async def _add_peer_addresses(engine: Engine, info: Info) -> None:
    """Add the addresses of the container whose network this one shares, if it does."""
    kind, _, peer = str((info.get("HostConfig") or {}).get("NetworkMode") or "").partition(":")
    if kind != "container" or not info["State"]["Running"]:
        return
    with contextlib.suppress(ReplicaNotFound):  # it has ended, and with it the network
        found = await inspect(engine, peer)
        addresses = [
            endpoint["IPAddress"]
            for _, endpoint in sorted((found["NetworkSettings"]["Networks"] or {}).items())
            if endpoint.get("IPAddress")
        ]
        info[PEER_ADDRESSES] = addresses


def labels(container: DockerContainer) -> dict[str, str]:
    """Return the labels of a listed container."""
    marks: dict[str, str] = container["Labels"] or {}
    return marks


def not_found(name: str) -> ReplicaNotFound:
    """Return the error for a container that does not exist."""
    return ReplicaNotFound(f"no container {name} is on the engine")
