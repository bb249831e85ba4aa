"""Anonymous volumes, those of the image's VOLUME too: the successor of a container gets them.

Used by `runtime`. The engine would give each container new ones. So meshd creates them, with labels
that say whose they are, and the next container of the service takes those that no running container
has. `docker compose up` moves them from the old container to its successor; here the old one may
be gone already. They end with the project.

Only for services whose replicas are replaced with `stop-first`: with `start-first` the predecessor
still has its volume when the successor starts.
"""

import asyncio
import secrets
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from meshd.model.runtime import ReplicaSpec
from meshd.runtime.base import ImageMissing, ReplicaNotFound, RuntimeFailure, StartFailed
from meshd.runtime.docker.create import inspect
from meshd.runtime.docker.engine import Engine, Info
from meshd.spec import labels

SERVICE: Final = "meshd.anonymous"
"""Label on a volume: PROJECT/SERVICE of the containers that get it."""
TARGET: Final = "meshd.anonymous.target"
"""Label on a volume: its path in the container."""
NAME_BYTES: Final = 32
"""Random bytes in a name, as many as in those of the engine, by which anonymous volumes are
recognized."""
_ENDED: Final = frozenset({"exited", "dead", "removing"})


class AnonymousVolumes:
    """The anonymous volumes of one engine. Hold `lock` from `attach` until the container exists."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.lock = asyncio.Lock()

    async def attach(self, replica: ReplicaSpec, config: Info) -> None:
        """Name the anonymous volumes in the engine's request to create the container, `config`:
        those of the predecessor, otherwise new ones. Raises StartFailed."""
        if replica.job or replica.service.update_order != "stop-first":
            return
        host = config["HostConfig"]
        image_volumes = () if host.get("VolumesFrom") else await self._of_image(config["Image"])
        targets = free_targets(host, image_volumes)
        if not targets:
            return
        key = f"{replica.project}/{replica.service.name}"
        free = await self._free(key)
        for target in targets:
            name = free.pop(target, "") or await self._create(replica.project, key, target)
            mount = next((m for m in host["Mounts"] if m["Target"].rstrip("/") == target), None)
            if mount is None:
                mount = {"Type": "volume", "Target": target, "ReadOnly": False}
                host["Mounts"].append(mount)
            mount["Source"] = name

    async def paths(self) -> dict[str, tuple[str, ...]]:
        """Return the paths of the anonymous volumes that are kept, by PROJECT/SERVICE."""
        async with self._engine.request() as docker:
            found = await docker.volumes.list(filters={"label": [SERVICE]})  # type: ignore[no-untyped-call]
        paths: dict[str, set[str]] = {}
        for volume in found["Volumes"] or ():
            paths.setdefault(volume["Labels"][SERVICE], set()).add(volume["Labels"][TARGET])
        return {key: tuple(sorted(each)) for key, each in paths.items()}

    async def remove(self, project: str) -> None:
        """Delete the anonymous volumes of a project."""
        async with self._engine.request() as docker:
            found = await docker.volumes.list(filters={"label": [SERVICE]})  # type: ignore[no-untyped-call]
        for volume in found["Volumes"] or ():
            if volume["Labels"][SERVICE].partition("/")[0] == project:
                with suppress(RuntimeFailure):
                    async with self._engine.request() as docker:
                        one = await docker.volumes.get(volume["Name"])  # type: ignore[no-untyped-call]
                        await one.delete()

    async def _free(self, key: str) -> dict[str, str]:
        """Return the oldest volume of a service by path, without those of running containers."""
        async with self._engine.request() as docker:
            wanted = {"label": [f"{SERVICE}={key}"]}
            found = (await docker.volumes.list(filters=wanted))["Volumes"] or ()  # type: ignore[no-untyped-call]
            containers = [each._container for each in await docker.containers.list(all=True)]
        names, used = {str(volume["Name"]) for volume in found}, set[str]()
        for container in containers:
            held = {str(mount.get("Name")) for mount in container.get("Mounts") or ()} & names
            if held and not await self._has_ended(container):
                used |= held
        by_age = sorted(found, key=lambda volume: str(volume.get("CreatedAt", "")), reverse=True)
        return {
            volume["Labels"][TARGET]: str(volume["Name"])
            for volume in by_age
            if volume["Name"] not in used
        }

    async def _has_ended(self, container: Info) -> bool:
        """Whether a listed container has ended or is gone. The list may be a moment behind the
        event of its end; an inspection is not."""
        if container["State"] in _ENDED:
            return True
        try:
            state = (await inspect(self._engine, str(container["Id"])))["State"]
        except ReplicaNotFound:
            return True
        return state["Status"] in _ENDED

    async def _create(self, project: str, key: str, target: str) -> str:
        name = secrets.token_hex(NAME_BYTES)
        marks = {labels.MANAGED: "1", labels.PROJECT: project, SERVICE: key, TARGET: target}
        async with self._engine.request(otherwise=StartFailed) as docker:
            await docker.volumes.create({"Name": name, "Labels": marks})  # type: ignore[no-untyped-call]
        return name

    async def _of_image(self, image: str) -> Iterable[str]:
        """Return the paths that the image declares as volumes."""
        absent = ImageMissing(f"image {image} is not on the engine")
        async with self._engine.request(errors={404: absent}) as docker:
            info = await docker.images.inspect(image)
        return tuple(info["Config"].get("Volumes") or {})


def free_targets(host: Info, image_volumes: Iterable[str]) -> list[str]:
    """Return the paths that get an anonymous volume: those of mounts without a source, and the
    volumes of the image that no mount covers."""
    mounts = host.get("Mounts") or []
    named = {mount["Target"].rstrip("/") for mount in mounts if mount.get("Source")}
    named |= {mount["Target"].rstrip("/") for mount in mounts if mount["Type"] != "volume"}
    named |= {bind.split(":")[1].rstrip("/") for bind in host.get("Binds") or []}
    named |= {path.rstrip("/") for path in host.get("Tmpfs") or {}}
    anonymous = [
        mount["Target"].rstrip("/")
        for mount in mounts
        if mount["Type"] == "volume" and not mount.get("Source")
    ]
    declared = [path.rstrip("/") for path in image_volumes if path.rstrip("/") not in named]
    return list(dict.fromkeys([*anonymous, *declared]))
