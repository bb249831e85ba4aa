"""The process runtime: replicas are local processes, held by the keeper.

This is the keeper's client; each request uses its own connection. It keeps no state, so that a
restarted control process finds everything as it was. `launch` builds the processes,
`keeper_protocol` the messages.
"""

import asyncio
import os
import platform
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from meshd.model.output import OutputLine, OutputQuery, select_lines
from meshd.model.runtime import (
    AddressRange,
    Availability,
    Capabilities,
    CommandResult,
    Holder,
    ImageProgress,
    MeshAddress,
    Node,
    ObservedReplica,
    PortRedirect,
    PortRedirects,
    ReplicaSpec,
    ReplicaState,
    Usage,
)
from meshd.model.volume import RuntimeVolume
from meshd.runtime import base
from meshd.runtime.base import (
    ONE_NODE,
    EventKind,
    RuntimeEvent,
    RuntimeFailure,
    RuntimeUnavailable,
    Unsupported,
)
from meshd.runtime.process import keeper_protocol as wire
from meshd.runtime.process.launch import CAPABILITIES, build_launch, check_supported
from meshd.runtime.process.usage import usage_of_sessions
from meshd.spec.labels import JOB
from meshd.spec.model import ContainerHook, Network, Service

NO_VOLUMES = "the process runtime has no volumes"
TIMEOUT = 15.0
"""Seconds for an answer of the keeper; starting and stopping have their own limits."""
_RUNS = (ReplicaState.RUNNING, ReplicaState.PAUSED)
OPEN_WAIT = 20.0
"""Seconds to wait for the keeper at start; it starts at the same time."""
RETRY_FIRST, RETRY_LONGEST = 0.05, 2.0

Item = TypeVar("Item")


