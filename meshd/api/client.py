"""Client of the API: one method per operation. Used by `meshd.cli`, and by other programs.

    async with Client(state / "admin.sock") as client:
        status = await client.status()

The server is `meshd.api.server`; `docs/api.md` describes the operations.
"""

import asyncio
import collections
import contextlib
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from urllib.parse import quote, urlencode

import aiohttp
import msgspec

from meshd.api.dto import (
    DeployResult,
    JobList,
    LogLine,
    NodeDrain,
    NodeStatus,
    PlanPreview,
    Rebalance,
    Recording,
    RestartOrder,
    ScaleOverride,
    ScaleResult,
    ServicePolicy,
    Status,
    VolumeStatus,
)
from meshd.model.access import (
    AuditEntry,
    CreatedToken,
    CurrentCaller,
    NewSignInLink,
    NewToken,
    SignInLink,
    Token,
)
from meshd.model.certificate import CertificateStatus
from meshd.model.errors import NotFound, Rejected
from meshd.model.event import Event
from meshd.model.history import HistoryPoint, MeshThen
from meshd.model.job import Job, JobLine, JobOrder
from meshd.model.node_proxy import NewJoinToken
from meshd.model.output import OutputQuery
from meshd.model.release import Release
from meshd.model.scaling import ScaleDecision, Sizing
from meshd.model.silence import NewSilence, Silence
from meshd.spec.model import Project
from proxy.observe.flight import Flight, RecordInfo
from proxy.observe.tap import TapFilter, TapLine

SHORT_TIMEOUT: Final = aiohttp.ClientTimeout(total=20.0, sock_connect=5.0)
"""For what the daemon answers at once."""
LONG_TIMEOUT: Final = aiohttp.ClientTimeout(total=3600.0, sock_connect=5.0)
"""For operations that last as long as images are pulled or replicas drain: at most an hour."""
NO_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=5.0)
"""For streams."""
ALIVE_SECONDS: Final = 10.0
"""Seconds of silence in a long operation or a stream after which the daemon is asked whether it
still answers: as long as its supervisor waits before it replaces it."""
NO_EVENTS: Final = "v1/events?since=9223372036854775807&limit=1"
"""A request that costs the daemon nothing: events after the largest id."""
MAX_LINE_BYTES: Final = 1 << 20
"""Longest line of a stream, and the read buffer: an event or log line is far shorter."""
PAGE: Final = 1000
"""Events that one request of `last_events` fetches."""
POLL_SECONDS: Final = 0.05
"""Seconds between two attempts to reach a daemon that is starting."""
T = TypeVar("T")


class NoDaemon(Exception):
    """No daemon answers at the socket; the text names it and says how to start one."""


class ApiFailure(Exception):
    """The daemon answered with an error other than "rejected" or "not found"."""


@dataclass(frozen=True, slots=True)
class RemoteDaemon:
    """A daemon that is reached over TCP.

    - `url`: `https://HOST:PORT`, or `http://` for a loopback address.
    - `token`: what `meshd token create` printed; empty: none.
    - `ca`: PEM file with the authorities of its certificate; empty: those of the system.
    - `certificate`, `key`: PEM files of the client's own certificate; empty: none.
    """

    url: str
    token: str = field(default="", repr=False)
    ca: str = ""
    certificate: str = ""
    key: str = ""


