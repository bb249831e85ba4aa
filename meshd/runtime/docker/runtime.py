"""The Docker runtime: replicas are containers of one Docker Engine.

Implements `Runtime` for the control process. The engine holds the state: labels mark what is ours,
and a restarted control process finds everything again. This module keeps only what it last saw, so
that an event can be reported at once. Neighbours: `engine` (connection), `container`
(configuration), `image`, `network`, `events`.
"""

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Literal

import structlog
from aiodocker.containers import DockerContainer

from meshd.model.event import Kind
from meshd.model.output import OutputLine, OutputQuery
from meshd.model.runtime import (
    MESH_PORT,
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
from meshd.model.volume import RuntimeVolume, named_volumes
from meshd.runtime.base import (
    ONE_NODE,
    EventKind,
    ReplicaNotFound,
    ReplicaRunning,
    RuntimeEvent,
    RuntimeFailure,
    RuntimeUnavailable,
    StartFailed,
    Unsupported,
)
from meshd.runtime.docker import logs, usage
from meshd.runtime.docker.addresses.hosts_file import write_hosts
from meshd.runtime.docker.addresses.port_redirection import PortRedirection
from meshd.runtime.docker.addresses.redirection import Redirection
from meshd.runtime.docker.anonymous import AnonymousVolumes
from meshd.runtime.docker.attachments import find_attachments
from meshd.runtime.docker.claims import EngineClaims
from meshd.runtime.docker.container import CreateRequest, create_request
from meshd.runtime.docker.create import (
    START_PATIENCE,
    build_clone_request,
    create,
    discard,
    find_peers,
    inspect,
    labels,
    not_found,
)
from meshd.runtime.docker.drift import enforced_limits
from meshd.runtime.docker.enforcement import Enforcement
from meshd.runtime.docker.engine import Engine, Info
from meshd.runtime.docker.events import Sightings, replica_event
from meshd.runtime.docker.host_firewall import HostFirewall
from meshd.runtime.docker.images import buildx
from meshd.runtime.docker.images.image import Images, pin_builds
from meshd.runtime.docker.iptables import Iptables
from meshd.runtime.docker.network import Networks
from meshd.runtime.docker.observe import add_lost_peer, is_job, is_replica, observe
from meshd.runtime.docker.volume import Volumes
from meshd.runtime.support import unsupported
from meshd.spec.model import ContainerHook, Network, Service

_log = structlog.stdlib.get_logger(__name__)

CAPABILITIES = Capabilities(
    images=True,
    networks=True,
    cpu_limits=True,
    memory_limits=True,
    pause=True,
    container_health=True,
    volumes=True,
)
STOP_MARGIN = 20.0
"""Seconds that stopping may take beyond the grace period: the engine needs time to kill and to
unmount."""
INSPECT_AT_ONCE = 8
"""Inspections at once, so that the engine stays responsive."""
RETRY_FIRST, RETRY_LONGEST = 0.1, 2.0


class _Refused(RuntimeFailure):
    """The engine refused a request with a status that does not give the reason."""


class _Connected(RuntimeFailure):
    """The container is connected to the network already."""


class DockerRuntime:
    """Run replicas on the engine named by DOCKER_HOST, the Docker context or the default socket."""

    def __init__(self) -> None:
        self._engine = Engine()
        self._networks = Networks(self._engine)
        self._images = Images(self._engine)
        self._claims = EngineClaims(self._engine)
        self._volumes = Volumes(self._engine)
        self._anonymous = AnonymousVolumes(self._engine)
        self._sightings = Sightings()
        self._cloning = asyncio.Lock()
        self._redirection: Redirection | None = None
        self._enforcement: Enforcement | None = None
        self._port_redirection: PortRedirection | None = None
        self._node = ""
        self._logging_driver = ""
        self._limits: frozenset[str] = frozenset()
        self._capabilities = CAPABILITIES

    @property
    def name(self) -> str:
        """`docker`."""
        return "docker"

    @property
    def capabilities(self) -> Capabilities:
        """Everything."""
        return self._capabilities

    @property
    def is_local(self) -> bool:
        """Whether the engine is reached through a Unix socket."""
        return self._engine.is_local

    @property
    def own_node(self) -> str:
        """None: there is one node."""
        return ""

    @property
    def token_address(self) -> str:
        """None: source addresses identify callers."""
        return ""

    def make_host_firewall(
        self,
        instance: str,
        projects: Callable[[], Collection[str]],
        record_event: Callable[[Kind, str], object],
        enabled: bool,
    ) -> HostFirewall:
        """Return the firewall that keeps containers of these projects from reaching the host. It
        applies as soon as their networks exist; see `HostFirewall`."""
        firewall = HostFirewall(
            self._networks.bridges, Iptables(), instance, projects, record_event, enabled
        )
        self._networks.notify(firewall.update)
        return firewall

    def make_redirection(
        self,
        instance: str,
        projects: Callable[[], Collection[str]],
        record_event: Callable[[Kind, str], object],
    ) -> Redirection:
        """Return the redirection of virtual addresses to the proxy. Until it is made, services have
        none."""
        redirection = Redirection(
            self._networks.redirects, Iptables(), instance, projects, record_event
        )
        self._networks.notify(redirection.update)
        self._redirection = redirection
        self._port_redirection = PortRedirection(Iptables(), instance, record_event)
        return redirection

    def make_enforcement(
        self,
        instance: str,
        services: Callable[[], Collection[str]],
        record_event: Callable[[Kind, str], object],
    ) -> Enforcement:
        """Return the enforcement of `allow` for the services that `services` returns."""
        self._enforcement = Enforcement(
            lambda services: find_attachments(self._engine, services),
            Iptables(),
            instance,
            services,
            record_event,
        )
        return self._enforcement

    async def open(self) -> None:
        """Connect. Raises RuntimeUnavailable; may be called again."""
        await self._engine.open()
        self._capabilities = replace(
            CAPABILITIES,
            engine_api=self._engine.newest_api,
            buildkit=await buildx.is_installed(),
        )
        info = await self._info()
        self._node = str(info["Name"])
        self._logging_driver = str(info["LoggingDriver"])
        self._limits = enforced_limits(info)
        await self._volumes.remove_leftovers()

    async def close(self) -> None:
        """Close the connections."""
        await self._engine.close()

    async def nodes(self) -> Sequence[Node]:
        """Return the engine's machine, with the engine's labels."""
        info = await self._info()
        marks = dict(label.partition("=")[::2] for label in info.get("Labels") or ())
        return [Node(str(info["Name"]), float(info["NCPU"]), int(info["MemTotal"]), marks)]

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
        """See `Runtime.list`."""
        known_before = self._sightings.known()
        containers = await self._containers()
        infos = await self._inspected(containers, is_replica)
        ended = {info["Id"] for info in infos if not info["State"]["Running"]}
        alive = {found.id for found in containers} - ended
        self._sightings.keep([info["Id"] for info in infos], known_before)
        now = time.monotonic()
        return [
            add_lost_peer(self._sightings.see(info, self._node, now), info, alive) for info in infos
        ]

    async def jobs(self) -> Sequence[ObservedReplica]:
        """See `Runtime.jobs`."""
        return [
            observe(info, self._node)
            for info in await self._inspected(await self._containers(), is_job)
        ]

    async def _containers(self) -> Sequence[DockerContainer]:
        """List all containers of the engine, also those that have ended."""
        try:
            return await self._list_once()
        except _Refused:  # Podman, if a container is removed while it lists them
            return await self._list_once()

    async def _list_once(self) -> Sequence[DockerContainer]:
        async with self._engine.request(otherwise=_Refused) as docker:
            return list(await docker.containers.list(all=True))

    async def _inspected(
        self, containers: Sequence[DockerContainer], wanted: Callable[[dict[str, str]], bool]
    ) -> Sequence[Info]:
        """Inspect each container whose labels satisfy `wanted`."""
        ids = [found.id for found in containers if wanted(labels(found))]
        slots = asyncio.Semaphore(INSPECT_AT_ONCE)

        async def inspect_one(container: str) -> Info | None:
            async with slots:
                try:
                    return await inspect(self._engine, container)
                except ReplicaNotFound:
                    return None  # removed since it was listed

        return [info for info in await asyncio.gather(*map(inspect_one, ids)) if info is not None]

    async def watch(self) -> AsyncIterator[RuntimeEvent]:
        """See `Runtime.watch`. While the engine does not answer, retry with growing pauses."""
        pause = RETRY_FIRST
        while True:
            stood = False
            try:
                async with self._engine.events() as events:
                    pause, stood = RETRY_FIRST, True
                    yield RuntimeEvent(EventKind.RESYNC, at=time.time())
                    async for event in events:
                        replica_change = await replica_event(
                            self._engine, self._sightings, self._node, event
                        )
                        if replica_change is not None:
                            if self._enforcement is not None:
                                self._enforcement.wake()
                            yield replica_change
            except RuntimeUnavailable as reason:
                _log.debug("no events", reason=str(reason))
                pause = min(pause * 2, RETRY_LONGEST)
            if stood:
                yield RuntimeEvent(EventKind.CUT, at=time.time())
            await asyncio.sleep(pause)

    async def resolve(self, services: Sequence[Service], fetch: bool = False) -> Sequence[Service]:
        """See `Runtime.resolve`: the digest of each build context, the id of each image."""
        return [await self._images.pin(each, fetch) for each in await pin_builds(services)]

    async def prepare(
        self, project: str, service: Service, networks: Sequence[Network] = ()
    ) -> None:
        """See `Runtime.prepare`: build or pull the image, create networks and volumes."""
        self._refuse(service)
        await self._images.ensure(project, service)
        await self._networks.ensure(project, service, networks)

    def image_progress(self) -> Sequence[ImageProgress]:
        """See `Runtime.image_progress`."""
        return self._images.progress()

    async def unobtainable_reason(self, project: str, service: Service) -> str | None:
        """Return the reason why the service's image cannot be had, in one line; None if it
        can. Changes nothing."""
        return await self._images.unobtainable_reason(project, service)

    async def mesh_addresses(self, project: str, services: Sequence[str]) -> Sequence[MeshAddress]:
        """Return the gateway of each service's own network. An adopted service has none."""
        gateways = await asyncio.gather(
            *(self._networks.gateway(project, service) for service in services)
        )
        return [
            MeshAddress(service, found[0], MESH_PORT, found[1])
            for service, found in zip(services, gateways, strict=True)
            if found is not None
        ]

    async def address_ranges(self, project: str) -> Sequence[AddressRange]:
        """See `Runtime.address_ranges`."""
        redirection = self._redirection
        if redirection is not None and not redirection.state:
            await redirection.update()
        usable = redirection is not None and redirection.works
        return await self._networks.address_ranges(project, usable=usable)

    async def start(self, replica: ReplicaSpec) -> ObservedReplica:
        """See `Runtime.start`. A container that was created but did not start is removed again."""
        if replica.node not in (None, self._node):
            raise Unsupported(f"replica {replica.name}: this engine has no node {replica.node}")
        if replica.clone_of is not None:
            async with self._cloning:  # two at once would take the same container number
                container = await create(
                    self._engine, replica.name, await build_clone_request(self._engine, replica)
                )
        else:
            self._refuse(replica.service)
            volumes = named_volumes(replica.project, replica.service.volumes)
            await self._volumes.finish(volumes)
            wanted, image = await self._creation(replica), replica.service.image
            async with self._anonymous.lock:
                await self._anonymous.attach(replica, wanted.config)
                container = await create(self._engine, replica.name, wanted, image)
        try:
            async with self._engine.request(START_PATIENCE, otherwise=StartFailed) as docker:
                await docker.containers.container(container).start()
            info = await inspect(self._engine, container)
        except StartFailed as failure:
            await discard(self._engine, container)
            raise StartFailed(f"replica {replica.name}: {failure}") from failure
        if self._enforcement is not None:
            await self._enforcement.follow_start()
        if replica.job:
            return observe(info, self._node)
        self._sightings.created(info)
        return self._sightings.see(info, self._node, time.monotonic())

    async def stop(self, name: str, grace: float) -> None:
        """See `Runtime.stop`. The engine counts the grace period in whole seconds."""
        try:
            await self._stop(name, grace)
        except _Refused:  # Podman does not stop a paused container
            if not (await inspect(self._engine, self._id(name)))["State"]["Paused"]:
                raise
            await self.unpause(name)
            await self._stop(name, grace)

    async def remove(self, name: str) -> None:
        """See `Runtime.remove`. Anonymous volumes that no successor gets are removed too."""
        running = ReplicaRunning(f"container {name} is running or is being removed; stop it first")
        errors = {404: not_found(name), 409: running}
        try:
            async with self._engine.request(errors=errors, otherwise=_Refused) as docker:
                await docker.containers.container(self._id(name)).delete(v=True)
        except _Refused as reason:  # Podman answers 500, whatever the reason is
            if not (await inspect(self._engine, self._id(name)))["State"]["Running"]:
                raise
            raise running from reason

    async def execute(self, name: str, hook: ContainerHook, seconds: float) -> CommandResult:
        """See `Runtime.execute`."""
        return await logs.execute(self._engine, self._id(name), hook, seconds)

    async def pause(self, name: str) -> None:
        """See `Runtime.pause`. A container that is paused or has ended stays as it is."""
        await self._freeze(name, "pause")

    async def unpause(self, name: str) -> None:
        """See `Runtime.unpause`."""
        await self._freeze(name, "unpause")

    async def set_host_names(
        self, name: str, names: Mapping[str, str], blocks: Sequence[str]
    ) -> None:
        """See `Runtime.set_host_names`: edit the container's hosts file."""
        if not self.is_local:
            return
        path = (await inspect(self._engine, name)).get("HostsPath")
        if path:
            try:
                await asyncio.to_thread(write_hosts, path, names, blocks)
            except OSError as error:  # the engine is elsewhere, or we have no right to
                _log.debug("hosts file is left as it is", replica=name, reason=str(error))

    async def held_projects(self) -> Collection[str]:
        """Return the projects that a mesh holds here, until their last network is gone."""
        return frozenset(await self._claims.all())

    async def anonymous_volumes(self) -> Mapping[str, Sequence[str]]:
        """Return the paths of the anonymous volumes that successors get, by service key."""
        return await self._anonymous.paths()

    async def network_names(self, name: str) -> Mapping[str, Sequence[str]]:
        """Return the names that a replica has on each of its networks, by network. Raises
        ReplicaNotFound."""
        networks = (await inspect(self._engine, self._id(name)))["NetworkSettings"]["Networks"]
        return {network: each.get("Aliases") or () for network, each in (networks or {}).items()}

    async def connect(self, name: str, network: str, names: Sequence[str]) -> None:
        """Connect a running replica to one more network, with these names there; no effect if it is
        connected. Raises RuntimeFailure."""
        body = {"Container": self._id(name), "EndpointConfig": {"Aliases": list(names)}}
        # By name: this engine finds the network of a Swarm by its id only once it takes part in it.
        errors: dict[int, RuntimeFailure] = {403: _Connected()}
        with suppress(_Connected):
            async with (
                self._engine.request(errors=errors) as docker,
                docker._query(f"networks/{network}/connect", "POST", data=json.dumps(body)),
            ):
                return

    async def redirect_ports(self, redirects: Collection[PortRedirect]) -> PortRedirects:
        """See `Runtime.redirect_ports`."""
        if self._port_redirection is None:
            return PortRedirects()
        return await self._port_redirection.apply(redirects)

    async def usage(self, names: Sequence[str]) -> Mapping[str, Usage]:
        """See `Runtime.usage`: one reading of each container's statistics."""
        found = await usage.read_usage(self._engine, [self._id(name) for name in names])
        return {name: found[self._id(name)] for name in names if self._id(name) in found}

    async def logs(self, name: str, tail: int) -> Sequence[str]:
        """See `Runtime.logs`."""
        return await logs.tail(self._engine, self._id(name), tail)

    async def timed_logs(self, name: str, query: OutputQuery) -> Sequence[OutputLine]:
        """See `Runtime.timed_logs`."""
        return await logs.timed_tail(self._engine, self._id(name), query)

    def follow(self, name: str, query: OutputQuery) -> AsyncIterator[OutputLine]:
        """See `Runtime.follow`."""
        return logs.follow(self._engine, self._id(name), query)

    async def volumes(self) -> Sequence[RuntimeVolume]:
        """See `Runtime.volumes`."""
        return await self._volumes.list()

    def read_volume(self, name: str) -> AsyncIterator[bytes]:
        """See `Runtime.read_volume`."""
        return self._volumes.read(name)

    async def stage_volume(self, name: str, data: AsyncIterator[bytes]) -> None:
        """See `Runtime.stage_volume`."""
        await self._volumes.stage(name, data)

    async def commit_volume(self, name: str) -> None:
        """See `Runtime.commit_volume`."""
        await self._volumes.commit(name)

    async def discard_staged(self, name: str) -> None:
        """See `Runtime.discard_staged`."""
        await self._volumes.discard(name)

    async def remove_volume(self, name: str) -> None:
        """See `Runtime.remove_volume`."""
        await self._volumes.remove(name)

    async def is_volume_empty(self, name: str) -> bool:
        """See `Runtime.is_volume_empty`."""
        return await self._volumes.is_empty(name)

    async def claims(self) -> Mapping[str, Holder]:
        """See `Runtime.claims`."""
        return await self._claims.all()

    async def claim(self, project: str, holder: Holder, instead_of: Holder | None = None) -> Holder:
        """See `Runtime.claim`."""
        return await self._claims.claim(project, holder, instead_of)

    async def unclaim(self, project: str, holder: Holder) -> None:
        """See `Runtime.unclaim`."""
        await self._claims.unclaim(project, holder)

    async def teardown(self, project: str) -> None:
        """See `Runtime.teardown`: removes the project's networks and anonymous volumes."""
        await self._anonymous.remove(project)
        await self._networks.remove(project)

    def _id(self, name: str) -> str:
        """Return how the engine finds the container of a replica."""
        return self._sightings.container_of(name)

    async def _stop(self, name: str, grace: float) -> None:
        errors = {404: not_found(name)}
        async with self._engine.request(grace + STOP_MARGIN, errors, _Refused) as docker:
            await docker.containers.container(self._id(name)).stop(t=math.ceil(grace))

    async def _info(self) -> Info:
        async with self._engine.request() as docker:
            return dict(await docker.system.info())

    async def _creation(self, replica: ReplicaSpec) -> CreateRequest:
        options = replica.service.options
        names = set(options.shared_services)
        if options.network_mode == "bridge":
            names |= set(options.linked_services)
        peers = await find_peers(self._engine, replica.project, names) if names else {}
        return create_request(replica, self._logging_driver, self._limits, peers)

    def _refuse(self, service: Service) -> None:
        """Raise Unsupported with everything that this engine cannot run."""
        refused = [str(lack) for lack in unsupported(service, self._capabilities) if lack.refuse]
        if refused:
            raise Unsupported("; ".join(refused))

    async def _freeze(self, name: str, act: Literal["pause", "unpause"]) -> None:
        state = (await inspect(self._engine, self._id(name)))["State"]
        if not state["Running"]:
            raise ReplicaNotFound(f"container {name} has ended")
        if state["Paused"] == (act == "pause"):
            return
        async with self._engine.request(errors={404: not_found(name)}) as docker:
            container = docker.containers.container(self._id(name))
            await (container.pause() if act == "pause" else container.unpause())
