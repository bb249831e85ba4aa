"""The Swarm runtime: each replica is a Swarm service with one task.

Implements `Runtime` for the control process, through the engine of a manager on this host. The
Swarm holds the state: labels of services mark what is ours, configs hold the claims, so that a
meshd on another manager finds everything again. Neighbours: `view` (observes), `api`
(requests), `service_spec` (pure: the engine's JSON), `changes` (pure: events), `placement` (pure:
nodes), `networks`, `secrets`, `claims`.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

import structlog

from meshd.model.node_proxy import NodeLoad
from meshd.model.output import OutputLine, OutputQuery
from meshd.model.peers import PeerSettings
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
    find_left,
)
from meshd.model.volume import RuntimeVolume
from meshd.runtime.base import (
    EventKind,
    ImageMissing,
    NodeNotFound,
    ReplicaNotFound,
    ReplicaRunning,
    RuntimeEvent,
    RuntimeFailure,
    RuntimeUnavailable,
    StartFailed,
    Unsupported,
    VolumeFailure,
)
from meshd.runtime.docker import logs as container_logs
from meshd.runtime.docker import usage
from meshd.runtime.docker.container import DEFAULT_LOG_DRIVER, NANOSECONDS
from meshd.runtime.docker.engine import Engine, Info
from meshd.runtime.docker.images.auth import find_login
from meshd.runtime.docker.images.image import Images
from meshd.runtime.support import unsupported
from meshd.runtime.swarm.api import Gone, NameTaken, SwarmApi
from meshd.runtime.swarm.calls import call_through, join_address
from meshd.runtime.swarm.changes import find_changes
from meshd.runtime.swarm.claims import SwarmClaims
from meshd.runtime.swarm.logs import TaskLogs
from meshd.runtime.swarm.networks import OverlayNetworks
from meshd.runtime.swarm.observe import (
    available_spec,
    describe_error,
    is_missing_image,
    lacks_kept_port,
    reserved_by_node,
)
from meshd.runtime.swarm.placement import NodeChoice, PendingPlaces, choose
from meshd.runtime.swarm.secrets import SwarmSecrets
from meshd.runtime.swarm.service_spec import (
    image_of,
    kept_port_spec,
    secret_files,
    service_spec,
    stopped_spec,
)
from meshd.runtime.swarm.view import FoundReplica, SwarmView, no_peers, not_found
from meshd.spec import labels
from meshd.spec.model import ContainerHook, Network, Service

_log = structlog.stdlib.get_logger(__name__)

CAPABILITIES: Final = Capabilities(
    images=True,
    networks=True,
    cpu_limits=True,
    memory_limits=True,
    pause=False,
    container_health=True,
    volumes=True,
    buildkit=True,
    tokens=True,
    swarm=True,
)
CALLS_PORT: Final = 15781
"""Port of the node's address on which the mesh listens for calls of replicas. Fixed, because
replicas outlive meshd and keep it in their environment; below the ports that the kernel gives to
clients (32768 and up), and not registered for another use."""
START_PATIENCE: Final = 600.0
"""Seconds until a task runs: its node may have to pull a large image first."""
PENDING_PATIENCE: Final = 3.0
"""Seconds that a task may wait for a node, once the Swarm has said why it has none."""
NO_SUITABLE_NODE: Final = "no suitable node"
"""Beginning of Swarm's reason for a task that has no node."""
MOST_CHOICES: Final = 3
"""Nodes that are tried before the Swarm chooses: each takes `PENDING_PATIENCE`."""
STOP_MARGIN: Final = 20.0
"""Seconds that stopping may take beyond the grace period."""
FIRST_POLL, LONGEST_POLL = 0.05, 0.5
"""Seconds between two looks at a task that starts or stops; the first is doubled up to the
second."""
WATCH_INTERVAL: Final = 0.5
"""Seconds between two listings for events: no engine reports the tasks of other nodes."""
RETRY_FIRST, RETRY_LONGEST = 0.1, 2.0
KEEP_PAUSE: Final = 5.0
"""Seconds until ports of replicas are written again after a failure."""
NO_VOLUMES: Final = (
    "the volumes of a Swarm are on its nodes, and meshd reaches only its own; use the engine of "
    "the node"
)


