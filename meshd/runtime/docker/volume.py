"""The content of named volumes: read as a tar stream, and replaced by one.

Used by `runtime`. The engine's archive calls do the work on a container that is created and never
started, so that no program of an image is needed. At most one chunk is in memory.

A restore first receives all data into a second volume, the staged one. Then `commit` creates a
marker volume, clears the volume, copies the staged data into it, and removes the marker. While a
marker exists, `finish` completes the copy before a container with the volume starts, so that no
container runs on half of the data, whatever ended the first attempt.
"""

import asyncio
import io
import json
import os
import secrets
import socket
import tarfile
from collections.abc import AsyncIterator, Collection, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from aiohttp import ClientTimeout
from yarl import URL

from meshd.model.volume import RuntimeVolume
from meshd.runtime.base import RuntimeFailure, StartFailed, VolumeFailure
from meshd.runtime.docker.claims import CLAIM
from meshd.runtime.docker.engine import CONNECT_TIMEOUT, Engine, Info
from meshd.spec import labels

T = TypeVar("T")

HELPER: Final = "meshd.volume"
"""Label on the container that gives access to a volume. It does not make a replica of it: labels of
replicas begin with `mesh.`."""
STAGED: Final = "meshd.staged"
"""Label on a staged volume: the name of the volume that it is for."""
MARKER: Final = "meshd.restore"
"""Label on a marker: the name of the volume whose content is being replaced."""
COPYING: Final = "meshd.copy"
"""Label on the marker of a copy from another engine: the name of the volume it is written to."""
OWNER: Final = "meshd.owner"
"""Label on helpers and staged volumes: the process that uses them, as HOST/PID."""
EMPTY_IMAGE: Final = "meshd-empty:latest"
"""An image without files, made here."""
PATH: Final = "/volume"
CHUNK_BYTES: Final = 262_144
"""Largest piece of a stream that is passed on at once."""
STALLED: Final = 300.0
"""Seconds without a byte after which a transfer counts as failed."""
TRAILER: Final = 1024
"""Bytes at the end of a complete tar, all zero (POSIX)."""
PROBE_BYTES: Final = 8192
"""Bytes of a tar from which its first entries are read: some headers of 512 bytes each."""
CUT_OFF_PATIENCE: Final = 10.0
"""Seconds that a cancelled caller waits for the answer to its request."""
COMPOSE_PROJECT: Final = "com.docker.compose.project"
_ALIVE: Final = frozenset({"running", "paused", "restarting"})


class TarStream:
    """Watches a tar that passes: its first entry, and whether it is complete."""

    def __init__(self) -> None:
        self._first = b""
        self._last = b""

    def add(self, chunk: bytes) -> None:
        """Take the next piece into account."""
        if len(self._first) < PROBE_BYTES:
            self._first = (self._first + chunk)[:PROBE_BYTES]
        self._last = (self._last + chunk)[-TRAILER:]

    @property
    def is_complete(self) -> bool:
        """Whether the stream ends as a tar ends."""
        return self._last == bytes(TRAILER)

    def entries(self) -> list[tarfile.TarInfo]:
        """Return the entries whose headers are in the first bytes."""
        found: list[tarfile.TarInfo] = []
        with (
            suppress(tarfile.TarError),
            tarfile.open(fileobj=io.BytesIO(self._first), mode="r:") as tar,
        ):
            found.extend(tar)
        return found

    @property
    def root(self) -> tarfile.TarInfo | None:
        """The entry of the directory itself, with its owner and mode; None if it is not first."""
        first = next(iter(self.entries()), None)
        return first if first is not None and first.isdir() and _is_root(first) else None

    @property
    def has_content(self) -> bool:
        """Whether there is an entry besides the directory itself."""
        return any(not _is_root(each) for each in self.entries())


def _is_root(entry: tarfile.TarInfo) -> bool:
    """Whether an entry is the directory itself, or what a fresh file system has."""
    return entry.name.strip("./") in ("", "lost+found")


