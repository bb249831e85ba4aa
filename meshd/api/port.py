"""The protocols through which the API reaches the control process.

`handlers` calls them. `meshd.control.facade.ControlFacade` implements `Control`,
`meshd.jobs.manager.JobManager` implements `JobControl`, `meshd.control.rollouts.RolloutManager`
implements `RolloutControl`. Every method that takes a name may raise NotFound. Times are Unix
seconds, durations seconds. A service name is unique within its project.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Protocol

import msgspec

from meshd.api.dto import (
    DeployResult,
    Exposition,
    JobList,
    LiveUpdate,
    NodeDrain,
    NodeStatus,
    PlanPreview,
    Rebalance,
    Recording,
    RestartOrder,
    ScaleResult,
    ServicePolicy,
    Status,
    VolumeStatus,
)
from meshd.model.access import (
    AuditEntry,
    CreatedToken,
    Identity,
    NewSignInLink,
    NewToken,
    SignInLink,
    Token,
)
from meshd.model.certificate import CertificateStatus
from meshd.model.event import Event
from meshd.model.history import HistoryPoint, LatencyMap, MeshThen, Sparkline
from meshd.model.job import Job, JobOrder
from meshd.model.node_proxy import NewJoinToken
from meshd.model.output import OutputQuery, ReplicaLine
from meshd.model.release import Release
from meshd.model.scaling import ScaleDecision, Sizing
from meshd.model.silence import NewSilence, Silence
from meshd.spec.model import Project
from proxy.observe.flight import Flight, RecordInfo
from proxy.observe.tap import TapFilter, TapLine


class Control(Protocol):
    """The operations of the control process."""

    def require_lead(self) -> None:
        """Raise Rejected if this process may not change anything, because its lease has expired."""

    def status(self) -> Status:
        """Return the current state of everything."""

    async def deploy(self, project: Project, who: str, take_over: bool = False) -> None:
        """Make `project` the desired state (idempotent); return once it is stored and the
        reconcile loop is awake. With `take_over` also if another mesh holds the project but does
        not run. Raises Rejected if the runtime cannot run the spec."""

    def progress(self, project: str) -> DeployResult:
        """Return the progress of the latest deployment of `project`."""

    async def plan(self, project: Project) -> PlanPreview:
        """Return the operations that deploying `project` would take, and their impact."""

    async def down(self, project: str) -> None:
        """Drain and stop every replica of `project`, then forget it; return when that is done."""

    async def scale(
        self, project: str, service: str, replicas: int | None, seconds: float
    ) -> ScaleResult:
        """Override the number of replicas for `seconds` (0: until it is removed); None removes
        the override."""

    async def drain(self, replica: str) -> None:
        """Take one replica out of rotation, let it finish its requests, and replace it."""

    def restart(self, project: str, service: str, who: str) -> RestartOrder:
        """Replace all replicas of a service by others of the same revision, in the order of its
        update settings; return as soon as that has begun. Raises Rejected during a rollout."""

    async def logs(self, project: str, service: str, query: OutputQuery) -> Sequence[ReplicaLine]:
        """Return the lines of the replicas of a service that are asked for, oldest first within
        a replica."""

    def follow(self, project: str, service: str, query: OutputQuery) -> AsyncIterator[ReplicaLine]:
        """Return the lines that are asked for, followed by new ones as they are written, those of
        new replicas included. Within a replica they are in order. Raises NotFound."""

    def events(self, since: int, limit: int) -> Sequence[Event]:
        """Return stored events with id > since, oldest first."""

    def decisions(
        self, project: str, service: str, at: float, limit: int
    ) -> Sequence[ScaleDecision]:
        """Return the autoscaler's decisions up to `at` (Unix time; 0: now), newest first: each
        one that changed the number, and one per minute of the others."""

    def traffic(self, project: str, service: str, since: float) -> Recording:
        """Return the recorded traffic of a service since then (Unix time), at most seven days."""

    def history_at(self, at: float, project: str) -> MeshThen:
        """Return all services at a time in the last 24 hours, or those of `project` if that is
        set."""

    def history(
        self, project: str, service: str, since: float, until: float
    ) -> Sequence[HistoryPoint]:
        """Return the past of a service from `since` to `until` (Unix times; 0: now)."""

    def sparklines(self, since: float, project: str) -> Sequence[Sparkline]:
        """Return the past of all services since then (Unix time), at most two hours, or of those
        of `project` if that is set."""

    def latencies(self, project: str, service: str, since: float, until: float) -> LatencyMap:
        """Return the latencies of a service from `since` to `until` (Unix times; 0: now), at most
        an hour."""

    def live(self, project: str) -> LiveUpdate:
        """Return the current state for the web page, or that of `project` if that is set."""

    def follow_live(self, project: str) -> AsyncIterator[msgspec.Raw]:
        """Yield the current state as an encoded `LiveUpdate`, then the changes, every second."""

    def sign_in_link(self, caller: Identity, new: NewSignInLink) -> SignInLink:
        """Return a link that signs in to the web page once. Raises Rejected if the page is not
        served, or if the role is above that of `caller`."""

    def policies(self, project: str) -> Sequence[ServicePolicy]:
        """Return, for each service of a project, who may call it and who did."""

    def sizes(self) -> Sequence[Sizing]:
        """Return what replicas of each deployed service used in the last week, and the limits
        proposed from that."""

    def certificates(self) -> Sequence[CertificateStatus]:
        """Return the TLS certificates that the proxy serves, and those that are wanted."""

    def retry_certificate(self, name: str) -> None:
        """Try at once to get the certificate of a host after a failure. Raises NotFound."""

    def subscribe(self) -> AsyncIterator[Event]:
        """Yield new events."""

    async def metrics(self, accept: str) -> Exposition:
        """Return all metrics in the format that an Accept field prefers; text by default."""

    def job_control(self) -> "JobControl":
        """Return the operations on one-off jobs. Raises Rejected if this daemon has none."""

    def volume_control(self) -> "VolumeControl":
        """Return the operations on volumes."""

    def node_control(self) -> "NodeControl":
        """Return the operations on nodes."""

    def record_control(self) -> "RecordControl":
        """Return the operations on records of the flight recorder."""

    def rollout_control(self) -> "RolloutControl":
        """Return the operations on rollouts. Raises Rejected if this daemon has none."""

    def silence_control(self) -> "SilenceControl":
        """Return the operations on silences."""

    def access_control(self) -> "AccessControl":
        """Return the operations on tokens and the audit log."""

    async def shutdown(self, stop_replicas: bool) -> None:
        """End the whole daemon in order; with `stop_replicas` take every project down first."""


class JobControl(Protocol):
    """The operations on one-off jobs. A job's id is also the name of its container."""

    def begin(self, project: str, service: str, order: JobOrder, cause: str) -> Job:
        """Store a job and start it soon after. Raises Rejected if the project is being taken
        down, or if the id belongs to a job of another service."""

    def job(self, id: str) -> Job:
        """Return the current state of a job."""

    def list(self) -> JobList:
        """Return all jobs that are still stored, and the schedules."""

    def stop(self, id: str) -> Job:
        """Stop a job; no effect if it has ended."""

    def lines(self, id: str) -> Sequence[str]:
        """Return the last lines of a job that has ended; empty before."""

    def follow(self, id: str) -> AsyncIterator[str]:
        """Yield all lines of a job until it ends, from the oldest that is kept."""


