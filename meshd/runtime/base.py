"""The runtime protocol: what the control plane may ask of the software that runs replicas.

Implemented by `meshd.runtime.docker` and `meshd.runtime.process`; used by
`meshd.reconcile.execute`, `meshd.discovery` and queries. Times are Unix seconds of the runtime's
own clock, durations are seconds.
"""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

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
from meshd.spec.model import ContainerHook, Network, Service

ONE_NODE: Final = (
    "this runtime has one node, so that its replicas have no other place; with --runtime swarm "
    "there may be several"
)
"""Why a node cannot be cordoned or drained on a runtime other than Swarm."""


class RuntimeFailure(Exception):
    """Base of all errors of a runtime. The text says what to do if that is known."""


class RuntimeUnavailable(RuntimeFailure):
    """The runtime does not answer (engine down, keeper gone); retry later."""


class ImageMissing(RuntimeFailure):
    """The image exists neither locally nor in its registry."""


class StartFailed(RuntimeFailure):
    """The replica could not be created or started; the text is the runtime's reason."""


class ReplicaNotFound(RuntimeFailure):
    """No replica of that name exists here."""


class ReplicaRunning(RuntimeFailure):
    """The replica is still running; stop it first."""


class NodeNotFound(RuntimeFailure):
    """No node of that name exists, or several have it."""


class VolumeFailure(RuntimeFailure):
    """A volume does not exist, is in use, or cannot be read or written."""


class RevisionMissing(RuntimeFailure):
    """The revision to start is not stored any more."""


class Unsupported(RuntimeFailure):
    """This runtime does not support the request; its capabilities say so."""


class EventKind(StrEnum):
    """What happened to a replica.

    - RESYNC: events may have been lost; list again.
    - CUT: no events until the next RESYNC; check whether the runtime still answers.
    - STOPPING: first sign of a requested end (the engine's `kill` event with the stop signal or 9).
    - DIED: the process has ended.
    """

    RESYNC = "resync"
    CUT = "cut"
    STARTED = "started"
    STOPPING = "stopping"
    DIED = "died"
    REMOVED = "removed"
    HEALTH = "health"
    PAUSED = "paused"
    UNPAUSED = "unpaused"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class RuntimeEvent:
    """One event about a replica on the runtime. `replica` is the full observation after it, if the
    runtime has one."""

    kind: EventKind
    name: str = ""
    at: float = 0.0
    replica: ObservedReplica | None = None


