"""Images: check whether they exist or can be obtained, pull them, build them.

Used by `DockerRuntime`. `build` packs the context, `auth` finds credentials, `container` knows the
names.
"""

import asyncio
import json
import re
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import IO

from aiodocker.utils import compose_auth_header
from yarl import URL

from meshd.runtime.base import ImageMissing, RuntimeUnavailable, StartFailed
from meshd.runtime.docker.auth import credentials
from meshd.runtime.docker.build import BuildContext, bases, digest_of, pack
from meshd.runtime.docker.container import image_of, name_of_image, split_name
from meshd.runtime.docker.engine import Engine, Info
from meshd.spec.model import Build, Service

PULL_PATIENCE = 900.0
"""Seconds that a pull may take."""
BUILD_PATIENCE = 1800.0
"""Seconds that a build may take."""
ASK_REGISTRY = 10.0
"""Seconds for a registry to answer whether it has an image."""
CHUNK_BYTES = 65536
"""Bytes per piece of a build context that is sent to the engine."""
BUILD_LABEL = "meshd.build"
"""Label on a built image: the digest of what it was built from. Containers inherit it; it does
not make them replicas, whose labels begin with `mesh.`."""


_FIXED = re.compile(r"@|^sha256:|^[0-9a-f]{12,64}$|^$")
"""Forms of an image name that always mean the same image, or no image at all."""


class Images:
    """The images of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._locks: dict[str, asyncio.Lock] = {}

    async def ensure(self, project: str, service: Service) -> None:
        """Make the service's image available on the engine: build it if its context changed,
        otherwise pull it if it is missing. Raises ImageMissing, StartFailed."""
        image = image_of(project, service)
        async with self._locks.setdefault(image, asyncio.Lock()):
            if service.build is not None:
                names = dict.fromkeys((image, name_of_image(project, service)))
                await self._build(tuple(names), service.name, service.build)
            elif service.image_id:
                await self._restore(image, service)
            elif await self._labels(image) is None:
                await self._pull(image, service.name)

    async def pin(self, service: Service, fetch: bool) -> Service:
        """Return the service with the id of its image, pulled first if `pull_policy` asks for
        it. Unchanged if the image is missing or already pinned. Raises ImageMissing."""
        image = service.image
        if service.build is not None or _FIXED.search(image):
            return service
        async with self._locks.setdefault(image, asyncio.Lock()):
            present = await self._inspect(image)
            if fetch and service.pull == "never" and present is None:
                raise ImageMissing(
                    f"service {service.name}: image {image} is not on the engine, and "
                    "pull_policy: never forbids pulling it"
                )
            if fetch and (service.pull == "always" or present is None):
                await self._pull(image, service.name)
                present = await self._inspect(image)
        if present is None:
            return service
        own = split_name(image)[0]
        digests = [str(name) for name in present.get("RepoDigests") or ()]
        found = next((d.partition("@")[2] for d in digests if d.partition("@")[0] == own), "")
        pin = {
            "image_id": _id_of(present),
            "image_digest": found,
            "image_ports": _exposed_ports(present),
        }
        return service.model_copy(update=pin)

    async def _restore(self, image: str, service: Service) -> None:
        """Tag the image that the name meant when the service was deployed as `image`."""
        wanted, name = service.image_id, service.image
        present = await self._inspect(image)
        if present is not None and _id_of(present) == wanted:
            return
        repository, tag = split_name(image)
        source = f"sha256:{wanted}"
        if await self._inspect(source) is None:
            source = f"{split_name(name)[0]}@{service.image_digest}"
            if not service.image_digest or service.pull == "never":
                raise ImageMissing(
                    f"service {service.name}: the image that {name} named at deployment "
                    f"({wanted[:12]}) is no longer on the engine; deploy it again"
                )
            await self._pull(source, service.name)
        async with self._engine.request() as docker:
            await docker.images.tag(source, repository, tag=tag)

    async def unobtainable_reason(self, project: str, service: Service) -> str | None:
        """Return the reason why the service's image cannot be had, in one line; None if it
        can. Changes nothing. Raises RuntimeUnavailable."""
        if service.build is None:
            return await self._missing(image_of(project, service))
        try:
            needed = bases(service.build)
        except OSError as error:
            return f"{service.build.context} cannot be built: {error.strerror} ({error.filename})"
        for image in needed:
            reason = await self._missing(image)
            if reason is not None:
                return reason
        return None

    async def _missing(self, image: str) -> str | None:
        if await self._labels(image) is not None:
            return None
        try:
            auth = await credentials(image)
            headers = {"X-Registry-Auth": compose_auth_header(auth)} if auth else {}
            async with self._engine.request(ASK_REGISTRY) as docker:
                url = URL(f"{docker.docker_host}/{docker.api_version}/distribution/{image}/json")
                async with docker.session.get(url, headers=headers) as response:
                    if response.ok:
                        return None
                    reason = str((await response.json()).get("message", response.reason))
        except (RuntimeUnavailable, ImageMissing) as failure:
            reason = str(failure)
        return f"image {image} is not on the engine and cannot be pulled: {reason}"

    async def _labels(self, image: str) -> dict[str, str] | None:
        """Return the labels of an image on the engine; None if it is missing."""
        info = await self._inspect(image)
        return None if info is None else info["Config"].get("Labels") or {}

    async def _inspect(self, image: str) -> Info | None:
        """Inspect an image; None if it is missing."""
        absent = ImageMissing(image)
        try:
            async with self._engine.request(errors={404: absent}) as docker:
                return dict(await docker.images.inspect(image))
        except ImageMissing:
            return None

    async def _pull(self, image: str, service: str) -> None:
        auth = await credentials(image)
        try:
            async with self._engine.request(PULL_PATIENCE, otherwise=ImageMissing) as docker:
                await docker.images.pull(image, auth=auth if "/" in image else None)
        except ImageMissing as failure:
            raise ImageMissing(
                f"service {service}: image {image} is not on the engine, and pulling it failed: "
                f"{failure}"
            ) from failure

    async def _build(self, names: tuple[str, ...], service: str, build: Build) -> None:
        """Build the image and tag it with all of `names`; replicas run the first."""
        if build.digest and await self._is_of(build.digest, names[0], names):
            return
        try:
            context = await asyncio.to_thread(pack, build)
        except OSError as error:
            raise _unreadable(service, error) from error
        with context.file:
            if build.digest not in ("", context.digest):
                raise StartFailed(
                    f"service {service}: {build.context} has changed since the deployment, and "
                    "the image built then is gone; deploy it again"
                )
            if not await self._is_of(context.digest, names[-1], names):
                await self._run_build(names, service, build, context)

    async def _is_of(self, digest: str, image: str, names: tuple[str, ...]) -> bool:
        """Return whether an image with all the names was built from this context."""
        present = await self._labels(image)
        if present is None or present.get(BUILD_LABEL) != digest:
            return False
        for name in names:
            if name != image:
                repository, tag = split_name(name)
                async with self._engine.request() as docker:
                    await docker.images.tag(image, repository, tag=tag)
        return True

    async def _run_build(
        self, names: tuple[str, ...], service: str, build: Build, context: BuildContext
    ) -> None:
        """Call the engine's build endpoint directly: the client library does not know `target`."""
        params = [
            *(("t", name) for name in names),
            ("dockerfile", context.dockerfile),
            ("target", build.target),
            ("buildargs", json.dumps(build.args)),
            ("labels", json.dumps({BUILD_LABEL: context.digest})),
            ("forcerm", "1"),
            *([("remote", build.context)] if build.is_remote else ()),
        ]
        said: deque[str] = deque(maxlen=20)
        try:
            async with self._engine.request(BUILD_PATIENCE, otherwise=StartFailed) as docker:
                url = URL(f"{docker.docker_host}/{docker.api_version}/build")
                headers = {"Content-Type": "application/x-tar", "Content-Encoding": "gzip"}
                data = None if build.is_remote else _chunks(context.file)
                async with docker.session.post(
                    url, params=params, headers=headers if data else None, data=data
                ) as response:
                    async for line in response.content:
                        step = json.loads(line)
                        said.append(str(step.get("stream", "")))
                        reason = step.get("error") or (not response.ok and step.get("message"))
                        if reason:
                            raise StartFailed(str(reason))
        except StartFailed as failure:
            tail = "".join(said).strip()
            raise StartFailed(
                f"service {service}: building {build.context} failed: {failure}\n{tail}".strip()
            ) from failure


