"""The runtime protocol: what the control path may ask of whatever runs replicas.

Times are Unix seconds as the runtime's own clock gives them; durations are seconds.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from meshd.model.runtime import (
    Capabilities,
    Holder,
    MeshAddress,
    Node,
    ObservedReplica,
    ReplicaSpec,
    Usage,
)
from meshd.spec.model import Network, Service


class RuntimeFailure(Exception):
    """Base of what a runtime raises; the text says what to do where that is known."""


class RuntimeUnavailable(RuntimeFailure):
    """The runtime does not answer (engine down, keeper gone); try again later."""


class ImageMissing(RuntimeFailure):
    """The image exists neither locally nor where it was pulled from."""


class StartFailed(RuntimeFailure):
    """The replica could not be created or started; the text is the runtime's own reason."""


class ReplicaNotFound(RuntimeFailure):
    """No replica of that name runs here (any more)."""


class ReplicaRunning(RuntimeFailure):
    """The replica has not ended, and what was asked for needs that; stop it first."""


class Unsupported(RuntimeFailure):
    """This runtime cannot do what was asked; its capabilities say so beforehand."""


class EventKind(StrEnum):
    """What happened to a replica. RESYNC means that events may have been lost: list again.
    CUT, that none will come until the next RESYNC: see whether the runtime still answers.

    STOPPING is the first sign of an end that was asked for (the engine's `kill` event with
    the stop signal or 9); DIED is the end of the process.
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
    """One event. `replica` is the full observation after it, where the runtime could tell."""

    kind: EventKind
    name: str = ""
    at: float = 0.0
    replica: ObservedReplica | None = None


class Runtime(Protocol):
    """What runs replicas. Every method may raise RuntimeUnavailable."""

    @property
    def name(self) -> str:
        """`docker` or `process`."""

    @property
    def capabilities(self) -> Capabilities:
        """What this runtime can do; constant over its life."""

    async def open(self) -> None:
        """Connect, and check that the runtime answers."""

    async def close(self) -> None:
        """Let go of connections; replicas run on."""

    async def nodes(self) -> Sequence[Node]:
        """The machines replicas can be placed on."""

    async def list(self) -> Sequence[ObservedReplica]:
        """Every replica that carries the mesh's labels, ours and adopted, of all projects."""

    async def jobs(self) -> Sequence[ObservedReplica]:
        """Every one-off that a mesh started here (`ReplicaSpec.job`), ended ones included until
        they are removed. `stop`, `remove`, `logs` and `follow` take their names too; `watch`
        tells nothing of them."""

    def watch(self) -> AsyncIterator[RuntimeEvent]:
        """Events from now on, without end. The first is RESYNC, once the subscription stands,
        and another follows each time the stream was cut and stands again."""

    async def resolve(self, services: Sequence[Service], fetch: bool = False) -> Sequence[Service]:
        """The services with what they would be built from (`Build.digest`), or which image their
        `image` stands for (`Service.image_id`) pinned, where that makes a difference to this
        runtime. With `fetch`, images are pulled first as `Service.pull` says; without, one that
        is not here stays open. Raises StartFailed when it cannot be read, ImageMissing."""

    async def prepare(
        self, project: str, service: Service, networks: Sequence[Network] = ()
    ) -> None:
        """Make ready what replicas of `service` need: image, networks, volumes. Idempotent.
        `networks` are the project's declared ones; they say which are internal.
        Raises ImageMissing, StartFailed."""

    async def mesh_addresses(self, project: str, services: Sequence[str]) -> Sequence[MeshAddress]:
        """Where the mesh listens for calls from each of these services (after `prepare`)."""

    async def start(self, replica: ReplicaSpec) -> ObservedReplica:
        """Create and start one replica. Raises ImageMissing, StartFailed, Unsupported."""

    async def stop(self, name: str, grace: float) -> None:
        """Stop signal, then KILL after `grace` seconds; returns once it has ended.
        Raises ReplicaNotFound."""

    async def remove(self, name: str) -> None:
        """Forget an ended replica and what was made for it alone. Raises ReplicaNotFound,
        ReplicaRunning."""

    async def pause(self, name: str) -> None:
        """Freeze a running replica. Raises ReplicaNotFound, Unsupported."""

    async def unpause(self, name: str) -> None:
        """Wake a frozen replica. Raises ReplicaNotFound, Unsupported."""

    async def usage(self, names: Sequence[str]) -> Mapping[str, Usage]:
        """What these replicas use now; those that do not run are left out."""

    async def logs(self, name: str, tail: int) -> Sequence[str]:
        """The last `tail` lines of its output, ended replicas included, oldest first.
        Raises ReplicaNotFound."""

    def follow(self, name: str, past: bool = False) -> AsyncIterator[str]:
        """Output lines from now on until the replica ends; with `past` all that are kept of what
        it wrote before come first, none twice. Raises ReplicaNotFound."""

    async def claims(self) -> Mapping[str, Holder]:
        """The projects that some mesh claimed on this runtime, each with its holder."""

    async def claim(self, project: str, holder: Holder, instead_of: Holder | None = None) -> Holder:
        """Claim a project where nobody has, or only `instead_of`; atomic, and kept by the
        runtime itself. Gives the holder from now on, who may be another one."""

    async def unclaim(self, project: str, holder: Holder) -> None:
        """Give a project back; nothing where `holder` does not have it."""

    async def teardown(self, project: str) -> None:
        """Remove what `prepare` made for a project that has no replicas left; data volumes
        are kept."""