class Runtime(Protocol):
    """The interface of a runtime: runs replicas. Every method may raise RuntimeUnavailable."""

    @property
    def name(self) -> str:
        """`docker`, `process` or `swarm`."""

    @property
    def capabilities(self) -> Capabilities:
        """What this runtime supports; constant."""

    @property
    def is_local(self) -> bool:
        """Whether replicas run on this host, and publish ports here."""

    @property
    def own_node(self) -> str:
        """The node that this process runs on, if replicas run on several; else empty, and while it
        is not known."""

    @property
    def token_address(self) -> str:
        """The address (`HOST:PORT`) on which the mesh is to listen for calls with a token, if
        callers have one (`Capabilities.tokens`); port 0 lets the kernel choose. Empty while it is
        not known."""

    async def open(self) -> None:
        """Connect, and check that the runtime answers."""

    async def close(self) -> None:
        """Close connections; replicas keep running."""

    async def nodes(self) -> Sequence[Node]:
        """Return the machines on which replicas can be placed."""

    async def all_nodes(self) -> Sequence[Node]:
        """Return all machines of the runtime by name, also those that take no replicas now, with
        what their tasks reserve."""

    async def set_availability(
        self, node: str, availability: Availability, drain_until: float = 0.0
    ) -> None:
        """Set whether a node takes replicas, and until when meshd drains it (0: it does not).
        Raises NodeNotFound; Unsupported on a runtime with one node."""

    async def list(self) -> Sequence[ObservedReplica]:
        """Return every replica with the mesh's labels, own and adopted, of all projects."""

    async def jobs(self) -> Sequence[ObservedReplica]:
        """Return every one-off job that a mesh started here (`ReplicaSpec.job`), including ended
        ones until they are removed. `stop`, `remove`, `logs` and `follow` take their names
        too; `watch` does not report them."""

    def watch(self) -> AsyncIterator[RuntimeEvent]:
        """Yield events from now on, without end. The first is RESYNC, once the subscription
        exists; another RESYNC follows each time the stream was cut and restored."""

    async def unobtainable_reason(self, project: str, service: Service) -> str | None:
        """Return the reason why the service's image cannot be had, in one line; None if it can, or
        if the service needs none. Changes nothing. Raises RuntimeUnavailable."""

    async def resolve(self, services: Sequence[Service], fetch: bool = False) -> Sequence[Service]:
        """Return the services with what identifies their image pinned: the digest of what they are
        built from (`Build.digest`), or the image that `image` names now (`Service.image_id`).

        With `fetch`, pull images first as `Service.pull` says; without it, an image that is missing
        stays unpinned. Raises StartFailed if a context cannot be read, ImageMissing.
        """

    async def prepare(
        self, project: str, service: Service, networks: Sequence[Network] = ()
    ) -> None:
        """Create what replicas of `service` need: image, networks, volumes. Idempotent.
        `networks` are the project's declared networks; they say which are internal. Raises
        ImageMissing, StartFailed."""

    def image_progress(self) -> Sequence[ImageProgress]:
        """Return the images that are being pulled or built now."""

    async def mesh_addresses(self, project: str, services: Sequence[str]) -> Sequence[MeshAddress]:
        """Return where the mesh listens for calls from each of these services (after `prepare`)."""

    async def address_ranges(self, project: str) -> Sequence[AddressRange]:
        """Return the networks of a project with addresses for virtual addresses (after `prepare`);
        none on a runtime without networks."""

    async def start(self, replica: ReplicaSpec) -> ObservedReplica:
        """Create and start one replica. Raises ImageMissing, StartFailed, Unsupported."""

    async def stop(self, name: str, grace: float) -> None:
        """Send the stop signal, then KILL after `grace` seconds; return once the replica has
        ended. Raises ReplicaNotFound."""

    async def remove(self, name: str) -> None:
        """Remove an ended replica and what was created for it alone. Raises ReplicaNotFound,
        ReplicaRunning."""

    async def execute(self, name: str, hook: ContainerHook, seconds: float) -> CommandResult:
        """Run a command in a running replica and return how it ended. Raises ReplicaNotFound if the
        replica does not run, StartFailed if the command cannot be started or takes longer than
        `seconds`, Unsupported."""

    async def pause(self, name: str) -> None:
        """Freeze a running replica. Raises ReplicaNotFound, Unsupported."""

    async def unpause(self, name: str) -> None:
        """Resume a frozen replica. Raises ReplicaNotFound, Unsupported."""

    async def set_host_names(
        self, name: str, names: Mapping[str, str], blocks: Sequence[str]
    ) -> None:
        """Give the addresses in `blocks` (CIDR notation) exactly these `names` in a running
        replica. No effect where the runtime cannot. Raises ReplicaNotFound."""

    async def redirect_ports(self, redirects: Collection[PortRedirect]) -> PortRedirects:
        """Lead new connections to exactly these ports of the host elsewhere, also where the runtime
        publishes them for a replica. Return those that are in effect now."""

    async def usage(self, names: Sequence[str]) -> Mapping[str, Usage]:
        """Return the current usage of these replicas, without those that do not run."""

    async def logs(self, name: str, tail: int) -> Sequence[str]:
        """Return the last `tail` lines of its output, oldest first, also of an ended replica.
        Raises ReplicaNotFound."""

    async def timed_logs(self, name: str, query: OutputQuery) -> Sequence[OutputLine]:
        """Return the last lines of its output with the times they were written, oldest first.
        Raises ReplicaNotFound."""

    def follow(self, name: str, query: OutputQuery) -> AsyncIterator[OutputLine]:
        """Yield the past lines that are asked for (`tail`, `since`), then new ones until the
        replica ends: none between them is left out, and none comes twice. Raises
        ReplicaNotFound."""

    async def volumes(self) -> Sequence[RuntimeVolume]:
        """Return the named volumes, also those that meshd did not create."""

    def read_volume(self, name: str) -> AsyncIterator[bytes]:
        """Yield the content of a volume as a tar. Raises VolumeFailure."""

    async def stage_volume(self, name: str, data: AsyncIterator[bytes]) -> None:
        """Receive a tar that is to replace the content of a volume, which stays as it is. Raises
        VolumeFailure if the tar is not complete, and what `data` raises; nothing is kept then."""

    async def commit_volume(self, name: str) -> None:
        """Replace the content of a volume, which no container may have, by what was staged. If that
        is interrupted, the next `start` with the volume completes it. Raises VolumeFailure."""

    async def discard_staged(self, name: str) -> None:
        """Remove what was staged for a volume; no effect if there is nothing."""

    async def remove_volume(self, name: str) -> None:
        """Delete a volume with its content. Raises VolumeFailure if a container has it."""

    async def is_volume_empty(self, name: str) -> bool:
        """Whether a volume has no files. Raises VolumeFailure."""

    async def claims(self) -> Mapping[str, Holder]:
        """Return the projects claimed by a mesh on this runtime, each with its holder."""

    async def claim(self, project: str, holder: Holder, instead_of: Holder | None = None) -> Holder:
        """Claim a project if it is free or held by `instead_of`; atomic, and kept by the runtime
        itself. Return the holder from now on, which may be another mesh."""

    async def unclaim(self, project: str, holder: Holder) -> None:
        """Release a project; no effect if `holder` does not hold it."""

    async def teardown(self, project: str) -> None:
        """Remove what `prepare` created for a project without replicas; data volumes are kept."""
