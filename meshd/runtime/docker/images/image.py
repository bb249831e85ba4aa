"""Images: check whether they exist or can be obtained, pull them, build them.

Used by `DockerRuntime`. `build` packs the context, `pull` pulls, `auth` finds credentials,
`container` knows the names.
"""

import asyncio
import json
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import IO

import structlog
from yarl import URL

from meshd.model.runtime import ImageProgress
from meshd.runtime.base import ImageMissing, RuntimeFailure, StartFailed
from meshd.runtime.docker.container import image_of, name_of_image
from meshd.runtime.docker.engine import Engine, Info
from meshd.runtime.docker.images import buildx
from meshd.runtime.docker.images.auth import encode, find_logins
from meshd.runtime.docker.images.build import BuildContext, bases, digest_of, pack, read_dockerfile
from meshd.runtime.docker.images.build_parameters import (
    build_parameters,
    buildkit_keys,
    cache_keys,
    choose_platform,
)
from meshd.runtime.docker.images.dockerfile import declared_ports
from meshd.runtime.docker.images.pull import Puller
from meshd.spec.image_name import is_image_id, normalize_image, parse_image_name
from meshd.spec.model import Build, Service

_log = structlog.stdlib.get_logger(__name__)
BUILD_PATIENCE = 1800.0
"""Seconds that a build may take."""
CHUNK_BYTES = 65536
"""Bytes per piece of a build context that is sent to the engine."""
BUILD_LABEL = "meshd.build"
"""Label on a built image: the digest of what it was built from. Containers inherit it; it does
not make them replicas, whose labels begin with `mesh.`."""
_BUILDX_STEP = re.compile(r"#\d+ \[")
"""The first words of BuildKit's line about each step of a build."""
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm/v7", "i686": "386"}
"""Names of architectures in platforms, by those of the kernel."""
_STEP = re.compile(r"Step \d+/\d+ : ")
"""The first words of the engine's line about each step of a build."""


