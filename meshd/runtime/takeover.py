"""A Swarm that takes over what the engine of its manager runs on this host, without a Swarm.

Implements `Runtime` while `meshd migrate --to swarm` is under way, and as long as services stay on
the engine. New replicas start in the Swarm, except those of services that stay. What exists is
stopped and removed where it is. `meshd.control.migration` has the replicas replaced.

Containers of the engine join the overlay networks of the Swarm, so that names lead from one side
to the other. Nothing is stored here: what the engine runs is found by its labels again.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Final

import structlog

from meshd.model.output import OutputLine, OutputQuery
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
    Usage,
)
from meshd.model.volume import RuntimeVolume
from meshd.runtime.base import Runtime, RuntimeEvent, RuntimeFailure
from meshd.runtime.docker.runtime import DockerRuntime
from meshd.runtime.swarm.runtime import SwarmRuntime
from meshd.spec.model import ContainerHook, Network, Service

_log = structlog.stdlib.get_logger(__name__)
EVENTS: Final = 256
"""Events that wait for the reader of both streams; a full queue delays the engine's stream."""


class TakeoverRuntime:
    """Both runtimes as one. `staying`: keys of the services whose replicas start on the engine."""

    def __init__(
        self, swarm: SwarmRuntime, docker: DockerRuntime, staying: Collection[str]
    ) -> None:
        self._swarm = swarm
        self.docker = docker
        self.staying = frozenset(staying)
        self._names: frozenset[str] = frozenset()
        self._projects: frozenset[str] = frozenset()

    @property
    def on_engine(self) -> frozenset[str]:
        """Names of the replicas and jobs that were on the engine when it was asked last."""
        return self._names

    @property
    def name(self) -> str:
        """`swarm`."""
        return self._swarm.name

    @property
    def capabilities(self) -> Capabilities:
        """Those of the Swarm."""
        return self._swarm.capabilities

    @property
    def is_local(self) -> bool:
        """False: replicas may run on any node."""
        return False

    @property
    def own_node(self) -> str:
        """See `Runtime.own_node`."""
        return self._swarm.own_node

    @property
    def token_address(self) -> str:
        """See `Runtime.token_address`."""
        return self._swarm.token_address

    async def open(self) -> None:
        """Connect to the Swarm and to the engine."""
        await self._swarm.open()
        await self.docker.open()
        await self.list()
        for project in await self.docker.claims():
            await self._leave_if_empty(project)

    async def close(self) -> None:
        """Close the connections."""
        await self._swarm.close()
        await self.docker.close()

    async def nodes(self) -> Sequence[Node]:
        """See `Runtime.nodes`."""
        return await self._swarm.nodes()

    async def all_nodes(self) -> Sequence[Node]:
        """See `Runtime.all_nodes`."""
        return await self._swarm.all_nodes()

    async def set_availability(
        self, node: str, availability: Availability, drain_until: float = 0.0
    ) -> None:
        """See `Runtime.set_availability`."""
        await self._swarm.set_availability(node, availability, drain_until)

    async def list(self) -> Sequence[ObservedReplica]:
        """See `Runtime.list`."""
        here = [self._placed(each) for each in await self.docker.list()]
        jobs = await self.docker.jobs()
        self._names = frozenset(each.name for each in (*here, *jobs))
        self._projects = frozenset(each.project for each in (*here, *jobs))
        return [*here, *await self._swarm.list()]

    async def jobs(self) -> Sequence[ObservedReplica]:
        """See `Runtime.jobs`."""
        here = [self._placed(each) for each in await self.docker.jobs()]
        return [*here, *await self._swarm.jobs()]

    def _placed(self, seen: ObservedReplica) -> ObservedReplica:
        """Return a replica of the engine with the node that proxies reach it through."""
        return replace(seen, node=self.own_node)

    async def watch(self) -> AsyncIterator[RuntimeEvent]:
        """See `Runtime.watch`: the events of both. Each RESYNC lists both again."""
        queue: asyncio.Queue[RuntimeEvent] = asyncio.Queue(EVENTS)
        readers = [
            asyncio.create_task(self._read(self._swarm, queue)),
            asyncio.create_task(self._read(self.docker, queue)),
        ]
        taken = asyncio.create_task(queue.get())
        try:
            while True:
                await asyncio.wait([taken, *readers], return_when=asyncio.FIRST_COMPLETED)
                if not taken.done():
                    for reader in readers:
                        if reader.done():
                            reader.result()
                    raise RuntimeFailure("the events of a runtime ended")
                event = taken.result()
                taken = asyncio.create_task(queue.get())
                yield event
        finally:
            for task in (taken, *readers):
                task.cancel()
            await asyncio.gather(taken, *readers, return_exceptions=True)

    async def _read(self, runtime: Runtime, queue: asyncio.Queue[RuntimeEvent]) -> None:
        async for event in runtime.watch():
            if event.replica is not None and runtime is self.docker:
                self._names |= {event.name}
                event = replace(event, replica=self._placed(event.replica))
            await queue.put(event)

    async def unobtainable_reason(self, project: str, service: Service) -> str | None:
        """See `Runtime.unobtainable_reason`."""
        return await self._swarm.unobtainable_reason(project, service)

    async def resolve(self, services: Sequence[Service], fetch: bool = False) -> Sequence[Service]:
        """See `Runtime.resolve`."""
        return await self._swarm.resolve(services, fetch)

    async def prepare(
        self, project: str, service: Service, networks: Sequence[Network] = ()
    ) -> None:
        """See `Runtime.prepare`. The networks exist on both sides, and containers of the engine
        join those of the Swarm."""
        await self._swarm.prepare(project, service, networks)
        if f"{project}/{service.name}" in self.staying:
            await self.docker.prepare(project, service, networks)
        for seen in await self.docker.list():
            if seen.project == project:
                await self._join(seen)

    async def _join(self, seen: ObservedReplica) -> None:
        """Connect a container of the engine to the overlays next to its networks."""
        aliases = await self.docker.network_names(seen.name)
        for network, names in aliases.items():
            overlay = await self._swarm.overlay_of(network)
            if overlay and overlay not in aliases:
                given = list(dict.fromkeys((seen.service, *names)))
                await self.docker.connect(seen.name, overlay, given)

    def image_progress(self) -> Sequence[ImageProgress]:
        """See `Runtime.image_progress`."""
        return [*self._swarm.image_progress(), *self.docker.image_progress()]

    async def mesh_addresses(self, project: str, services: Sequence[str]) -> Sequence[MeshAddress]:
        """See `Runtime.mesh_addresses`: for the containers of the engine."""
        return await self.docker.mesh_addresses(project, services)

    async def address_ranges(self, project: str) -> Sequence[AddressRange]:
        """See `Runtime.address_ranges`: for the containers of the engine."""
        return await self.docker.address_ranges(project)

    async def start(self, replica: ReplicaSpec) -> ObservedReplica:
        """See `Runtime.start`: on the engine if the service stays there."""
        if f"{replica.project}/{replica.service.name}" not in self.staying:
            return await self._swarm.start(replica)
        self._names |= {replica.name}
        seen = self._placed(await self.docker.start(replace(replica, node=None)))
        if not replica.job:
            await self._join(seen)
        return seen

    def _of(self, name: str) -> SwarmRuntime | DockerRuntime:
        return self.docker if name in self._names else self._swarm

    async def stop(self, name: str, grace: float) -> None:
        """See `Runtime.stop`."""
        await self._of(name).stop(name, grace)

    async def remove(self, name: str) -> None:
        """See `Runtime.remove`. With its last container, a project leaves the engine."""
        if name not in self._names:
            await self._swarm.remove(name)
            return
        await self.docker.remove(name)
        before = self._projects
        await self.list()
        for project in before - self._projects:
            await self._leave_if_empty(project)

    async def _leave_if_empty(self, project: str) -> None:
        """Remove the networks of a project that has nothing on the engine any more, and release
        it there. What cannot be removed yet is removed at the next start."""
        stays = any(key.partition("/")[0] == project for key in self.staying)
        claimed = project in await self._swarm.claims()
        if stays or not claimed or project in self._projects:
            return
        holder = (await self.docker.claims()).get(project)
        try:
            await self.docker.teardown(project)
            if holder is not None:
                await self.docker.unclaim(project, holder)
        except RuntimeFailure as failure:
            _log.warning("networks are left on the engine", project=project, reason=str(failure))

    async def execute(self, name: str, hook: ContainerHook, seconds: float) -> CommandResult:
        """See `Runtime.execute`."""
        return await self._of(name).execute(name, hook, seconds)

    async def pause(self, name: str) -> None:
        """See `Runtime.pause`."""
        await self._of(name).pause(name)

    async def unpause(self, name: str) -> None:
        """See `Runtime.unpause`."""
        await self._of(name).unpause(name)

    async def set_host_names(
        self, name: str, names: Mapping[str, str], blocks: Sequence[str]
    ) -> None:
        """See `Runtime.set_host_names`."""
        await self._of(name).set_host_names(name, names, blocks)

    async def redirect_ports(self, redirects: Collection[PortRedirect]) -> PortRedirects:
        """See `Runtime.redirect_ports`."""
        return await self.docker.redirect_ports(redirects)

    async def usage(self, names: Sequence[str]) -> Mapping[str, Usage]:
        """See `Runtime.usage`."""
        here = [name for name in names if name in self._names]
        there = [name for name in names if name not in self._names]
        return {**await self.docker.usage(here), **await self._swarm.usage(there)}

    async def logs(self, name: str, tail: int) -> Sequence[str]:
        """See `Runtime.logs`."""
        return await self._of(name).logs(name, tail)

    async def timed_logs(self, name: str, query: OutputQuery) -> Sequence[OutputLine]:
        """See `Runtime.timed_logs`."""
        return await self._of(name).timed_logs(name, query)

    def follow(self, name: str, query: OutputQuery) -> AsyncIterator[OutputLine]:
        """See `Runtime.follow`."""
        return self._of(name).follow(name, query)

    async def volumes(self) -> Sequence[RuntimeVolume]:
        """See `Runtime.volumes`: those of the engine."""
        return await self.docker.volumes()

    def read_volume(self, name: str) -> AsyncIterator[bytes]:
        """See `Runtime.read_volume`."""
        return self.docker.read_volume(name)

    async def stage_volume(self, name: str, data: AsyncIterator[bytes]) -> None:
        """See `Runtime.stage_volume`."""
        await self.docker.stage_volume(name, data)

    async def commit_volume(self, name: str) -> None:
        """See `Runtime.commit_volume`."""
        await self.docker.commit_volume(name)

    async def discard_staged(self, name: str) -> None:
        """See `Runtime.discard_staged`."""
        await self.docker.discard_staged(name)

    async def remove_volume(self, name: str) -> None:
        """See `Runtime.remove_volume`."""
        await self.docker.remove_volume(name)

    async def is_volume_empty(self, name: str) -> bool:
        """See `Runtime.is_volume_empty`."""
        return await self.docker.is_volume_empty(name)

    async def claims(self) -> Mapping[str, Holder]:
        """See `Runtime.claims`: those of the Swarm, so that a project is claimed there too."""
        return await self._swarm.claims()

    async def claim(self, project: str, holder: Holder, instead_of: Holder | None = None) -> Holder:
        """See `Runtime.claim`."""
        return await self._swarm.claim(project, holder, instead_of)

    async def unclaim(self, project: str, holder: Holder) -> None:
        """See `Runtime.unclaim`: on both sides."""
        await self._swarm.unclaim(project, holder)
        await self.docker.unclaim(project, holder)

    async def teardown(self, project: str) -> None:
        """See `Runtime.teardown`: on both sides."""
        await self.docker.teardown(project)
        await self._swarm.teardown(project)


def engine_part(runtime: Runtime) -> DockerRuntime | None:
    """Return the part of a runtime that runs containers of an engine; None if it has none."""
    if isinstance(runtime, TakeoverRuntime):
        return runtime.docker
    return runtime if isinstance(runtime, DockerRuntime) else None
