"""Copy images from one engine to another, for nodes that no registry serves.

Used by `meshd.cli.commands.load`. The image passes as a stream of pieces, as in
`docker save | docker load`; an engine that has it already receives nothing.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from yarl import URL

from meshd.runtime.base import ImageMissing, RuntimeFailure, RuntimeUnavailable
from meshd.runtime.docker.engine import Info
from meshd.runtime.swarm.setup.hosts import Host

STALLED: Final = 120.0
"""Seconds without a byte after which a copy counts as failed: an engine first packs a layer, later
unpacks it."""
CHUNK_BYTES: Final = 262_144
"""Largest piece of a stream that is passed on at once."""

Passed = Callable[[int], None]
"""Called with the number of bytes that were sent so far."""


async def read_image(host: Host, image: str) -> Info | None:
    """Return what a host's engine says about an image, by name or id; None if it has none."""
    try:
        async with host.engine.request(errors={404: ImageMissing(image)}) as docker:
            return dict(await docker.images.inspect(image))
    except ImageMissing:
        return None


async def copy_image(source: Host, target: Host, image: str, passed: Passed) -> bool:
    """Copy an image with its name. Return False if the target has the same one already.

    Raises ImageMissing if the source has no such image, and RuntimeFailure if the image is for
    another kind of machine or cannot be copied; the target then has what it had.
    """
    found = await read_image(source, image)
    if found is None:
        raise ImageMissing(f"{source.name} has no image {image}; pull or build it there")
    wanted = str(found["Id"])
    if (there := await read_image(target, image)) is not None and there["Id"] == wanted:
        return False
    async with target.engine.request() as docker:
        version = dict(await docker.version())
    kinds = [
        f"{found.get('Os')}/{found.get('Architecture')}",
        f"{version.get('Os')}/{version.get('Arch')}",
    ]
    if kinds[0] != kinds[1]:
        raise RuntimeFailure(f"image {image} is for {kinds[0]}, and {target.name} is {kinds[1]}")
    try:
        async with asyncio.timeout(STALLED) as stalled, _saved(source, image) as pieces:
            await _load(target, _watched(pieces, stalled, passed))
    except TimeoutError as error:
        raise RuntimeUnavailable(
            f"copying {image} to {target.name} made no progress for {STALLED:g} s"
        ) from error
    there = await read_image(target, image)
    if there is None or there["Id"] != wanted:
        raise RuntimeFailure(f"{target.name} did not keep image {image}")
    return True


@asynccontextmanager
async def _saved(host: Host, image: str) -> AsyncIterator[AsyncIterator[bytes]]:
    """Yield the pieces of an image's archive."""
    async with host.engine.request(None) as docker:
        url = URL(f"{docker.docker_host}/{docker.api_version}/images/get").with_query(names=image)
        async with docker.session.get(url) as response:
            if not response.ok:
                raise RuntimeFailure(f"{host.name}: {_reason(await response.text())}")
            yield response.content.iter_chunked(CHUNK_BYTES)


async def _watched(
    pieces: AsyncIterator[bytes], stalled: asyncio.Timeout, passed: Passed
) -> AsyncIterator[bytes]:
    """Yield the pieces, postpone the timeout with each, and report their size."""
    sent, clock = 0, asyncio.get_running_loop().time
    async for piece in pieces:
        sent += len(piece)
        stalled.reschedule(clock() + STALLED)
        passed(sent)
        yield piece
    stalled.reschedule(clock() + STALLED)


async def _load(host: Host, pieces: AsyncIterator[bytes]) -> None:
    """Send an archive to a host's engine."""
    async with host.engine.request(None) as docker:
        url = URL(f"{docker.docker_host}/{docker.api_version}/images/load").with_query(quiet=1)
        headers = {"Content-Type": "application/x-tar"}
        async with docker.session.post(url, data=pieces, headers=headers) as response:
            said = await response.text()
            failed = not response.ok or '"errorDetail"' in said
    if failed:
        raise RuntimeFailure(f"{host.name}: {_reason(said)}")


def _reason(said: str) -> str:
    """Return the reason in an engine's answer: of its last line that has one."""
    for line in reversed(said.splitlines()):
        try:
            answer = json.loads(line)
        except ValueError:
            continue
        if isinstance(answer, dict) and (reason := answer.get("error") or answer.get("message")):
            return str(reason)
    return said.strip()[:300]