async def pin_builds(services: Sequence[Service]) -> list[Service]:
    """Return the services with the digests of their build contexts. Raises StartFailed."""
    digests: dict[str, str] = {}
    found = []
    for service in services:
        build = service.build
        if build is not None:
            key = build.model_dump_json(exclude={"digest"})
            try:
                if key not in digests:
                    digests[key] = await asyncio.to_thread(digest_of, build)
            except OSError as error:
                raise _unreadable(service.name, error) from error
            pinned = build.model_copy(update={"digest": digests[key]})
            service = service.model_copy(update={"build": pinned})
        found.append(service)
    return found


def _exposed_ports(image: Info) -> tuple[int, ...]:
    """Return the TCP ports that an image declares, in ascending order."""
    names = (image["Config"] or {}).get("ExposedPorts") or {}
    found = [name.partition("/")[0] for name in names if not name.endswith(("/udp", "/sctp"))]
    return tuple(sorted(int(port) for port in found if port.isdigit()))


def _id_of(image: Info) -> str:
    return str(image["Id"]).removeprefix("sha256:")


def _unreadable(service: str, error: OSError) -> StartFailed:
    return StartFailed(f"service {service}: its build context cannot be read: {error}")


async def _chunks(file: IO[bytes]) -> AsyncIterator[bytes]:
    while chunk := file.read(CHUNK_BYTES):
        yield chunk