class RecordControl(Protocol):
    """Records of the flight recorder, and live requests."""

    def save(self, project: str, service: str, who: str) -> RecordInfo:
        """Save the last requests of a service, or of all if the names are empty. The workers
        write them within about two seconds."""

    def list(self) -> Sequence[RecordInfo]:
        """Return all records, newest first."""

    def find(self, id: str) -> RecordInfo:
        """Return a record."""

    async def read(self, id: str) -> Sequence[Flight]:
        """Return the requests of a record, oldest first."""

    def tap(self, wanted: TapFilter) -> AsyncGenerator[TapLine]:
        """Yield requests as they end. Raises Rejected if too many watch."""


class AccessControl(Protocol):
    """Tokens, and the log of what was changed."""

    def authenticate(self, secret: str) -> Token | None:
        """Return the token with this secret; None if it is unknown, revoked or expired."""

    def tokens(self) -> Sequence[Token]:
        """Return all tokens, oldest first."""

    def create_token(self, new: NewToken, who: str) -> CreatedToken:
        """Store a new token. Raises Rejected if there are too many."""

    def revoke_token(self, id: str) -> None:
        """Delete a token. Raises NotFound."""

    def record(self, caller: Identity, method: str, path: str, status: int, detail: str) -> None:
        """Add a request to the audit log; only a warning if it cannot be stored."""

    def audit(self, before: int, limit: int) -> Sequence[AuditEntry]:
        """Return the newest entries with a smaller id (0: of all), newest first."""