class ProcessRuntime:
    """Run replicas as processes of the keeper that listens in the directory `state`."""

    def __init__(self, state: Path) -> None:
        self._socket = state / wire.SOCKET_NAME

    @property
    def name(self) -> str:
        """`process`."""
        return "process"

    @property
    def capabilities(self) -> Capabilities:
        """No images, networks, limits or volumes: programs of the host run as they are."""
        return CAPABILITIES

    @property
    def own_node(self) -> str:
        """None: there is one node."""
        return ""

    @property
    def token_address(self) -> str:
        """A loopback address on a port that the kernel chooses."""
        return "127.0.0.1:0"

    async def open(self) -> None:
        """Wait for the keeper, which starts at the same time: seconds on a busy machine."""
        deadline = asyncio.get_running_loop().time() + OPEN_WAIT
        while True:
            try:
                await self._request(wire.List())
            except RuntimeUnavailable:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(RETRY_FIRST)
            else:
                return

    async def close(self) -> None:
        """Nothing to close: each request has its own connection."""

    async def nodes(self) -> Sequence[Node]:
        """Return this machine."""
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return [Node(platform.node(), float(os.cpu_count() or 1), memory)]

    async def all_nodes(self) -> Sequence[Node]:
        """See `Runtime.all_nodes`: this machine."""
        return await self.nodes()

    async def set_availability(
        self,
        node: str,  # noqa: ARG002 (the protocol's)
        availability: Availability,  # noqa: ARG002 (the protocol's)
        drain_until: float = 0.0,  # noqa: ARG002 (the protocol's)
    ) -> None:
        """Not supported: there is one node."""
        raise Unsupported(ONE_NODE)

    async def list(self) -> Sequence[ObservedReplica]:
        """See `Runtime.list`; everything in the keeper is ours."""
        held = (await self._request(wire.List())).replicas
        return tuple(seen for seen in held if not _is_job(seen))

    async def jobs(self) -> Sequence[ObservedReplica]:
        """See `Runtime.jobs`."""
        held = (await self._request(wire.List())).replicas
        return tuple(seen for seen in held if _is_job(seen))

    async def watch(self) -> AsyncIterator[RuntimeEvent]:
        """See `Runtime.watch`. While the keeper is gone, retry with growing pauses."""
        pause = RETRY_FIRST
        while True:
            stood = False
            try:
                async with self._connected(wire.Watch()) as (_, reader):
                    async for event in _items(reader, wire.events):
                        if event.kind is EventKind.RESYNC:
                            pause, stood = RETRY_FIRST, True
                        if event.replica is None or not _is_job(event.replica):
                            yield event
            except RuntimeUnavailable:
                pause = min(pause * 2, RETRY_LONGEST)
            if stood:
                yield RuntimeEvent(EventKind.CUT, at=time.time())
            await asyncio.sleep(pause)

    async def unobtainable_reason(self, project: str, service: Service) -> str | None:
        """See `Runtime.unobtainable_reason`: local processes need no image."""
        del project, service
        return None

    async def resolve(
        self,
        services: Sequence[Service],
        fetch: bool = False,  # noqa: ARG002 (the protocol's)
    ) -> Sequence[Service]:
        """See `Runtime.resolve`. Nothing is built here. Local processes have no network in which
        others could find them, so that the mesh manages all services."""
        return [each.model_copy(update={"plain": False}) for each in services]

    async def prepare(
        self,
        project: str,  # noqa: ARG002 (the protocol's)
        service: Service,
        networks: Sequence[Network] = (),  # noqa: ARG002 (the protocol's)
    ) -> None:
        """Nothing to prepare. Raises Unsupported if the service cannot run as a process."""
        check_supported(service)

    def image_progress(self) -> Sequence[ImageProgress]:
        """See `Runtime.image_progress`: none, processes have no images."""
        return ()

    async def mesh_addresses(
        self,
        project: str,  # noqa: ARG002 (the protocol's)
        services: Sequence[str],
    ) -> Sequence[MeshAddress]:
        """Return one loopback listener on a port that the caller chooses, the same for all."""
        return [MeshAddress(service, "127.0.0.1", 0) for service in services]

    async def set_host_names(
        self,
        name: str,
        names: Mapping[str, str],
        blocks: Sequence[str],
    ) -> None:
        """Nothing: there are no hosts files."""

    async def redirect_ports(
        self,
        redirects: Collection[PortRedirect],  # noqa: ARG002 (the protocol's)
    ) -> PortRedirects:
        """Nothing: the mesh opens all ports of the host."""
        return PortRedirects()

    @property
    def is_local(self) -> bool:
        """True: replicas are processes of this machine."""
        return True

    async def address_ranges(
        self,
        project: str,  # noqa: ARG002 (the protocol's)
    ) -> Sequence[AddressRange]:
        """Return none: there are no networks."""
        return ()

    async def start(self, replica: ReplicaSpec) -> ObservedReplica:
        """See `Runtime.start`; the keeper chooses the replica's port."""
        (observed,) = (await self._request(wire.Start(build_launch(replica, os.environ)))).replicas
        return observed

    async def stop(self, name: str, grace: float) -> None:
        """See `Runtime.stop`; the signal goes to all processes of the replica."""
        await self._request(wire.Stop(name, grace), grace + TIMEOUT)

    async def remove(self, name: str) -> None:
        """See `Runtime.remove`; its output is deleted too."""
        await self._request(wire.Remove(name))

    async def execute(
        self,
        name: str,
        hook: ContainerHook,  # noqa: ARG002 (the protocol's)
        seconds: float,  # noqa: ARG002 (the protocol's)
    ) -> CommandResult:
        """Not supported: a local process has no environment apart from that of meshd."""
        raise Unsupported(f"replica {name}: commands run in containers only")

    async def pause(self, name: str) -> None:
        """See `Runtime.pause`: SIGSTOP for all its processes."""
        await self._request(wire.Pause(name))

    async def unpause(self, name: str) -> None:
        """See `Runtime.unpause`: SIGCONT for all its processes."""
        await self._request(wire.Unpause(name))

    async def usage(self, names: Sequence[str]) -> Mapping[str, Usage]:
        """See `Runtime.usage`; children of a replica's process are included."""
        wanted = set(names)
        leaders = {
            int(seen.runtime_id): seen.name
            for seen in await self.list()
            if seen.name in wanted and seen.state in _RUNS and seen.runtime_id
        }
        return await asyncio.to_thread(usage_of_sessions, leaders)

    async def logs(self, name: str, tail: int) -> Sequence[str]:
        """See `Runtime.logs`."""
        return (await self._request(wire.Logs(name, tail))).lines

    async def timed_logs(self, name: str, query: OutputQuery) -> Sequence[OutputLine]:
        """See `Runtime.timed_logs`."""
        done = await self._request(wire.TimedLogs(name))
        lines = [OutputLine(*both) for both in zip(done.times, done.lines, strict=True)]
        return select_lines(lines, query)

    async def follow(self, name: str, query: OutputQuery) -> AsyncIterator[OutputLine]:
        """See `Runtime.follow`."""
        request = wire.Follow(name, query.tail, query.since)
        async with self._connected(request) as (_, reader):
            async for line in _items(reader, wire.lines):
                yield line

    async def volumes(self) -> Sequence[RuntimeVolume]:
        """See `Runtime.volumes`: none, processes use files of the host."""
        return ()

    def read_volume(self, name: str) -> AsyncIterator[bytes]:
        """See `Runtime.read_volume`."""
        raise base.VolumeFailure(f"{name}: {NO_VOLUMES}")

    async def stage_volume(self, name: str, data: AsyncIterator[bytes]) -> None:  # noqa: ARG002
        """See `Runtime.stage_volume`."""
        raise base.VolumeFailure(f"{name}: {NO_VOLUMES}")

    async def commit_volume(self, name: str) -> None:
        """See `Runtime.commit_volume`."""
        raise base.VolumeFailure(f"{name}: {NO_VOLUMES}")

    async def discard_staged(self, name: str) -> None:
        """See `Runtime.discard_staged`: nothing can be staged."""

    async def remove_volume(self, name: str) -> None:
        """See `Runtime.remove_volume`."""
        raise base.VolumeFailure(f"{name}: {NO_VOLUMES}")

    async def is_volume_empty(self, name: str) -> bool:
        """See `Runtime.is_volume_empty`."""
        raise base.VolumeFailure(f"{name}: {NO_VOLUMES}")

    async def claims(self) -> Mapping[str, Holder]:
        """None: the keeper belongs to this state alone."""
        return {}

    async def claim(
        self,
        project: str,  # noqa: ARG002 (the protocol's)
        holder: Holder,
        instead_of: Holder | None = None,  # noqa: ARG002 (the protocol's)
    ) -> Holder:
        """Always granted: the keeper belongs to this state alone."""
        return holder

    async def unclaim(self, project: str, holder: Holder) -> None:
        """Nothing to release."""

    async def teardown(self, project: str) -> None:
        """Nothing was created for the project."""

    async def _request(self, request: wire.Request, patience: float = TIMEOUT) -> wire.Done:
        try:
            async with asyncio.timeout(patience), self._connected(request) as (answer, _):
                return answer
        except TimeoutError as error:
            raise RuntimeUnavailable(f"the keeper did not answer within {patience:g} s") from error

    @asynccontextmanager
    async def _connected(
        self, request: wire.Request
    ) -> AsyncIterator[tuple[wire.Done, asyncio.StreamReader]]:
        """Send a request on a new connection; yield the answer and the stream after it. Raises
        the error that the keeper answered with, and RuntimeUnavailable."""
        try:
            reader, writer = await asyncio.open_unix_connection(self._socket, limit=wire.LINE_LIMIT)
        except OSError as error:
            raise RuntimeUnavailable(
                f"no keeper answers at {self._socket} ({error.strerror or error})"
            ) from error
        try:
            yield await _exchange(request, reader, writer), reader
        finally:
            writer.close()


async def _exchange(
    request: wire.Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> wire.Done:
    try:
        writer.write(wire.encode(request))
        answer = wire.answers.decode(await reader.readline())
    except (ConnectionError, msgspec.DecodeError) as error:
        raise RuntimeUnavailable("the keeper ended before it answered") from error
    if isinstance(answer, wire.Failed):
        known = getattr(base, answer.kind, RuntimeFailure)
        raise known(answer.text)
    return answer


async def _items(
    reader: asyncio.StreamReader, decoder: msgspec.json.Decoder[Item]
) -> AsyncIterator[Item]:
    """Yield what the keeper streams, to its end. Raises RuntimeUnavailable if it was cut."""
    try:
        while line := await reader.readline():
            yield decoder.decode(line)
    except (ConnectionError, msgspec.DecodeError) as error:
        raise RuntimeUnavailable("the keeper ended") from error


def _is_job(seen: ObservedReplica) -> bool:
    return JOB in seen.labels