class Volumes:
    """The named volumes of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._locks: dict[str, asyncio.Lock] = {}

    async def remove_leftovers(self) -> None:
        """Remove what a process of this host that was killed has left, except the staged content
        of a restore that is to be completed."""
        async with self._engine.request() as docker:
            found = await docker.containers.list(all=True, filters={"label": [HELPER]})
            volumes = (await docker.volumes.list())["Volumes"] or ()  # type: ignore[no-untyped-call]
        for container in found:
            if _has_ended(container["Labels"].get(OWNER, "")):
                await self._remove_container(container.id)
        marks = [volume.get("Labels") or {} for volume in volumes]
        unfinished = {mark[MARKER] for mark in marks if MARKER in mark}
        for mark in marks:
            if STAGED in mark and mark[STAGED] not in unfinished and _has_ended(mark[OWNER]):
                with suppress(VolumeFailure):
                    await self.discard(mark[STAGED])

    async def list(self) -> Sequence[RuntimeVolume]:
        """Return all named volumes, without those that meshd itself uses."""
        async with self._engine.request() as docker:
            found = (await docker.volumes.list())["Volumes"] or ()  # type: ignore[no-untyped-call]
            containers = [each._container for each in await docker.containers.list(all=True)]
        marks = [volume.get("Labels") or {} for volume in found]
        unfinished = {mark[key] for mark in marks for key in (MARKER, COPYING) if key in mark}
        volumes = []
        for volume, mark in zip(found, marks, strict=True):
            if {CLAIM, STAGED, MARKER, COPYING} & mark.keys() or _is_anonymous(volume):
                continue
            name = str(volume["Name"])
            users = [c for c in containers if _has_volume(c, name) and not _is_helper(c)]
            volumes.append(
                RuntimeVolume(
                    name=name,
                    project=mark.get(labels.PROJECT) or mark.get(COMPOSE_PROJECT, ""),
                    driver=str(volume.get("Driver", "local")),
                    device=str((volume.get("Options") or {}).get("device", "")),
                    containers=tuple(sorted(_name(c) for c in users)),
                    running=tuple(sorted(_name(c) for c in users if c["State"] in _ALIVE)),
                    incomplete=name in unfinished,
                )
            )
        return sorted(volumes, key=lambda volume: volume.name)

    async def read(self, name: str) -> AsyncIterator[bytes]:
        """Yield the content of a volume as a tar whose names are relative to it. Raises
        VolumeFailure, also if the engine ends the tar early."""
        tar = TarStream()
        async with self._helper(name) as container, self._engine.request(None) as docker:
            url = _archive(docker.docker_host, docker.api_version, container, f"{PATH}/.")
            limits = ClientTimeout(sock_connect=CONNECT_TIMEOUT, sock_read=STALLED)
            try:
                async with docker.session.get(url, timeout=limits) as response:
                    if not response.ok:
                        raise VolumeFailure(
                            f"volume {name} cannot be read: {await _text(response)}"
                        )
                    async for chunk in response.content.iter_chunked(CHUNK_BYTES):
                        tar.add(chunk)
                        yield chunk
            except TimeoutError as error:
                raise VolumeFailure(f"volume {name}: no data for {STALLED:g} s") from error
        if not tar.is_complete:
            raise VolumeFailure(
                f"volume {name}: the engine ended the archive early; a file may have changed while "
                "it was read, or see the engine's log"
            )

    async def is_empty(self, name: str) -> bool:
        """Whether a volume has no file and no directory."""
        tar, size = TarStream(), 0
        async with self._helper(name) as container, self._engine.request() as docker:
            url = _archive(docker.docker_host, docker.api_version, container, f"{PATH}/.")
            async with docker.session.get(url) as response:
                if not response.ok:
                    raise VolumeFailure(f"volume {name} cannot be read: {await _text(response)}")
                while size < PROBE_BYTES and (chunk := await response.content.read(PROBE_BYTES)):
                    tar.add(chunk)
                    size += len(chunk)
        return not tar.has_content

    async def stage(self, name: str, data: AsyncIterator[bytes]) -> None:
        """Receive the new content of volume `name` into a staged volume. Raises VolumeFailure, and
        what `data` raises; nothing is left behind then."""
        staged = f"{STAGED}.{name}"
        await self._delete(staged)
        try:
            await self._create({"Name": staged, "Labels": {STAGED: name, OWNER: _owner()}})
            await self._write(staged, name, data)
        except BaseException:
            await asyncio.shield(self._delete(staged))
            raise

    async def commit(self, name: str) -> None:
        """Replace the content of volume `name` by the staged one. Raises VolumeFailure; if the copy
        has begun then, `finish` completes it."""
        async with self._lock(name):
            info = await self.inspect(name)
            if info is None:
                raise VolumeFailure(f"there is no volume {name}")
            if not await self.is_empty(name):
                if (info.get("Options") or {}).get("device"):
                    raise VolumeFailure(
                        f"volume {name} is on {info['Options']['device']}, which the engine does "
                        "not clear; remove the files there first"
                    )
                await self._refuse_users(name)
            await self._create({"Name": f"{MARKER}.{name}", "Labels": {MARKER: name}})
            await self._replace(name)

    async def discard(self, name: str) -> None:
        """Remove the staged content of a volume; no effect if there is none."""
        await self._delete(f"{STAGED}.{name}")

    async def unmark_copy(self, name: str) -> None:
        """Say that a copy into a volume is complete."""
        await self._delete(f"{COPYING}.{name}")

    async def is_copy_marked(self, name: str) -> bool:
        """Whether a copy into a volume is not complete."""
        return await self.inspect(f"{COPYING}.{name}") is not None

    async def receive(
        self, name: str, marks: Mapping[str, str], data: AsyncIterator[bytes]
    ) -> None:
        """Mark a volume as incomplete until `unmark_copy`, and replace its content by `data`;
        create it with the labels `marks` if it does not exist. Raises VolumeFailure, and what
        `data` raises; the volume is empty then, or does not exist if it did not before, and is not
        marked."""
        info = await self.inspect(name)
        fresh = _body_like(name, info) if info else {"Name": name, "Labels": dict(marks)}
        try:
            await self._create({"Name": f"{COPYING}.{name}", "Labels": {COPYING: name}})
            if info is not None:
                await self._clear(name, fresh)
            else:
                await self._create(fresh)
            await self._write(name, name, data)
        except BaseException:
            await asyncio.shield(self._undo_receive(name, fresh if info else None))
            raise

    async def _undo_receive(self, name: str, fresh: Info | None) -> None:
        await self._refuse_users(name)
        await self._delete(name)
        if fresh is not None:
            await self._create(fresh)
        await self.unmark_copy(name)

    async def _clear(self, name: str, body: Info) -> None:
        """Make a volume empty."""
        if await self.is_empty(name):
            return
        await self._refuse_users(name)
        await self._delete(name)
        await self._create(body)
        if not await self.is_empty(name):
            raise VolumeFailure(f"volume {name} still has files after it was created again")

    async def finish(self, names: Collection[str]) -> None:
        """Complete the restores of these volumes that were interrupted. Raises StartFailed, also if
        a copy from another engine was."""
        if not names:
            return
        for name in sorted(names):
            if await self.is_copy_marked(name):
                raise StartFailed(
                    f"the copy into volume {name} is not complete; repeat `meshd volume copy`"
                )
        async with self._engine.request() as docker:
            found = await docker.volumes.list(filters={"label": [MARKER]})  # type: ignore[no-untyped-call]
        unfinished = {volume["Labels"][MARKER] for volume in found["Volumes"] or ()}
        for name in sorted(unfinished & set(names)):
            async with self._lock(name):
                if await self.inspect(f"{MARKER}.{name}") is None:
                    continue
                try:
                    await self._replace(name)
                except VolumeFailure as failure:
                    raise StartFailed(
                        f"the restore of volume {name} was interrupted, and completing it failed: "
                        f"{failure}"
                    ) from failure

    async def remove(self, name: str) -> None:
        """Delete a volume with its content. Raises VolumeFailure if a container has it."""
        await self._refuse_users(name)
        await self._delete(name)

    async def _replace(self, name: str) -> None:
        """Clear the volume, copy the staged one into it, and remove marker and staged volume."""
        await self._refuse_users(name)
        info = await self.inspect(name)
        if info is None or not await self.is_empty(name):
            if info is not None:
                await self._delete(name)
            await self._create(_body_like(name, info))
            if not await self.is_empty(name):
                raise VolumeFailure(f"volume {name} still has files after it was created again")
        await self._write(name, name, self.read(f"{STAGED}.{name}"))
        await self._delete(f"{MARKER}.{name}")
        await self._delete(f"{STAGED}.{name}")

    async def _write(self, volume: str, name: str, data: AsyncIterator[bytes]) -> None:
        """Unpack a tar into a volume, called `name` in messages."""
        source = _Watched(data)
        headers = {"Content-Type": "application/x-tar"}
        try:
            async with self._helper(volume) as container, self._engine.request(None) as docker:
                url = _archive(docker.docker_host, docker.api_version, container, PATH)
                async with docker.session.put(url, data=source.chunks(), headers=headers) as answer:
                    if not answer.ok:
                        raise VolumeFailure(
                            f"volume {name}: the archive cannot be unpacked: {await _text(answer)}"
                        )
                if root := source.tar.root:  # the engine leaves out the directory itself
                    url = _archive(docker.docker_host, docker.api_version, container, "/")
                    body = _directory(PATH.strip("/"), root)
                    async with docker.session.put(url, data=body, headers=headers) as answer:
                        if not answer.ok:
                            raise VolumeFailure(f"volume {name}: {await _text(answer)}")
        except RuntimeFailure:  # also the result of an error of the source, which says more
            if source.error is None:
                raise
        if source.error is not None:
            raise source.error
        if not source.tar.is_complete:
            raise VolumeFailure(f"volume {name}: the archive is not a complete tar")

    async def _refuse_users(self, name: str) -> None:
        """Raise VolumeFailure if containers have the volume. Helpers that were left are removed."""
        async with self._engine.request() as docker:
            found = [each._container for each in await docker.containers.list(all=True)]
        users = [each for each in found if _has_volume(each, name)]
        for helper in filter(_is_helper, users):
            await self._remove_container(str(helper["Id"]))
        if names := sorted(_name(user) for user in users if not _is_helper(user)):
            raise VolumeFailure(f"volume {name} is in use by {', '.join(names)}; remove it first")

    @asynccontextmanager
    async def _helper(self, volume: str) -> AsyncIterator[str]:
        """Yield the id of a container with the volume at PATH."""
        if await self.inspect(volume) is None:
            raise VolumeFailure(f"there is no volume {volume}")
        await self._ensure_image()
        body: Info = {
            "Image": EMPTY_IMAGE,
            "Cmd": ["none"],
            "Labels": {HELPER: volume, OWNER: _owner()},
            "HostConfig": {
                "NetworkMode": "none",
                "Mounts": [{"Type": "volume", "Source": volume, "Target": PATH}],
            },
        }
        name = f"meshd-volume-{secrets.token_hex(4)}"
        try:
            async with self._engine.request(otherwise=VolumeFailure) as docker:
                made = await _complete(docker.containers.create(body, name=name))
            yield made.id
        finally:
            await asyncio.shield(self._remove_container(name))

    async def _ensure_image(self) -> None:
        try:
            async with self._engine.request(errors={404: VolumeFailure("")}) as docker:
                await docker.images.inspect(EMPTY_IMAGE)
            return
        except VolumeFailure:
            pass
        empty = io.BytesIO()
        with tarfile.open(fileobj=empty, mode="w"):
            pass
        async with self._engine.request(otherwise=VolumeFailure) as docker:
            url = URL(f"{docker.docker_host}/{docker.api_version}/images/create")
            repository, _, tag = EMPTY_IMAGE.partition(":")
            params = {"fromSrc": "-", "repo": repository, "tag": tag}
            async with docker.session.post(url, params=params, data=empty.getvalue()) as response:
                if not response.ok:
                    raise VolumeFailure(f"an empty image cannot be made: {await _text(response)}")
                await response.read()

    async def inspect(self, name: str) -> Info | None:
        """Return what the engine says about a volume; None if it does not exist."""
        gone = VolumeFailure(name)
        try:
            async with self._engine.request(errors={404: gone}) as docker:
                volume = await docker.volumes.get(name)  # type: ignore[no-untyped-call]
                return dict(await volume.show())
        except VolumeFailure:
            return None

    async def _create(self, body: Info) -> None:
        async with self._engine.request(otherwise=VolumeFailure) as docker:
            await _complete(docker.volumes.create(body))  # type: ignore[no-untyped-call]

    async def _delete(self, name: str) -> None:
        """Delete a volume; no effect if it does not exist."""
        if await self.inspect(name) is not None:
            async with self._engine.request(otherwise=VolumeFailure) as docker:
                volume = await docker.volumes.get(name)  # type: ignore[no-untyped-call]
                await volume.delete()

    async def _remove_container(self, container: str) -> None:
        with suppress(RuntimeFailure):
            async with self._engine.request() as docker:
                await docker.containers.container(container).delete(force=True)

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())


async def _complete(request: Coroutine[Any, Any, T]) -> T:
    """Await a request that creates something. A request that is cut off creates it all the same, so
    a caller that is cancelled waits for the answer too, for `CUT_OFF_PATIENCE` at most: only then
    can it be removed."""
    made = asyncio.ensure_future(request)
    try:
        return await asyncio.shield(made)
    finally:
        await asyncio.wait([made], timeout=CUT_OFF_PATIENCE)
        made.cancel()


class _Watched:
    """A tar that is sent to the engine, and the error that ended it."""

    def __init__(self, data: AsyncIterator[bytes]) -> None:
        self._data = data
        self.tar = TarStream()
        self.error: Exception | None = None

    async def chunks(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._data:
                self.tar.add(chunk)
                yield chunk
        except Exception as error:
            self.error = error
            raise


def _directory(name: str, like: tarfile.TarInfo) -> bytes:
    """Return a tar of one directory with the owner, the mode and the time of `like`."""
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.mtime = tarfile.DIRTYPE, like.mode, like.mtime
    entry.uid, entry.gid = like.uid, like.gid
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.addfile(entry)
    return packed.getvalue()


def _body_like(name: str, info: Info | None) -> Info:
    """Return the request that creates a volume again, as it is."""
    if info is None:
        return {"Name": name}
    options = {"DriverOpts": info["Options"]} if info.get("Options") else {}
    return {
        "Name": name,
        "Driver": info["Driver"],
        "Labels": info.get("Labels") or {},
        **options,
    }


def _owner() -> str:
    return f"{socket.gethostname()}/{os.getpid()}"


def _has_ended(owner: str) -> bool:
    """Whether a process of this host does not run any more; False for one of another host."""
    host, _, pid = owner.rpartition("/")
    if host != socket.gethostname() or not pid.isdecimal():
        return False
    return not Path(f"/proc/{pid}").exists()


def _archive(host: str, version: str, container: str, path: str) -> URL:
    return URL(f"{host}/{version}/containers/{container}/archive").with_query(path=path)


async def _text(response: object) -> str:
    """Return the engine's reason for an error."""
    raw = await response.text()  # type: ignore[attr-defined]
    try:
        return str(json.loads(raw)["message"])
    except (ValueError, KeyError, TypeError):
        return str(raw)[:300]


def _is_anonymous(volume: Info) -> bool:
    name = str(volume["Name"])
    return len(name) == 64 and all(letter in "0123456789abcdef" for letter in name)


def _has_volume(container: Info, name: str) -> bool:
    return any(mount.get("Name") == name for mount in container.get("Mounts") or ())


def _is_helper(container: Info) -> bool:
    return HELPER in (container.get("Labels") or {})


def _name(container: Info) -> str:
    return str(container["Names"][0]).removeprefix("/")