def _unknown_load(node: str) -> None:
    """Return None: nothing reports loads."""
    del node


class SwarmRuntime:
    """Run replicas in the Swarm whose manager DOCKER_HOST, the Docker context or the default socket
    names. `may_change`: see `SwarmApi`; None: it always may. `peers` returns which nodes have a
    proxy, `load_of` how busy a node is."""

    def __init__(
        self,
        may_change: Callable[[], float] | None = None,
        peers: Callable[[], PeerSettings] = no_peers,
        load_of: Callable[[str], NodeLoad | None] = _unknown_load,
    ) -> None:
        self._load_of = load_of
        self._engine = Engine()
        self._api = SwarmApi(self._engine, may_change) if may_change else SwarmApi(self._engine)
        self._view = SwarmView(self._engine, self._api, peers)
        self._images = Images(self._engine)
        self._networks = OverlayNetworks(self._api)
        self._secrets = SwarmSecrets(self._api)
        self._claims = SwarmClaims(self._api)
        self._logs = TaskLogs(self._engine, self._is_terminal, self._has_ended)
        self._capabilities = CAPABILITIES
        self._peers = peers
        self._node_address = ""
        self._own_node = ""
        self._logging_driver = DEFAULT_LOG_DRIVER
        self._pending = PendingPlaces()
        self._keep_at = 0.0
        self._wake = asyncio.Event()

    @property
    def name(self) -> str:
        """`swarm`."""
        return "swarm"

    @property
    def capabilities(self) -> Capabilities:
        """Everything but pausing, and what `limits` names."""
        return self._capabilities

    @property
    def is_local(self) -> bool:
        """False: replicas may run on any node."""
        return False

    @property
    def own_node(self) -> str:
        """See `Runtime.own_node`."""
        return self._own_node

    @property
    def token_address(self) -> str:
        """The address of this node in the Swarm, which tasks on every node reach."""
        if not self._node_address:
            return ""
        return join_address(self._node_address, CALLS_PORT)

    async def open(self) -> None:
        """Connect. Raises RuntimeUnavailable, also if the engine is not a manager of a Swarm on
        this host; may be called again."""
        await self._engine.open()
        if not self._engine.is_local:
            raise RuntimeUnavailable(
                "the swarm runtime needs the Unix socket of a manager: run meshd on the host of a "
                "manager, so that replicas can reach it by the address of that node"
            )
        swarm = await self._api.local_state()
        self._view.node_id = str(swarm["NodeID"])
        self._node_address = str(swarm["NodeAddr"])
        self._own_node = str(swarm["Name"])
        self._logging_driver = str(swarm["Logging"])
        self._capabilities = replace(CAPABILITIES, engine_api=self._engine.newest_api)

    async def close(self) -> None:
        """Close the connections."""
        await self._engine.close()

    async def nodes(self) -> Sequence[Node]:
        """Return the nodes that take tasks."""
        nodes = (await self._view.nodes()).values()
        return sorted((each.as_node() for each in nodes if each.takes_tasks), key=lambda n: n.name)

    async def all_nodes(self) -> Sequence[Node]:
        """See `Runtime.all_nodes`."""
        nodes = await self._view.nodes()
        reserved = reserved_by_node(await self._api.list("tasks"))
        found = [
            each.as_node(reserved.get(each.id, (0.0, 0)), self._load_of(each.name))
            for each in nodes.values()
        ]
        return sorted(found, key=lambda each: each.name)

    async def set_availability(
        self, node: str, availability: Availability, drain_until: float = 0.0
    ) -> None:
        """See `Runtime.set_availability`."""
        ids = [each.id for each in await self._present_nodes() if each.name == node]
        if not ids:
            raise NodeNotFound(f"no node {node} exists")
        if len(ids) > 1:
            raise NodeNotFound(
                f"{len(ids)} nodes have the name {node} ({', '.join(ids)}); remove those that are "
                "not used any more with `docker node rm ID`"
            )
        try:
            await self._api.update(
                "nodes", ids[0], lambda spec: available_spec(spec, availability, drain_until)
            )
        except Gone as gone:
            raise NodeNotFound(f"no node {node} exists") from gone
        self._wake.set()

    async def _present_nodes(self) -> Sequence[Node]:
        """Return the nodes without the old entries of those that left and joined again."""
        nodes = [each.as_node() for each in (await self._view.nodes()).values()]
        left = find_left(nodes)
        return [each for each in nodes if each.id not in left]

    async def list(self) -> Sequence[ObservedReplica]:
        """See `Runtime.list`."""
        return [seen for seen in await self._view.all() if labels.JOB not in seen.labels]

    async def jobs(self) -> Sequence[ObservedReplica]:
        """See `Runtime.jobs`."""
        return [seen for seen in await self._view.all() if labels.JOB in seen.labels]

    async def watch(self) -> AsyncIterator[RuntimeEvent]:
        """See `Runtime.watch`. Engine events only make the next listing sooner. While the Swarm
        does not answer, or refuses the listing, retry with growing pauses."""
        pause = RETRY_FIRST
        while True:
            stood = False
            try:
                async with self._engine.events(("service", "node", "container")) as events:
                    listening = asyncio.create_task(self._listen(events))
                    try:
                        before = _by_name(await self.list())
                        pause, stood = RETRY_FIRST, True
                        await self._keep_ports(before.values())
                        yield RuntimeEvent(EventKind.RESYNC, at=time.time())
                        while not listening.done():
                            await self._rest()
                            after = _by_name(await self.list())
                            await self._keep_ports(after.values())
                            for event in find_changes(before, after, time.time()):
                                yield event
                            before = after
                        listening.result()
                    finally:
                        listening.cancel()
                        await asyncio.gather(listening, return_exceptions=True)
            except RuntimeFailure as reason:  # each: the control process must outlive it
                _log.debug("no events", reason=str(reason))
                pause = min(pause * 2, RETRY_LONGEST)
            if stood:
                yield RuntimeEvent(EventKind.CUT, at=time.time())
            await asyncio.sleep(pause)

    async def _listen(self, events: AsyncIterator[Info]) -> None:
        """Wake the watch for each event of the engine."""
        async for _ in events:
            self._wake.set()

    async def _rest(self) -> None:
        """Wait for an event or the next listing."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WATCH_INTERVAL):
                await self._wake.wait()
        self._wake.clear()

    async def unobtainable_reason(self, project: str, service: Service) -> str | None:
        """See `Runtime.unobtainable_reason`."""
        return await self._images.unobtainable_reason(project, service)

    async def resolve(self, services: Sequence[Service], fetch: bool = False) -> Sequence[Service]:
        """See `Runtime.resolve`: the digest of each image in its registry, and its id."""
        return [
            each if each.build is not None else await self._images.pin(each, fetch)
            for each in services
        ]

    async def prepare(
        self, project: str, service: Service, networks: Sequence[Network] = ()
    ) -> None:
        """See `Runtime.prepare`: create networks. Each node gets images and volumes itself."""
        self._refuse(service)
        await self._networks.ensure(project, service, networks)

    def image_progress(self) -> Sequence[ImageProgress]:
        """Return the images that this engine pulls; those of nodes are not known."""
        return self._images.progress()

    async def mesh_addresses(
        self,
        project: str,  # noqa: ARG002 (the protocol's)
        services: Sequence[str],  # noqa: ARG002 (the protocol's)
    ) -> Sequence[MeshAddress]:
        """None: calls have a token, see `token_address`."""
        return ()

    async def address_ranges(
        self,
        project: str,  # noqa: ARG002 (the protocol's)
    ) -> Sequence[AddressRange]:
        """None: the mesh has no addresses on overlay networks."""
        return ()

    async def start(self, replica: ReplicaSpec) -> ObservedReplica:
        """See `Runtime.start`. A service whose task does not start is removed again."""
        if replica.clone_of is not None:
            raise Unsupported(f"replica {replica.name}: a Swarm has no containers to clone")
        self._refuse(replica.service)
        service = replica.service
        if not service.image_id:  # a name alone would make every node ask the registry
            found = await self._images.pin(service, fetch=False)
            pin = {"image_id": found.image_id, "image_digest": found.image_digest}
            replica = replace(replica, service=service.model_copy(update=pin))
        if replica.node is not None:
            return await self._create(await self._with_calls(replica))
        refused: set[str] = set()
        choice = NodeChoice()
        try:
            for _ in range(MOST_CHOICES):
                choice = await self._choose(replica, refused)
                if choice.node is None:
                    break
                refused.add(choice.node)
                avoid = (*replica.avoid, *choice.excluded)
                chosen = replace(replica, avoid=avoid, node=choice.node, placed=choice.reason)
                try:
                    return await self._create(await self._with_calls(chosen))
                except StartFailed as failure:
                    if NO_SUITABLE_NODE not in str(failure):
                        raise
            return await self._create_anywhere(replica, choice)
        except StartFailed as failure:
            raise StartFailed(f"{failure}{_describe_excluded(service, choice)}") from failure
        finally:
            self._pending.nodes.pop(replica.name, None)

    async def _create_anywhere(self, replica: ReplicaSpec, choice: NodeChoice) -> ObservedReplica:
        """Let the Swarm choose the node: it has one that was not expected to have room, or says why
        there is none. Where calls of the replica would leave its node in clear text, it starts
        again, with the address of that node."""
        limited = replace(replica, avoid=(*replica.avoid, *choice.excluded))
        seen = await self._create(limited)
        expected = await self._with_calls(replace(limited, node=seen.node))
        if expected.environment == limited.environment or not self._peers().required:
            return seen
        await self.remove(seen.name)
        raise StartFailed(f"replica {replica.name}: {seen.node} has room for it only now")

    async def _with_calls(self, replica: ReplicaSpec) -> ReplicaSpec:
        """Return a replica whose calls go to the proxy of its node, if that has one."""
        nodes = {each.name: each for each in await self._present_nodes()}
        node = nodes.get(replica.node or "")
        if node is None or not node.has_proxy or not node.address:
            return replica
        return call_through(replica, self.token_address, join_address(node.address, CALLS_PORT))

    async def _choose(self, replica: ReplicaSpec, refused: Collection[str]) -> NodeChoice:
        """Return where a replica or job is placed, and count it there until it has started.
        Replicas of other revisions do not count, as they are being replaced. `refused` are nodes
        that the Swarm did not accept."""
        nodes = await self.all_nodes()
        seen = [each for each in await self._view.all() if each.state is not ReplicaState.EXITED]
        key = f"{replica.project}/{replica.service.name}/{replica.revision}"
        own = Counter(
            each.node
            for each in seen
            if f"{each.project}/{each.service}/{each.revision}" == key
            and labels.JOB not in each.labels
        )
        own += self._pending.count(key, {each.name for each in seen if each.node})
        others = {f"{replica.project}/{name}" for name in replica.service.mesh.placement.apart_from}
        apart = {each.node for each in seen if f"{each.project}/{each.service}" in others}
        apart |= self._pending.nodes_of(others)
        tasks = Counter(each.node for each in seen)
        avoid = (*replica.avoid, *refused)
        if replica.job:  # it counts as no replica, and is kept apart from none
            return choose(replica.service, nodes, {}, tasks, avoid)
        found = choose(replica.service, nodes, own, tasks, avoid, apart - {""})
        if found.node is not None:
            self._pending.nodes[replica.name] = (key, found.node)
        return found

    async def _create(self, replica: ReplicaSpec) -> ObservedReplica:
        """Create the service of a replica, and return the replica once its task runs."""
        names = await self._networks.find_names(replica.project, replica.service)
        if names:
            update = {"network_names": {**replica.service.network_names, **names}}
            replica = replace(replica, service=replica.service.model_copy(update=update))
        login = await find_login(replica.service.image)
        try:
            async with self._secrets.using(replica) as secrets:
                body = service_spec(replica, secrets, self._logging_driver)
                made = await self._api.create("services", body, login.headers, StartFailed)
        except NameTaken as taken:
            raise StartFailed(f"replica {replica.name}: a service of that name exists") from taken
        except StartFailed as failure:
            await self._remove_secrets(replica)
            raise StartFailed(f"replica {replica.name}: {failure}") from failure
        except asyncio.CancelledError:
            await asyncio.shield(self._remove_secrets(replica))
            raise
        self._view.starting.add(made)
        try:
            return await self._await_start(replica, made)
        except (StartFailed, ImageMissing, asyncio.CancelledError):
            await asyncio.shield(self._discard(replica, made))
            raise
        finally:
            self._view.starting.discard(made)
            self._wake.set()

    async def _await_start(self, replica: ReplicaSpec, service: str) -> ObservedReplica:
        """Return the replica once its task runs. Raises StartFailed, ImageMissing."""
        pause, refused_at, began = FIRST_POLL, 0.0, time.monotonic()
        while True:
            found = await self._view.one(service, replica.name)
            seen, now = found.seen, time.monotonic()
            if seen.state is ReplicaState.RUNNING:
                return seen
            if seen.state is ReplicaState.EXITED:
                if _has_begun(found.task):
                    return seen
                raise _start_failure(replica, found)
            state = found.task["Status"]["State"] if found.task else "without a task"
            reason = describe_error(found.task, found.nodes)
            refused_at = (refused_at or now) if state == "pending" and reason else 0.0
            if refused_at and now > refused_at + PENDING_PATIENCE:
                raise StartFailed(f"replica {replica.name}: {reason}")
            if now > began + START_PATIENCE:
                raise StartFailed(
                    f"replica {replica.name}: still {state} after {START_PATIENCE:.0f} s"
                )
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_POLL)

    async def _discard(self, replica: ReplicaSpec, service: str) -> None:
        """Remove a service that did not start, and the secrets that no other replica has."""
        try:
            await self._api.delete("services", service)
        except RuntimeFailure as failure:
            _log.warning("service was not removed", service=service, reason=str(failure))
        else:
            await self._remove_secrets(replica)

    async def _remove_secrets(self, replica: ReplicaSpec) -> None:
        """Remove the secrets of the revision of a replica that did not start, unless another
        replica has them."""
        if not secret_files(replica.service):
            return
        try:
            await self._secrets.remove(replica.project, replica.service.name, replica.revision)
        except RuntimeFailure as failure:
            _log.warning("secrets were not removed", replica=replica.name, reason=str(failure))

    async def _keep_ports(self, replicas: Iterable[ObservedReplica]) -> None:
        """Write the ports of the nodes that lead to replicas into their services, so that they stay
        known when another manager leads the Swarm."""
        for seen in replicas:
            if lacks_kept_port(seen) and time.monotonic() >= self._keep_at:
                try:
                    await self._api.update(
                        "services", seen.name, partial(kept_port_spec, seen.port)
                    )
                except Gone:
                    continue
                except RuntimeFailure as failure:
                    self._keep_at = time.monotonic() + KEEP_PAUSE
                    _log.warning("port is not kept", replica=seen.name, reason=str(failure))

    async def stop(self, name: str, grace: float) -> None:
        """See `Runtime.stop`. The task ends by an update with a constraint that no node meets. Its
        node counts the grace period that the service was created with; a shorter one is enforced
        for tasks of this node."""
        try:
            await self._api.update("services", name, stopped_spec)
        except Gone as gone:
            raise not_found(name) from gone
        self._wake.set()
        pause, began, killed = FIRST_POLL, time.monotonic(), False
        while True:
            found = await self._view.one(name)
            if found.seen.state is ReplicaState.EXITED:
                self._wake.set()
                return
            waited = time.monotonic() - began
            own = found.container.get("StopGracePeriod", 0) / NANOSECONDS
            if own > grace < waited and not killed:
                killed = True
                await self._kill(self._view.local_container(found.task))
            if waited > max(grace, own) + STOP_MARGIN:
                raise RuntimeFailure(f"replica {name} has not ended after {waited:.0f} s")
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_POLL)

    async def _kill(self, container: str) -> None:
        """Kill a container of this node; no effect for an empty id."""
        if container:
            with contextlib.suppress(RuntimeFailure):
                async with self._engine.request() as docker:
                    await docker.containers.container(container).kill(signal="SIGKILL")

    async def remove(self, name: str) -> None:
        """See `Runtime.remove`. The node removes the container a moment later."""
        found = await self._view.one(name)
        seen = found.seen
        if seen.state in (ReplicaState.RUNNING, ReplicaState.STOPPING):
            raise ReplicaRunning(f"replica {name} is running; stop it first")
        try:
            await self._api.delete("services", found.service["ID"])
        except Gone as gone:
            raise not_found(name) from gone
        if found.container.get("Secrets"):
            await self._secrets.remove(seen.project, seen.service, seen.revision)
        self._wake.set()

    async def execute(self, name: str, hook: ContainerHook, seconds: float) -> CommandResult:
        """See `Runtime.execute`: for tasks of this node only."""
        container = self._view.local_container((await self._view.one(name)).task)
        if not container:
            raise Unsupported(f"replica {name} runs on another node, where no command can be run")
        return await container_logs.execute(self._engine, container, hook, seconds)

    async def pause(self, name: str) -> None:
        """Not supported by Swarm."""
        await self._view.one(name)
        raise Unsupported(f"replica {name}: a Swarm cannot pause tasks")

    async def unpause(self, name: str) -> None:
        """Not supported by Swarm."""
        await self.pause(name)

    async def set_host_names(
        self,
        name: str,
        names: Mapping[str, str],
        blocks: Sequence[str],
    ) -> None:
        """Nothing: there are no virtual addresses."""

    async def redirect_ports(
        self,
        redirects: Collection[PortRedirect],  # noqa: ARG002 (the protocol's)
    ) -> PortRedirects:
        """Nothing: ports of plain services are published on other nodes too."""
        return PortRedirects()

    async def usage(self, names: Sequence[str]) -> Mapping[str, Usage]:
        """See `Runtime.usage`: of the replicas on this node."""
        found = await self._view.local_containers(names)
        readings = await usage.read_usage(self._engine, list(found.values()))
        return {name: readings[each] for name, each in found.items() if each in readings}

    async def logs(self, name: str, tail: int) -> Sequence[str]:
        """See `Runtime.logs`."""
        return await self._logs.tail(name, tail)

    async def timed_logs(self, name: str, query: OutputQuery) -> Sequence[OutputLine]:
        """See `Runtime.timed_logs`."""
        return await self._logs.timed_tail(name, query)

    def follow(self, name: str, query: OutputQuery) -> AsyncIterator[OutputLine]:
        """See `Runtime.follow`."""
        return self._logs.follow(name, query)

    async def volumes(self) -> Sequence[RuntimeVolume]:
        """None: they are on the nodes."""
        return ()

    def read_volume(self, name: str) -> AsyncIterator[bytes]:
        """See `Runtime.read_volume`."""
        raise VolumeFailure(f"{name}: {NO_VOLUMES}")

    async def stage_volume(self, name: str, data: AsyncIterator[bytes]) -> None:  # noqa: ARG002
        """See `Runtime.stage_volume`."""
        raise VolumeFailure(f"{name}: {NO_VOLUMES}")

    async def commit_volume(self, name: str) -> None:
        """See `Runtime.commit_volume`."""
        raise VolumeFailure(f"{name}: {NO_VOLUMES}")

    async def discard_staged(self, name: str) -> None:
        """See `Runtime.discard_staged`: nothing can be staged."""

    async def remove_volume(self, name: str) -> None:
        """See `Runtime.remove_volume`."""
        raise VolumeFailure(f"{name}: {NO_VOLUMES}")

    async def is_volume_empty(self, name: str) -> bool:
        """See `Runtime.is_volume_empty`."""
        raise VolumeFailure(f"{name}: {NO_VOLUMES}")

    async def claims(self) -> Mapping[str, Holder]:
        """See `Runtime.claims`."""
        return await self._claims.all()

    async def claim(self, project: str, holder: Holder, instead_of: Holder | None = None) -> Holder:
        """See `Runtime.claim`."""
        return await self._claims.claim(project, holder, instead_of)

    async def unclaim(self, project: str, holder: Holder) -> None:
        """See `Runtime.unclaim`."""
        await self._claims.unclaim(project, holder)

    async def overlay_of(self, network: str) -> str:
        """Return the name of the overlay next to a network of the engine; empty if there is none
        yet."""
        return await self._networks.find_next_to(network)

    async def teardown(self, project: str) -> None:
        """See `Runtime.teardown`: removes the project's secrets and networks."""
        await self._secrets.remove(project)
        await self._networks.remove(project)

    def _refuse(self, service: Service) -> None:
        """Raise Unsupported with everything that a Swarm cannot run."""
        refused = [str(lack) for lack in unsupported(service, self._capabilities) if lack.refuse]
        if refused:
            raise Unsupported("; ".join(refused))

    async def _is_terminal(self, name: str) -> bool:
        return bool((await self._view.one(name)).container.get("TTY"))

    async def _has_ended(self, name: str) -> bool:
        try:
            found = await self._view.one(name)
        except ReplicaNotFound:
            return True
        return found.seen.state is ReplicaState.EXITED