class Client:
    """A connection to one daemon; an asynchronous context manager. `daemon` is the path of its
    Unix socket, or where it is reached over TCP.

    Every method may raise NoDaemon, NotFound, Rejected and ApiFailure.
    """

    def __init__(self, daemon: Path | RemoteDaemon) -> None:
        self._daemon = daemon
        self._session: aiohttp.ClientSession | None = None

    @property
    def _place(self) -> str:
        """Where the daemon is, for messages."""
        return self._daemon.url if isinstance(self._daemon, RemoteDaemon) else str(self._daemon)

    @property
    def _log(self) -> str:
        """Where the log of the daemon is, for messages."""
        if isinstance(self._daemon, RemoteDaemon):
            return "daemon.log in its state directory"
        return str(self._daemon.parent / "daemon.log")

    async def __aenter__(self) -> Self:
        if isinstance(self._daemon, RemoteDaemon):
            url = self._daemon.url.rstrip("/") + "/"
            connector: aiohttp.BaseConnector = _tcp_connector(self._daemon)
            token = self._daemon.token
        else:
            url, token = "http://meshd/", ""
            connector = aiohttp.UnixConnector(path=str(self._daemon))
        self._session = aiohttp.ClientSession(
            url,
            connector=connector,
            headers={"Authorization": f"Bearer {token}"} if token else None,
            timeout=SHORT_TIMEOUT,
            read_bufsize=MAX_LINE_BYTES,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()

    # Projects

    async def status(self) -> Status:
        """Return the current state of everything."""
        return msgspec.json.decode(await self._call("GET", "v1/status"), type=Status)

    async def deploy(self, project: Project, take_over: bool = False) -> DeployResult:
        """Prepare what the project needs (images are pulled and built), then store it as the
        desired state. `progress` reports how the deployment continues."""
        body = project.model_dump_json().encode()
        path = f"v1/projects/{project.name}?take_over={int(take_over)}"
        return _deploy_result(await self._call("PUT", path, body, LONG_TIMEOUT))

    async def progress(self, project: str) -> DeployResult:
        """Return the progress of the latest deployment of a project."""
        return _deploy_result(await self._call("GET", f"v1/projects/{project}"))

    async def plan(self, project: Project) -> PlanPreview:
        """Return the operations that deploying it would take, and their impact."""
        body = project.model_dump_json().encode()
        raw = await self._call("POST", f"v1/projects/{project.name}/plan", body)
        return msgspec.json.decode(raw, type=PlanPreview)

    async def policies(self, project: str) -> Sequence[ServicePolicy]:
        """Return, for each service of a project, who may call it and who did."""
        raw = await self._call("GET", f"v1/projects/{project}/policy")
        return msgspec.json.decode(raw, type=list[ServicePolicy])

    async def down(self, project: str) -> None:
        """Take a project down; return once every replica has ended."""
        await self._call("DELETE", f"v1/projects/{project}", limit=LONG_TIMEOUT)

    async def shutdown(self, stop_replicas: bool) -> None:
        """End the daemon; with `stop_replicas` take every project down first."""
        path = f"v1/shutdown?stop_replicas={int(stop_replicas)}"
        await self._call("POST", path, limit=LONG_TIMEOUT)

    # Rollouts

    async def releases(self, project: str, service: str, limit: int = 20) -> Sequence[Release]:
        """Return the newest releases of a service, newest first."""
        path = f"v1/projects/{project}/services/{service}/releases?limit={limit}"
        return msgspec.json.decode(await self._call("GET", path), type=list[Release])

    async def undo(self, project: str, service: str, to: int = 0) -> Release:
        """Go back to release `to` (0: the last good one); return the release that this begins."""
        path = f"v1/projects/{project}/services/{service}/undo?to={to}"
        raw = await self._call("POST", path, limit=LONG_TIMEOUT)
        return msgspec.json.decode(raw, type=Release)

    async def pause(self, project: str, service: str) -> None:
        """Stop the rollout of a service where it is."""
        await self._call("POST", f"v1/projects/{project}/services/{service}/pause")

    async def resume(self, project: str, service: str) -> None:
        """Continue a paused rollout."""
        await self._call("POST", f"v1/projects/{project}/services/{service}/resume")

    # Replicas

    async def scale(
        self, project: str, service: str, replicas: int | None, seconds: float = 0.0
    ) -> ScaleResult:
        """Override the number of replicas for `seconds` (0: until it is removed); None removes
        the override."""
        body = msgspec.json.encode(ScaleOverride(replicas, seconds))
        raw = await self._call("PUT", f"v1/projects/{project}/services/{service}/scale", body)
        # A daemon of an earlier version answers without a body.
        return msgspec.json.decode(raw, type=ScaleResult) if raw else ScaleResult()

    async def restart(self, project: str, service: str) -> RestartOrder:
        """Begin to replace all replicas of a service by others of the same revision."""
        raw = await self._call("POST", f"v1/projects/{project}/services/{service}/restart")
        return msgspec.json.decode(raw, type=RestartOrder)

    async def drain(self, replica: str) -> None:
        """Take a replica out of rotation, let it finish its requests, and replace it."""
        await self._call("POST", f"v1/replicas/{replica}/drain", limit=LONG_TIMEOUT)

    async def logs(self, project: str, service: str, query: OutputQuery) -> Sequence[LogLine]:
        """Return the lines of each replica that are asked for."""
        raw = await self._call("GET", _logs_path(project, service, query))
        return msgspec.json.decode(raw, type=list[LogLine])

    def follow_logs(self, project: str, service: str, query: OutputQuery) -> AsyncIterator[LogLine]:
        """Yield the lines of each replica that are asked for, then new ones."""
        return self._stream(_logs_path(project, service, query) + "&follow=1", LogLine)

    # Scaling

    async def decisions(
        self, project: str, service: str, at: float = 0.0, limit: int = 10
    ) -> Sequence[ScaleDecision]:
        """Return the decisions up to `at` (Unix time; 0: now), newest first."""
        path = f"v1/projects/{project}/services/{service}/decisions?at={at:.0f}&limit={limit}"
        return msgspec.json.decode(await self._call("GET", path), type=list[ScaleDecision])

    async def history_at(self, at: float) -> MeshThen:
        """Return all services at a time in the last 24 hours (Unix time)."""
        return msgspec.json.decode(
            await self._call("GET", f"v1/history?at={at:.0f}"), type=MeshThen
        )

    async def history(
        self, project: str, service: str, since: float, until: float = 0.0
    ) -> Sequence[HistoryPoint]:
        """Return the past of a service from `since` to `until` (Unix times; 0: now)."""
        path = f"v1/projects/{project}/services/{service}/history"
        raw = await self._call("GET", f"{path}?since={since:.0f}&until={until:.0f}")
        return msgspec.json.decode(raw, type=list[HistoryPoint])

    async def sign_in_link(self, new: NewSignInLink) -> SignInLink:
        """Return a link that signs in to the web page once."""
        raw = await self._call("POST", "v1/sign-in-links", msgspec.json.encode(new))
        return msgspec.json.decode(raw, type=SignInLink)

    async def traffic(self, project: str, service: str, since: float) -> Recording:
        """Return the recorded traffic of a service since then (Unix time)."""
        path = f"v1/projects/{project}/services/{service}/traffic?since={since:.0f}"
        return msgspec.json.decode(await self._call("GET", path), type=Recording)

    async def certificates(self) -> Sequence[CertificateStatus]:
        """Return the TLS certificates that the proxy serves, and those that are wanted; none from
        a daemon of an earlier version."""
        try:
            found = await self._call("GET", "v1/certificates")
        except NotFound:
            return []
        return msgspec.json.decode(found, type=list[CertificateStatus])

    async def metrics(self) -> str:
        """Return all metrics in the Prometheus text format."""
        return (await self._call("GET", "metrics")).decode()

    async def retry_certificate(self, name: str) -> None:
        """Try at once to get the certificate of a host after a failure."""
        await self._call("POST", f"v1/certificates/{quote(name)}/retry")

    async def sizes(self) -> Sequence[Sizing]:
        """Return what replicas of each service used in the last week, and the proposed limits."""
        return msgspec.json.decode(await self._call("GET", "v1/sizes"), type=list[Sizing])

    # Nodes

    async def nodes(self) -> Sequence[NodeStatus]:
        """Return all nodes of the runtime by name."""
        return msgspec.json.decode(await self._call("GET", "v1/nodes"), type=list[NodeStatus])

    async def drain_node(self, node: str, seconds: float, force: bool, dry_run: bool) -> NodeDrain:
        """Begin to move the replicas of a node to others; `nodes` reports how it continues."""
        query = f"seconds={seconds:.0f}&force={int(force)}&dry_run={int(dry_run)}"
        raw = await self._call("POST", f"v1/nodes/{_quoted(node)}/drain?{query}")
        return msgspec.json.decode(raw, type=NodeDrain)

    async def make_join_token(self, seconds: float) -> NewJoinToken:
        """Return a new token with which the proxy of one node may join."""
        raw = await self._call("POST", f"v1/join-tokens?seconds={int(seconds)}")
        return msgspec.json.decode(raw, type=NewJoinToken)

    async def remove_node_proxy(self, node: str) -> None:
        """Refuse the proxy of a node from now on."""
        await self._call("DELETE", f"v1/nodes/{_quoted(node)}/proxy")

    async def cordon_node(self, node: str) -> None:
        """Place no new replicas on a node."""
        await self._call("POST", f"v1/nodes/{_quoted(node)}/cordon")

    async def uncordon_node(self, node: str) -> None:
        """Place replicas on a node again; end its drain."""
        await self._call("POST", f"v1/nodes/{_quoted(node)}/uncordon")

    async def rebalance(self, dry_run: bool) -> Rebalance:
        """Begin to spread each service evenly over the nodes."""
        raw = await self._call("POST", f"v1/rebalance?dry_run={int(dry_run)}")
        return msgspec.json.decode(raw, type=Rebalance)

    # Volumes

    async def volumes(self) -> Sequence[VolumeStatus]:
        """Return the named volumes of the runtime."""
        return msgspec.json.decode(await self._call("GET", "v1/volumes"), type=list[VolumeStatus])

    async def read_volume(self, name: str, live: bool) -> AsyncIterator[bytes]:
        """Yield the content of a volume as a tar. The services with it are stopped or quiesced
        meanwhile, unless `live` is set. Raises NoDaemon if the daemon ends before the tar is
        complete."""
        path = f"v1/volumes/{_quoted(name)}/archive?live={int(live)}"
        try:
            async with self._open_stream(path) as response:
                if response.status != 200:
                    _raise_for_status(response.status, await response.read())
                async for chunk in response.content.iter_any():
                    yield chunk
        except aiohttp.ClientPayloadError as error:
            raise ApiFailure(
                "the backup failed before it was complete; the log of the daemon says why: "
                f"{self._log}"
            ) from error
        except aiohttp.ClientConnectionError as error:
            raise NoDaemon(self._describe(error)) from error

    async def check_restore(self, name: str, force: bool) -> str:
        """Return the volume's name on the runtime if `restore_volume` may begin."""
        path = f"v1/volumes/{_quoted(name)}/check-restore?force={int(force)}"
        return str(msgspec.json.decode(await self._call("POST", path))["name"])

    async def restore_volume(self, name: str, data: AsyncIterator[bytes], force: bool) -> None:
        """Replace the content of a volume by a tar; return once the services start again."""
        path = f"v1/volumes/{_quoted(name)}/archive?force={int(force)}"
        await self._call("PUT", path, data, NO_TIMEOUT)

    async def remove_volume(self, name: str) -> None:
        """Delete a volume that no service mounts."""
        await self._call("DELETE", f"v1/volumes/{_quoted(name)}", limit=NO_TIMEOUT)

    # Events

    async def events(self, since: int = 0, limit: int = 1000) -> Sequence[Event]:
        """Return stored events with id > since, oldest first."""
        raw = await self._call("GET", f"v1/events?since={since}&limit={limit}")
        return msgspec.json.decode(raw, type=list[Event])

    async def last_events(
        self, count: int, matches: Callable[[Event], bool]
    ) -> tuple[list[Event], int]:
        """Return the newest `count` events that match, oldest first, and the id of the newest
        stored event of all (0 if there is none)."""
        kept: collections.deque[Event] = collections.deque(maxlen=count)
        last = 0
        while page := await self.events(last, PAGE):
            kept.extend(event for event in page if matches(event))
            last = page[-1].id
        return list(kept), last

    def follow_events(self, since: int = 0) -> AsyncIterator[Event]:
        """Yield stored events with id > since, then new ones."""
        return self._stream(f"v1/events?since={since}&follow=1", Event)

    # Records of the flight recorder

    async def save_record(self, project: str = "", service: str = "") -> RecordInfo:
        """Save the last requests of a service, or of all services."""
        of_service = f"v1/projects/{project}/services/{service}/records"
        raw = await self._call("POST", of_service if service else "v1/records")
        return msgspec.json.decode(raw, type=RecordInfo)

    async def records(self) -> Sequence[RecordInfo]:
        """Return all records, newest first."""
        return msgspec.json.decode(await self._call("GET", "v1/records"), type=list[RecordInfo])

    def tap(self, wanted: TapFilter) -> AsyncGenerator[TapLine]:
        """Yield requests as they end."""
        project, _, service = wanted.service.partition("/")
        of_service = f"v1/projects/{project}/services/{service}/tap"
        path = of_service if service else "v1/tap"
        return self._stream(f"{path}?{_filter_query(wanted)}&follow=1", TapLine)

    async def record(self, id: str, wanted: TapFilter, limit: int) -> Sequence[Flight]:
        """Return the newest `limit` requests of a record that match, oldest first. The service of
        the filter does not apply."""
        query = f"{_filter_query(wanted)}&limit={limit}"
        raw = await self._call("GET", f"v1/records/{_quoted(id)}?{query}", limit=LONG_TIMEOUT)
        return msgspec.json.decode(raw, type=list[Flight])

    # Access

    async def caller(self) -> CurrentCaller:
        """Return who the daemon takes this client for."""
        return msgspec.json.decode(await self._call("GET", "v1/caller"), type=CurrentCaller)

    async def tokens(self) -> Sequence[Token]:
        """Return all tokens, without their secrets."""
        return msgspec.json.decode(await self._call("GET", "v1/tokens"), type=list[Token])

    async def create_token(self, new: NewToken) -> CreatedToken:
        """Create a token; its secret is in the result only."""
        raw = await self._call("POST", "v1/tokens", msgspec.json.encode(new))
        return msgspec.json.decode(raw, type=CreatedToken)

    async def revoke_token(self, id: str) -> None:
        """Revoke a token."""
        await self._call("DELETE", f"v1/tokens/{_quoted(id)}")

    async def silences(self) -> Sequence[Silence]:
        """Return the silences that hold, oldest first."""
        return msgspec.json.decode(await self._call("GET", "v1/silences"), type=list[Silence])

    async def create_silence(self, new: NewSilence) -> Silence:
        """Silence some problems for a while."""
        raw = await self._call("POST", "v1/silences", msgspec.json.encode(new))
        return msgspec.json.decode(raw, type=Silence)

    async def remove_silence(self, id: str) -> None:
        """End a silence."""
        await self._call("DELETE", f"v1/silences/{_quoted(id)}")

    async def audit(self, limit: int, before: int = 0) -> Sequence[AuditEntry]:
        """Return who changed what, newest first."""
        raw = await self._call("GET", f"v1/audit?before={before}&limit={limit}")
        return msgspec.json.decode(raw, type=list[AuditEntry])

    # Jobs

    async def run(self, project: str, service: str, order: JobOrder) -> Job:
        """Order a one-off job; it is stored when this returns."""
        path, body = f"v1/projects/{project}/services/{service}/jobs", msgspec.json.encode(order)
        return msgspec.json.decode(await self._call("POST", path, body), type=Job)

    async def jobs(self) -> JobList:
        """Return all jobs, newest first, and the schedules."""
        return msgspec.json.decode(await self._call("GET", "v1/jobs"), type=JobList)

    async def job(self, id: str) -> Job:
        """Return the current state of a job."""
        return msgspec.json.decode(await self._call("GET", f"v1/jobs/{id}"), type=Job)

    async def stop_job(self, id: str) -> Job:
        """Stop a job; no effect if it has ended."""
        return msgspec.json.decode(await self._call("DELETE", f"v1/jobs/{id}"), type=Job)

    async def job_lines(self, id: str) -> Sequence[str]:
        """Return the last lines of a job that has ended."""
        raw = await self._call("GET", f"v1/jobs/{id}/logs")
        return [each.line for each in msgspec.json.decode(raw, type=list[JobLine])]

    def follow_job(self, id: str) -> AsyncIterator[JobLine]:
        """Yield all lines of a job until it ends, from the oldest that is kept."""
        return self._stream(f"v1/jobs/{id}/logs?follow=1", JobLine)

    async def _call(
        self,
        method: str,
        path: str,
        body: bytes | AsyncIterator[bytes] | None = None,
        limit: aiohttp.ClientTimeout = SHORT_TIMEOUT,
    ) -> bytes:
        if limit is not SHORT_TIMEOUT:
            return await self._while_alive(self._request(method, path, body, limit))
        return await self._request(method, path, body, limit)

    async def _request(
        self,
        method: str,
        path: str,
        body: bytes | AsyncIterator[bytes] | None,
        limit: aiohttp.ClientTimeout,
    ) -> bytes:
        assert self._session is not None, "use `async with Client(...)`"
        try:
            async with self._session.request(method, path, data=body, timeout=limit) as response:
                raw = await response.read()
                _raise_for_status(response.status, raw)
                return raw
        except TimeoutError as error:
            raise ApiFailure(
                f"the daemon at {self._place} did not answer within {limit.total:g} s; its log is "
                f"{self._log}"
            ) from error
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
            raise NoDaemon(self._describe(error)) from error

    async def _while_alive(self, work: Coroutine[Any, Any, T] | asyncio.Future[T]) -> T:
        """Await `work`, however long that takes, as long as the daemon answers other requests."""
        task = asyncio.ensure_future(work)
        try:
            while not (await asyncio.wait({task}, timeout=ALIVE_SECONDS))[0]:
                await self._request("GET", NO_EVENTS, None, SHORT_TIMEOUT)
            return task.result()
        finally:
            task.cancel()

    @contextlib.asynccontextmanager
    async def _open_stream(self, path: str) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a GET; close the response at the end, also one that arrives while the caller is
        being cancelled."""
        assert self._session is not None, "use `async with Client(...)`"
        opening = asyncio.ensure_future(self._get(self._session, path))
        try:
            yield await self._while_alive(opening)
        finally:
            await asyncio.wait({opening})
            if not opening.cancelled() and opening.exception() is None:
                opening.result().close()

    async def _get(self, session: aiohttp.ClientSession, path: str) -> aiohttp.ClientResponse:
        return await session.get(path, timeout=NO_TIMEOUT)

    async def _stream(self, path: str, kind: type[T]) -> AsyncGenerator[T]:
        decoder = msgspec.json.Decoder(kind)
        try:
            async with self._open_stream(path) as response:
                if response.status != 200:
                    _raise_for_status(response.status, await response.read())
                while line := await self._while_alive(response.content.readline()):
                    if line.strip():
                        yield decoder.decode(line)
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
            raise NoDaemon(self._describe(error)) from error

    def _describe(self, error: Exception) -> str:
        """Return the text of NoDaemon for a connection error."""
        if isinstance(self._daemon, RemoteDaemon) and isinstance(
            error, aiohttp.ClientConnectorError | aiohttp.ClientSSLError
        ):
            return f"no daemon answers at {self._place}: {error}"
        if isinstance(error, aiohttp.ClientConnectorError):
            return f"no daemon answers at {self._place}; start one with `meshd up -f FILE`"
        return f"the daemon at {self._place} closed the connection"


def _tcp_connector(daemon: RemoteDaemon) -> aiohttp.TCPConnector:
    """Return the connector for a daemon over TCP. Raises ApiFailure if a file cannot be used."""
    if not daemon.url.startswith("https:"):
        return aiohttp.TCPConnector()
    try:
        context = ssl.create_default_context(cafile=daemon.ca or None)
        if daemon.certificate:
            context.load_cert_chain(daemon.certificate, daemon.key or None)
    except (OSError, ValueError) as error:
        raise ApiFailure(f"the certificate for {daemon.url} cannot be used: {error}") from error
    return aiohttp.TCPConnector(ssl=context)


def _logs_path(project: str, service: str, query: OutputQuery) -> str:
    options: dict[str, str] = {"tail": str(query.tail)}
    options |= {
        key: str(int(at)) for key, at in (("since", query.since), ("until", query.until)) if at
    }
    if query.replica:
        options["replica"] = query.replica
    if query.previous:
        options["previous"] = "1"
    return f"v1/projects/{project}/services/{service}/logs?{urlencode(options)}"


def _filter_query(wanted: TapFilter) -> str:
    """Return the query of a filter, without its service."""
    milliseconds = round(wanted.slower * 1000)
    return urlencode({"path": wanted.path, "status": wanted.status, "slower": milliseconds})


def _quoted(name: str) -> str:
    return quote(name, safe="")


def _deploy_result(raw: bytes) -> DeployResult:
    return msgspec.json.decode(raw, type=DeployResult)


def _raise_for_status(status: int, raw: bytes) -> None:
    """Raise the exception for an error status; see `problems`."""
    if status < 400:
        return
    try:
        problem = msgspec.json.decode(raw, type=dict[str, Any])
        # A daemon of an earlier version sends only `error`.
        text = str(problem["detail"] if "detail" in problem else problem["error"])
    except (msgspec.MsgspecError, KeyError):
        text = raw.decode(errors="replace")[:500]
    if status == 404:
        raise NotFound(text)
    if status in (409, 507):
        raise Rejected(text)
    raise ApiFailure(f"the daemon answered {status}: {text}")


async def wait_for_daemon(socket_path: Path, seconds: float) -> Status | None:
    """Wait for a daemon and return its first status; None if none answers within `seconds`."""
    end = asyncio.get_running_loop().time() + seconds
    async with Client(socket_path) as client:
        while True:
            try:
                return await client.status()
            except NoDaemon:
                if asyncio.get_running_loop().time() >= end:
                    return None
            await asyncio.sleep(POLL_SECONDS)