class Images:
    """The images of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._puller = Puller(engine)
        self._builds: dict[str, ImageProgress] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    def progress(self) -> Sequence[ImageProgress]:
        """Return the images that are being pulled or built now."""
        return [*self._puller.progress(), *self._builds.values()]

    def _lock(self, image: str) -> asyncio.Lock:
        """Return the lock of an image: one pull or build of it at a time."""
        return self._locks.setdefault(normalize_image(image), asyncio.Lock())

    async def ensure(self, project: str, service: Service) -> None:
        """Make the service's image available on the engine: build it if its context changed,
        otherwise pull it if it is missing. Raises ImageMissing, StartFailed."""
        image = image_of(project, service)
        async with self._lock(image):
            if service.build is not None:
                names = dict.fromkeys((image, name_of_image(project, service)))
                await self._build(
                    tuple(names), service.name, service.build, service.options.platform
                )
            elif service.image_id:
                await self._restore(image, service)
            elif await self._labels(image) is None:
                await self._puller.pull(image, service.name, service.options.platform)

    async def pin(self, service: Service, fetch: bool) -> Service:
        """Return the service with the id of its image, pulled first if `pull_policy` asks for
        it; only with the ports of the image if its name is an id or has a digest. Unchanged if the
        image is missing. Raises ImageMissing."""
        image = service.image
        if service.build is not None:
            return await self._with_declared_ports(service, service.build, fetch)
        if not image:
            return service
        fixed = is_image_id(image) or "@" in image
        async with self._lock(image):
            present = await self._inspect(image)
            if present is not None and not is_for_platform(present, service.options.platform):
                present = None
            if fetch and service.pull == "never" and present is None:
                raise ImageMissing(
                    f"service {service.name}: image {image} is not on the engine, and "
                    "pull_policy: never forbids pulling it"
                )
            if fetch and (present is None or (service.pull == "always" and not fixed)):
                await self._puller.pull(image, service.name, service.options.platform)
                present = await self._inspect(image)
        if present is None:
            return service
        if fixed:
            return service.model_copy(update={"image_ports": _exposed_ports(present)})
        own = parse_image_name(image).repository
        digests = [parse_image_name(str(name)) for name in present.get("RepoDigests") or ()]
        found = next((each.digest for each in digests if each.repository == own), "")
        pin = {
            "image_id": _id_of(present),
            "image_digest": found,
            "image_ports": _exposed_ports(present),
        }
        return service.model_copy(update=pin)

    async def _with_declared_ports(self, service: Service, build: Build, fetch: bool) -> Service:
        """Return a mesh-managed service with the ports that its Dockerfile and its base image
        declare. With `fetch` a base that is missing is pulled, as the build would do, if the main
        port may depend on it."""
        if build.is_remote or service.plain:
            return service
        try:
            text = await asyncio.to_thread(read_dockerfile, build)
        except (OSError, UnicodeDecodeError):  # the build says what is wrong
            return service
        ports, base = declared_ports(text, build.args, build.target)
        if base:
            present = await self._inspect(base)
            needed = not ports and not service.expose and not service.mesh.port
            if present is None and fetch and needed:
                try:
                    await self._puller.pull(base, service.name, service.options.platform)
                except RuntimeFailure as error:
                    _log.info("ports of the base image are not known", reason=str(error))
                present = await self._inspect(base)
            ports |= set(_exposed_ports(present)) if present is not None else set()
        return service.model_copy(update={"image_ports": tuple(sorted(ports))})

    async def _restore(self, image: str, service: Service) -> None:
        """Tag the image that the name meant when the service was deployed as `image`."""
        wanted, name = service.image_id, service.image
        present = await self._inspect(image)
        if present is not None and _id_of(present) == wanted:
            return
        source = f"sha256:{wanted}"
        if await self._inspect(source) is None:
            source = f"{parse_image_name(name).repository}@{service.image_digest}"
            if not service.image_digest or service.pull == "never":
                raise ImageMissing(
                    f"service {service.name}: the image that {name} named at deployment "
                    f"({wanted[:12]}) is no longer on the engine; deploy it again"
                )
            await self._puller.pull(source, service.name, service.options.platform)
            pulled = await self._inspect(source)
            if pulled is None or _id_of(pulled) != wanted:
                raise ImageMissing(
                    f"service {service.name}: {source} is not the image that {name} named at "
                    f"deployment ({wanted[:12]}); deploy it again"
                )
        await self._tag(source, image)

    async def _tag(self, source: str, image: str) -> None:
        """Name an image of the engine `image` too."""
        name = parse_image_name(image)
        async with self._engine.request() as docker:
            await docker.images.tag(source, name.repository, tag=name.tag)

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
        return await self._puller.missing_reason(image)

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

    async def _build(
        self, names: tuple[str, ...], service: str, build: Build, platform: str
    ) -> None:
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
                await self._run_build(names, service, build, platform, context)

    async def _is_of(self, digest: str, image: str, names: tuple[str, ...]) -> bool:
        """Return whether an image with all the names was built from this context."""
        present = await self._labels(image)
        if present is None or present.get(BUILD_LABEL) != digest:
            return False
        for name in names:
            if name != image:
                await self._tag(image, name)
        return True

    async def _native_platform(self, build: Build) -> str:
        """Return the engine's own platform, if the build lists platforms."""
        if not build.platforms:
            return ""
        async with self._engine.request(otherwise=StartFailed) as docker:
            info = await docker.system.info()
        machine = str(info["Architecture"])
        return f"{info['OSType']}/{_ARCHITECTURES.get(machine, machine)}"

    async def _run_buildx(
        self,
        names: tuple[str, ...],
        service: str,
        build: Build,
        marks: dict[str, str],
        platform: str,
    ) -> None:
        """Build with BuildKit, by the plugin of the Docker command line."""
        said: deque[str] = deque(maxlen=20)
        began = ImageProgress(names[-1], service, "build", since=time.time())
        self._builds[names[0]] = began
        command = buildx.build_command(names, build, marks, platform)
        try:
            async with asyncio.timeout(BUILD_PATIENCE):
                async for line in buildx.run(command):
                    said.append(line)
                    if _BUILDX_STEP.match(line):
                        self._builds[names[0]] = replace(began, detail=line.strip())
        except (StartFailed, TimeoutError) as failure:
            reason = str(failure) or f"it took more than {BUILD_PATIENCE:.0f} s"
            tail = "\n".join(said).strip()
            raise StartFailed(
                f"service {service}: building {build.context} failed: {reason}\n{tail}".strip()
            ) from failure
        finally:
            del self._builds[names[0]]

    async def _run_build(
        self,
        names: tuple[str, ...],
        service: str,
        build: Build,
        platform: str,
        context: BuildContext,
    ) -> None:
        """Build with BuildKit if the build needs it and it is installed, else with the engine's own
        builder. That one's endpoint is called directly: the client library does not know all of its
        parameters."""
        platform = choose_platform(build, platform, await self._native_platform(build))
        marks = {BUILD_LABEL: context.digest}
        keys = buildkit_keys(build)
        wants = bool(keys or cache_keys(build)) or await asyncio.to_thread(_wants_buildkit, build)
        if wants and await buildx.is_installed():
            await self._run_buildx(names, service, build, marks, platform)
            return
        if keys:
            raise StartFailed(
                f"service {service}: build.{keys[0]} needs BuildKit; install the plugin buildx of "
                "the docker command, or build the image elsewhere and name it in image"
            )
        params = build_parameters(names, build, context.dockerfile, marks, platform)
        said: deque[str] = deque(maxlen=20)
        logins = await find_logins(bases(build))
        headers = {
            "X-Registry-Config": encode(
                {key: login.credentials for key, login in logins.items() if login.credentials}
            )
        }
        data = None if build.is_remote else _chunks(context.file)
        if data is not None:
            headers |= {"Content-Type": "application/x-tar", "Content-Encoding": "gzip"}
        began = ImageProgress(names[-1], service, "build", since=time.time())
        self._builds[names[0]] = began
        try:
            async with self._engine.request(BUILD_PATIENCE, otherwise=StartFailed) as docker:
                url = URL(f"{docker.docker_host}/{docker.api_version}/build")
                async with docker.session.post(
                    url, params=params, headers=headers, data=data
                ) as response:
                    async for line in response.content:
                        step = json.loads(line)
                        text = str(step.get("stream", ""))
                        said.append(text)
                        if _STEP.match(text):
                            self._builds[names[0]] = replace(began, detail=text.strip())
                        reason = step.get("error") or (not response.ok and step.get("message"))
                        if reason:
                            raise StartFailed(str(reason))
        except StartFailed as failure:
            hints = [f"({login.problem})" for login in logins.values() if login.problem]
            if wants:
                hints.append("(the Dockerfile needs BuildKit: install the plugin buildx)")
            tail = "\n".join([*hints, "".join(said).strip()])
            raise StartFailed(
                f"service {service}: building {build.context} failed: {failure}\n{tail}".strip()
            ) from failure
        finally:
            del self._builds[names[0]]


def _wants_buildkit(build: Build) -> bool:
    """Whether a local Dockerfile has instructions that only BuildKit knows; blocks."""
    try:
        return not build.is_remote and buildx.uses_buildkit(read_dockerfile(build))
    except (OSError, UnicodeDecodeError):  # the build says what is wrong
        return False


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


def is_for_platform(image: Info, platform: str) -> bool:
    """Return whether an image is for a platform such as `linux/arm64` or `linux/arm/v7`; empty
    means any."""
    wanted = platform.lower().split("/")
    own = [str(image.get(key, "")).lower() for key in ("Os", "Architecture", "Variant")]
    return not platform or own[: len(wanted)] == wanted


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