def _by_name(replicas: Sequence[ObservedReplica]) -> dict[str, ObservedReplica]:
    return {seen.name: seen for seen in replicas}


def _describe_excluded(service: Service, choice: NodeChoice) -> str:
    """Return which nodes must not get a replica, and why; empty if each may."""
    text = ""
    if choice.closed:
        names = ", ".join(choice.closed)
        text += f"; the proxy of {names} is missing or not connected: see `meshd nodes`"
    if choice.full:
        text += f"; {', '.join(choice.full)} may have no more than {service.most_per_node} of it"
    if choice.apart:
        others = ", ".join(service.mesh.placement.apart_from)
        text += f"; {', '.join(choice.apart)}: x-mesh.placement keeps it apart from {others}"
    return text


def _has_begun(task: Info | None) -> bool:
    """Whether the process of a task ran, and then ended: the Swarm says so only by the message."""
    return task is not None and task["Status"].get("Message") in ("started", "finished", "shutdown")


def _start_failure(replica: ReplicaSpec, found: FoundReplica) -> RuntimeFailure:
    """Return the error for a task that did not start."""
    reason = describe_error(found.task, found.nodes) or "its task was removed"
    text = f"replica {replica.name}: {reason}"
    if found.task is None or not is_missing_image(found.task):
        return StartFailed(text)
    image = replica.service.image or image_of(replica.service)
    return ImageMissing(
        f"{text}; push {image} to a registry that all nodes reach, or load it on that node: "
        f"meshd node load HOST --image {image}"
    )