class SilenceControl(Protocol):
    """Silences of notifications."""

    def silences(self) -> Sequence[Silence]:
        """Return the silences that hold, oldest first."""

    def create_silence(self, new: NewSilence, who: str) -> Silence:
        """Silence some problems for a while. Raises Rejected."""

    def remove_silence(self, id: str) -> None:
        """End a silence. Raises NotFound."""


class RolloutControl(Protocol):
    """The operations on rollouts. Methods raise Rejected if the rollout does not allow them now."""

    def releases(self, project: str, service: str, limit: int) -> Sequence[Release]:
        """Return the newest releases of a service, newest first."""

    async def undo(self, project: str, service: str, to: int, who: str) -> Release:
        """Go back to release `to` (0: the last good one with another revision) and return the
        release that this begins."""

    def pause(self, project: str, service: str, who: str) -> None:
        """Stop the current rollout where it is."""

    def resume(self, project: str, service: str, who: str) -> None:
        """Continue a paused rollout."""


class NodeControl(Protocol):
    """The operations on nodes. `who` is the user, for events. Each may raise Rejected, on a runtime
    with one node, and RuntimeFailure."""

    async def nodes(self) -> Sequence[NodeStatus]:
        """Return all nodes by name."""

    async def drain(
        self, node: str, seconds: float, force: bool, dry_run: bool, who: str
    ) -> NodeDrain:
        """Begin to move the replicas of a node to others, each successor first, for at most
        `seconds`; then the runtime ends the rest. With `force`, volumes are left behind; with
        `dry_run`, nothing is changed. Raises Rejected if they have no place elsewhere."""

    async def cordon(self, node: str, who: str) -> None:
        """Place no new replicas on a node."""

    async def uncordon(self, node: str, who: str) -> None:
        """Place replicas on a node again; end its drain."""

    async def rebalance(self, dry_run: bool, who: str) -> Rebalance:
        """Begin to spread each service evenly over the nodes, one replica at a time."""

    async def make_token(self, seconds: float, who: str) -> NewJoinToken:
        """Return a new token with which the proxy of one node may join. Raises Rejected if there is
        no port for them."""

    async def remove_proxy(self, node: str, who: str) -> None:
        """Refuse the proxy of a node from now on. Raises Rejected as `make_token`, and NotFound."""


class VolumeControl(Protocol):
    """The operations on volumes. `name` is a volume's name on the runtime, or its name in the
    Compose file. `who` is the user, for events. Each may raise Rejected and RuntimeFailure."""

    async def all(self) -> Sequence[VolumeStatus]:
        """Return the named volumes."""

    def read(self, name: str, live: bool, who: str) -> AsyncIterator[bytes]:
        """Yield the content as a tar. The services with the volume are stopped or quiesced
        meanwhile, unless `live` is set; they continue when the iterator is closed."""

    async def check_restore(self, name: str, force: bool) -> str:
        """Return the volume's name on the runtime if `restore` may begin. Raises Rejected if the
        volume has content and `force` is not set, or if others use it."""

    async def restore(self, name: str, data: AsyncIterator[bytes], force: bool, who: str) -> None:
        """Replace the content by a tar. It is received completely first; then the services with
        the volume are stopped, and start again with the new content."""

    async def remove(self, name: str, who: str) -> None:
        """Delete a volume that no service mounts."""
