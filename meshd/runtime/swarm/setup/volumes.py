"""Copy the data of a volume from one engine to another.

Used by `meshd.cli.commands.volume_copy`. The data passes as a stream of pieces, so that its size
does not matter here. A digest is computed while it passes, and compared with that of the volume at
the target afterwards.

While a copy into a volume is not complete, a marker exists (`Volumes.receive`). A repeated call
then replaces what is there.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final

from meshd.runtime.base import RuntimeFailure, VolumeFailure
from meshd.runtime.docker.volume import Volumes
from meshd.runtime.swarm.setup.hosts import Host
from meshd.runtime.swarm.setup.tar_digest import BadArchive, TarDigest, VolumeDigest

LOCAL: Final = "local"
"""The driver of volumes that are directories of their engine."""


@dataclass(frozen=True, slots=True)
class CopyRequest:
    """A copy of one volume.

    - `volume`: its name on the engine it is read from; `target`: its name where it is written.
    - `force`: replace the content of a target that is not empty.
    - `live`: read it although containers run with it.
    """

    volume: str
    target: str
    force: bool = False
    live: bool = False


@dataclass(frozen=True, slots=True)
class TargetState:
    """The volume at the target before a copy. `containers`: those that have it, and `running` those
    of them that run; `marked`: whether a copy into it was interrupted."""

    exists: bool = False
    empty: bool = True
    running: tuple[str, ...] = ()
    containers: tuple[str, ...] = ()
    marked: bool = False


def find_copy_problem(request: CopyRequest, host: str, state: TargetState) -> str | None:
    """Return why nothing may be written to a target on `host`; None if it may. Pure."""
    if state.running:
        names = ", ".join(state.running)
        return f"volume {request.target} on {host} is in use by {names}; stop it first"
    if state.empty:
        return None
    if not request.force and not state.marked:
        return f"volume {request.target} on {host} is not empty; --force replaces its content"
    if state.containers:
        names = ", ".join(state.containers)
        return (
            f"volume {request.target} on {host} is replaced as a whole, and {names} has it; remove "
            "the container first"
        )
    return None


async def check_source(source: Host, request: CopyRequest) -> None:
    """Check that a volume can be read from an engine. Raises VolumeFailure."""
    engine = Volumes(source.engine)
    await engine.remove_leftovers()
    volumes = {each.name: each for each in await engine.list()}
    found = volumes.get(request.volume)
    if found is None:
        known = ", ".join(volumes) or "none"
        raise VolumeFailure(f"{source.name} has no volume {request.volume}; known: {known}")
    if found.incomplete:
        raise VolumeFailure(
            f"volume {request.volume} on {source.name} is incomplete, because a restore or copy of "
            "it was interrupted"
        )
    if found.running and not request.live:
        names = ", ".join(found.running)
        raise VolumeFailure(
            f"volume {request.volume} on {source.name} is in use by {names}; stop it first, for "
            "example with `meshd scale SERVICE=0` or `docker stop`, or read it while files may "
            "change with --live"
        )


async def check_target(source: Host, target: Host, request: CopyRequest) -> None:
    """Check that a volume may be written on an engine. Raises VolumeFailure."""
    ends = [await each.read() for each in (source, target)]
    same = (ends[0].id, ends[0].name) == (ends[1].id, ends[1].name)
    if same and request.volume == request.target:
        raise VolumeFailure(
            f"{source.name} and {target.name} are the same engine; --as copies the volume there "
            "under another name"
        )
    await Volumes(target.engine).remove_leftovers()
    state = await _read_target(target, request.target)
    if problem := find_copy_problem(request, target.name, state):
        raise VolumeFailure(problem)
    if not state.exists and (problem := await _find_driver_problem(source, target, request)):
        raise VolumeFailure(problem)


async def copy_volume(
    source: Host,
    target: Host,
    request: CopyRequest,
    data: AsyncIterator[bytes],
    passed: Callable[[int], None],
) -> VolumeDigest:
    """Write `data`, the tar of a volume, to the target, and compare what is there afterwards.
    `passed` gets the number of bytes so far. `check_target` found no problem.

    Raises VolumeFailure, and what `data` raises. Then a volume that was empty is empty again, and
    one that was not keeps its old content, or is marked as incomplete.
    """
    name, volumes = request.target, Volumes(target.engine)
    state = await _read_target(target, name)
    info = await Volumes(source.engine).inspect(request.volume) or {}
    digest = TarDigest()

    async def read() -> AsyncIterator[bytes]:
        sent = 0
        async for piece in data:
            digest.add(piece)
            sent += len(piece)
            passed(sent)
            yield piece

    try:
        if state.exists and not state.empty and not state.marked:
            await volumes.stage(name, read())
            await volumes.commit(name)
        else:
            await volumes.receive(name, info.get("Labels") or {}, read())
        found = await digest_of(target, name)
        expected = digest.result()
    except BadArchive as error:
        raise VolumeFailure(f"volume {request.volume}: {error}") from error
    if found != expected:
        raise VolumeFailure(
            f"volume {name} on {target.name} differs from what was sent: {describe(found)} instead "
            f"of {describe(expected)}; does something write to it there?"
        )
    await volumes.unmark_copy(name)
    return found


async def digest_of(host: Host, name: str) -> VolumeDigest:
    """Return the digest of a volume on an engine. Raises VolumeFailure, BadArchive."""
    digest = TarDigest()
    async for piece in Volumes(host.engine).read(name):
        digest.add(piece)
    return digest.result()


def describe(digest: VolumeDigest) -> str:
    """Return a digest in words."""
    return f"{digest.entries} entries, {digest.size} bytes, digest {digest.digest[:16]}"


async def read_source(source: Host, request: CopyRequest) -> AsyncIterator[bytes]:
    """Yield the tar of a volume. Raises VolumeFailure, also if a container began to run with it
    meanwhile."""
    try:
        async for piece in Volumes(source.engine).read(request.volume):
            yield piece
    except RuntimeFailure as failure:
        raise type(failure)(f"{source.name}: {failure}") from failure
    await check_source(source, request)


async def _read_target(target: Host, name: str) -> TargetState:
    volumes = Volumes(target.engine)
    marked = await volumes.is_copy_marked(name)
    found = next((each for each in await volumes.list() if each.name == name), None)
    if found is None:
        return TargetState(marked=marked)
    empty = await volumes.is_empty(name)
    return TargetState(True, empty, found.running, found.containers, marked)


async def _find_driver_problem(source: Host, target: Host, request: CopyRequest) -> str | None:
    """Return why the target does not get a volume like that of the source."""
    info = await Volumes(source.engine).inspect(request.volume) or {}
    driver, options = info.get("Driver", LOCAL), info.get("Options")
    if driver == LOCAL and not options:
        return None
    given = "".join(f" --opt {key}={value}" for key, value in (options or {}).items())
    return (
        f"volume {request.volume} has the driver {driver}{' with options' if options else ''}, "
        f"which {target.name} may not have; create volume {request.target} there first, such as "
        f"with docker volume create --driver {driver}{given} {request.target}"
    )
