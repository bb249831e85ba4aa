"""Composition root of the control process: makes all parts, and runs them until the end.

Called by `meshd.daemon.main`. Every part gets the parts it needs as constructor arguments, so the
order of construction is the order of dependencies; nothing is set on a part afterwards.
"""

import asyncio
import contextlib
import os
import platform
import random
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, cast

import structlog

from meshd.api.server import serve
from meshd.api.tcp_address import TcpSettings
from meshd.capacity.job_demand import JobAdmission
from meshd.certificates.files import describe_files, read_listeners
from meshd.certificates.values import ServedCertificates
from meshd.certificates.wanted import WantedCertificates
from meshd.control.access import AccessManager
from meshd.control.deploy.admission import Admission
from meshd.control.deploy.deployments import Deployments
from meshd.control.deploy.host_ports import has_ipv6
from meshd.control.deploy.preview import Preview
from meshd.control.deploy.progress import ProgressTracker
from meshd.control.facade import ControlFacade
from meshd.control.live import LiveFeed
from meshd.control.log_tail import LogTail
from meshd.control.lookup import Lookup
from meshd.control.migration import Migration
from meshd.control.nodes import NodeManager
from meshd.control.quiescer import Quiescer
from meshd.control.recorder import Recorder
from meshd.control.rollouts import RolloutManager
from meshd.control.shutdown import Shutdown
from meshd.control.status import by_service
from meshd.control.status_reader import StatusReader
from meshd.control.volumes import VolumeManager
from meshd.daemon.clock_watch import ClockWatch
from meshd.daemon.leadership import Leadership, LeaseKeeper
from meshd.daemon.node_channel import NodeChannel
from meshd.daemon.scale_from_zero_feed import ScaleFromZeroFeed
from meshd.daemon.standby import StandbyControl
from meshd.daemon.standby_feed import StandbyFeed
from meshd.daemon.stores import Stores
from meshd.daemon.ticker import Ticker
from meshd.daemon.worker_events import WorkerEvents
from meshd.discovery.probe import probe
from meshd.discovery.watch import RuntimeWatcher
from meshd.jobs.cron_scheduler import CronScheduler
from meshd.jobs.factory import JobFactory
from meshd.jobs.hook_runner import HookRunner
from meshd.jobs.manager import JobManager
from meshd.jobs.schedule_table import ScheduleTable
from meshd.jobs.table import JobTable
from meshd.model.certificate import CertificateStatus
from meshd.model.errors import StoreWriteError
from meshd.model.event import Kind
from meshd.model.request import ReloadDesired
from meshd.model.scaling import Load
from meshd.notify.notifier import Notifier
from meshd.notify.watch import ProblemWatch
from meshd.publish.compile import EdgeSettings
from meshd.publish.gateways import Gateways
from meshd.publish.last_snapshot import read_held_snapshot
from meshd.publish.publisher import Publisher
from meshd.publish.virtual_addresses import VirtualAddresses
from meshd.reconcile.loop import Reconciler
from meshd.reconcile.ownership.claims import ProjectClaims
from meshd.reconcile.plan.start_limit import start_slots
from meshd.runtime.base import RuntimeFailure
from meshd.runtime.docker.addresses.redirection import Redirection
from meshd.runtime.docker.enforcement import Enforcement
from meshd.runtime.docker.engine import Engine
from meshd.runtime.docker.firewall_rules import blocked_port_of
from meshd.runtime.docker.host_firewall import HostFirewall
from meshd.runtime.node_loads import NodeLoads
from meshd.runtime.select import make_runtime
from meshd.runtime.swarm.lease import SwarmLease
from meshd.runtime.takeover import TakeoverRuntime, engine_part
from meshd.scaling.controller import ScalingController
from meshd.scaling.prometheus_queries import PrometheusQueries
from meshd.spec.model import Service
from meshd.spec.model.acme import AcmeSettings
from meshd.store import output_archive, presence
from meshd.store.output_archive import OutputArchive
from meshd.store.records import StoredState
from meshd.store.store import Store
from meshd.store.virtual_addresses import VirtualAddressLog
from meshd.telemetry.call_edges import CallEdges
from meshd.telemetry.counters import EventCounters
from meshd.telemetry.history import History
from meshd.telemetry.history_recorder import HistoryRecorder
from meshd.telemetry.ingest import Ingest
from meshd.telemetry.metrics import Metrics
from meshd.telemetry.usage_sampler import PAUSE, UsageSampler
from meshd.ui.assets import load_assets
from meshd.ui.page import WebPage
from meshd.ui.settings import PageSettings
from proxy.ipc import address as addresses
from proxy.ipc.watchdog import send_signs_of_life
from proxy.wire.snapshot import Snapshot

if TYPE_CHECKING:
    from meshd.api.port import Control
    from meshd.certificates.manager import CertificateManager

_log = structlog.stdlib.get_logger(__name__)
RuntimeName = Literal["docker", "process", "swarm"]
NO_CERTIFICATES: Final = ServedCertificates()
CONNECT_RETRY: Final = 1.0
"""Seconds between two attempts to connect to the runtime."""


@dataclass(frozen=True, slots=True)
class DaemonSettings:
    """Settings of the control process.

    - `state`: the state directory.
    - `runtime`: `docker`, `process` or `swarm`.
    - `metrics`: address (`HOST:PORT`) to serve metrics on.
    - `starts`: replicas that may start at the same time on a node; 0: one per CPU.
    - `adopts`: whether to adopt labelled containers that something else started.
    - `edge`: settings of the proxy as a whole.
    - `filters`: whether the host firewall keeps containers from the host.
    - `watchdog`: descriptor for signs of life to the supervisor; None if it does not watch.
    - `last_end`: how the control process before this one ended; empty after a start.
    - `acme`: settings of automatic certificates, one for each authority.
    - `api`: where the API is served over TCP; None: at the Unix socket only.
    - `ui`: where the web page is served; None: nowhere.
    - `lease`: name of the lease of which one holder leads; empty: there are no others.
    - `node_listen`: address (`HOST:PORT`) for the proxies of other nodes; empty: there are none.
    - `authority_file`: file with the authority of the mesh; empty: the state has it.
    - `allow_clear_text`: whether requests go in clear text to nodes without a proxy.
    - `staying`: keys of services that stay on the engine of this host, from which the Swarm takes
      over all others; None: it takes over nothing.
    """

    state: Path
    runtime: RuntimeName
    metrics: str
    starts: int = 0
    adopts: bool = True
    edge: EdgeSettings = field(default_factory=EdgeSettings)
    filters: bool = True
    watchdog: int | None = None
    last_end: str = ""
    acme: tuple[AcmeSettings, ...] = ()
    api: TcpSettings | None = None
    ui: PageSettings | None = None
    lease: str = ""
    node_listen: str = ""
    authority_file: str = ""
    allow_clear_text: bool = False
    staying: tuple[str, ...] | None = None


ENGINE_FOLDERS: Final = dict.fromkeys(("docker", "swarm"), (Path("/var/lib/docker"),))
"""Directories of an engine whose disks are watched, by runtime: they hold images and volumes. One
on another machine, or at another path, is not watched."""


class Daemon:
    """The control process: opens the state, makes the parts, runs them, and closes everything."""

    def __init__(self, settings: DaemonSettings) -> None:
        self._settings = settings
        self._end = asyncio.Event()
        self._ingest = Ingest()
        self._counters = EventCounters()
        self._stores = Stores(settings.state, self._ingest, self._counters.observe_event)

    def end(self) -> None:
        """End `run` in order."""
        self._end.set()

    async def run(self) -> None:
        """Run until `end` is called. Raises StateLocked, SchemaTooNew, ServeError, BadAuthority,
        sqlite3.DatabaseError."""
        if not self._settings.lease:
            with self._stores.opened():
                await self._run_parts()
            return
        async with opened_leadership(self._settings) as (leadership, keeper):
            await self._stand_by(leadership, keeper)
            if self._end.is_set():
                return
            with self._stores.opened():
                await self._lead(leadership)

    async def _lead(self, leadership: Leadership) -> None:
        """Run the parts, and hand the lease over with what they stored until their end."""
        dump = StoredState(self._stores.store).dump
        keeping = asyncio.create_task(leadership.keep(dump))
        try:
            await self._run_parts(leadership, keeping)
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
        await leadership.hand_over(dump)

    async def _run_parts(
        self, leadership: Leadership | None = None, keeping: "asyncio.Task[None] | None" = None
    ) -> None:
        self._stores.store.forget_future(time.time())
        parts = Parts(
            self._settings, self._stores, self._ingest, self._counters, self.end, leadership
        )
        await parts.run(self._end, keeping)

    async def _stand_by(self, leadership: Leadership, keeper: LeaseKeeper) -> None:
        """Hold the state and serve the API until this process leads, with the state of the leader
        before, or ends. Raises as `run` does."""
        store = Store(self._settings.state)  # the parts read theirs afterwards
        store.open()
        try:
            state = StoredState(store)
            await self._await_lease(leadership, keeper, state)
            if self._end.is_set():
                await leadership.hand_over(state.dump)
        finally:
            store.close()

    def _end_all(self) -> None:
        """End the supervisor, which ends this process; this process alone without a supervisor."""
        if self._settings.watchdog is not None:
            os.kill(os.getppid(), signal.SIGTERM)
        else:
            self.end()

    async def _await_lease(
        self, leadership: Leadership, keeper: LeaseKeeper, state: StoredState
    ) -> None:
        """Serve the API, and feed the proxy from the leader, until this process leads or ends."""
        settings = self._settings
        waiting = StandbyControl(
            settings.lease, lambda: leadership.leader, lambda: leadership.problem, self._end_all
        )
        socket = settings.state / presence.API_SOCKET
        async with serve(cast("Control", waiting), socket, settings.metrics):
            signs = asyncio.create_task(send_signs_of_life(settings.watchdog))
            acquired = asyncio.create_task(leadership.acquire(state))
            ended = asyncio.create_task(self._end.wait())
            feed = StandbyFeed(settings.state, leadership, keeper, settings.authority_file)
            fed = asyncio.create_task(feed.run())
            try:
                await asyncio.wait([acquired, ended], return_when=asyncio.FIRST_COMPLETED)
                if acquired.done():
                    acquired.result()
            finally:
                for task in (signs, acquired, ended, fed):
                    task.cancel()
                await asyncio.gather(signs, acquired, ended, fed, return_exceptions=True)


@contextlib.asynccontextmanager
async def opened_leadership(
    settings: DaemonSettings,
) -> AsyncIterator[tuple[Leadership, LeaseKeeper]]:
    """Yield the lease of this process and where it is kept, over a separate connection to the
    engine."""
    engine = Engine()
    host = platform.node()
    port = addresses.parse(settings.node_listen).port if settings.node_listen else 0
    keeper = SwarmLease(engine, settings.lease, port)
    try:
        yield Leadership(keeper, f"{host}:{settings.state}", host), keeper
    finally:
        await engine.close()


class Parts:
    """All parts of the control process, in the order of their dependencies. Needs an open store;
    `end` ends the process."""

    def __init__(
        self,
        settings: DaemonSettings,
        stores: Stores,
        ingest: Ingest,
        counters: EventCounters,
        end: Callable[[], None],
        leadership: Leadership | None = None,
    ) -> None:
        clock, store, events, wake = time.time, stores.store, stores.events, asyncio.Event()
        leads = (lambda: leadership.remaining() > 0) if leadership else (lambda: True)
        self._settings = settings
        self._stores = stores
        self._ingest = ingest
        self._clock = clock
        loads = NodeLoads(time.monotonic)
        runtime = self._runtime = make_runtime(
            settings.runtime,
            settings.state,
            leadership.remaining if leadership else None,
            lambda: channel.peers(),  # noqa: PLW0108 (made below)
            loads.of,
            settings.staying,
        )
        self._zero_feed = ScaleFromZeroFeed(counters, clock)
        call_edges = CallEdges()
        held_snapshot = read_held_snapshot(settings.state / "snapshot.bin")
        channel: NodeChannel
        worker_events = WorkerEvents(
            ingest,
            events,
            (stores.release_counts.take, call_edges.take),
            self._zero_feed.requests_parked,
            wake.set,
            clock,
            lambda number: channel.worker_name(number),  # noqa: PLW0108 (made below)
        )
        channel = NodeChannel(
            settings.node_listen,
            worker_events.take,
            lambda kind, text: events.record(clock(), kind, text),
            clock,
            settings.state,
            lambda: runtime.own_node,
            loads.note,
            held_snapshot,
            settings.authority_file,
            allow_clear_text=settings.allow_clear_text,
        )
        virtual = VirtualAddresses(VirtualAddressLog(store))
        gateways = Gateways(runtime, virtual, ipv6=has_ipv6(), staying=settings.staying)
        publisher = self._publisher = Publisher(
            settings.state / "feed.sock", store.next_epoch(), channel.take, channel.proxies
        )
        self._node_server = channel.make_server(store, publisher, leads)
        watch = self._watch = RuntimeWatcher(runtime, wake.set)
        claims = ProjectClaims(
            runtime, store, lambda: watch.replicas, wake.set, settings.adopts, settings.lease
        )
        sampler = self._sampler = UsageSampler(runtime)
        job_table = JobTable(store, stores.jobs, wake.set)
        job_factory = JobFactory(store, stores.jobs, clock, random.Random())
        self._listeners = read_listeners(settings.state)
        certificates = self._certificates = self._make_certificates(
            publisher, wake.set, held_snapshot
        )
        reconciler = self._reconciler = Reconciler(
            runtime=runtime,
            watch=watch,
            store=store,
            events=events,
            publisher=publisher,
            gateways=gateways,
            claims=claims,
            held_snapshot=held_snapshot,
            wake=wake,
            probe=probe,
            jobs=job_table,
            hooks=HookRunner(job_factory, job_table, stores.jobs),
            traffic=ingest,
            in_flight=worker_events.in_flight,
            start_slots=lambda: start_slots(sampler.nodes, settings.starts),
            on_ready=self._zero_feed.replica_ready,
            edge=settings.edge,
            clock=clock,
            random=random.Random(),
            certificates=lambda: certificates.served if certificates else NO_CERTIFICATES,
            nodes=lambda: sampler.nodes,
            peers=channel.peers,
        )
        schedules = ScheduleTable(store, stores.jobs, clock)
        jobs = self._jobs = JobManager(
            runtime=runtime,
            reconciler=reconciler,
            store=store,
            log=stores.jobs,
            table=job_table,
            factory=job_factory,
            schedules=schedules,
            capacity=JobAdmission(
                store,
                sampler,
                runtime.capabilities,
                lambda: reconciler.view().desired.services,
                lambda: reconciler.view().observed.replicas,
            ),
            events=events,
            clock=clock,
        )
        self._clock_watch = ClockWatch(events, clock, time.monotonic)
        self._cron = CronScheduler(schedules, jobs, events, clock)
        self._queries = PrometheusQueries(time.monotonic)
        self._scaling = ScalingController(
            store,
            events,
            stores.decisions,
            stores.traffic,
            ingest,
            counters,
            sampler,
            self._queries,
            jobs.demands,
            wake.set,
            lambda: start_slots(sampler.nodes, settings.starts),
        )
        history = History()
        recorder = HistoryRecorder(history, stores.history, ingest, lambda: sampler.loads)
        recorder.open(clock())
        firewall = self._firewall = self._make_firewall(claims)
        redirection = self._redirection = self._make_redirection(claims)
        enforcement = self._enforcement = self._make_enforcement(claims, reconciler)
        lookup = Lookup(store, reconciler)
        preview = Preview(
            store,
            stores.traffic,
            reconciler,
            random.Random(),
            runtime.capabilities.pause,
            (lambda: sampler.nodes) if runtime.capabilities.swarm else None,
        )
        admission = Admission(
            runtime,
            store,
            reconciler,
            preview,
            jobs.demands,
            lambda: tuple(publisher.bound.values()),
            clock,
            orders_certificates=bool(settings.acme),
        )
        deployments = Deployments(
            capabilities=runtime.capabilities,
            store=store,
            events=events,
            reconciler=reconciler,
            claims=claims,
            lookup=lookup,
            admission=admission,
            preview=preview,
            is_ending=lambda: shutdown.is_ending,
            clock=clock,
        )
        shutdown = Shutdown(
            store,
            reconciler,
            claims,
            publisher,
            deployments.down,
            end,
            parent=0 if settings.watchdog is None else os.getppid(),
        )
        status = StatusReader(
            runtime=runtime,
            store=store,
            events=events,
            reconciler=reconciler,
            claims=claims,
            publisher=publisher,
            gateways=gateways,
            ingest=ingest,
            sampler=sampler,
            firewall_state=lambda: firewall.state if firewall else "",
            addresses_state=lambda: redirection.state if redirection else "",
            enforcement_state=lambda: enforcement.state if enforcement else "",
            is_ending=lambda: shutdown.is_ending,
            clock=clock,
        )
        nodes = self._nodes = NodeManager(runtime, reconciler, events, clock, self._node_server)
        live = LiveFeed(status.status, call_edges.list, events)
        flights = Recorder(settings.state, lookup, ingest, events, clock)
        self._ticker = Ticker(
            ingest, stores, self._scaling, reconciler, recorder, flights, live, clock
        )
        access = AccessManager(stores.tokens, stores.audit, clock)
        files = load_assets() if settings.ui is not None else {}
        page = self._page = WebPage(settings.ui, files, access, clock)
        self._problems = ProblemWatch(
            events,
            lambda: reconciler.view().desired.services,
            lambda: by_service(reconciler.view().observed.replicas),
            ingest.totals.objective,
            lambda: sampler.nodes,
            [settings.state, *ENGINE_FOLDERS.get(runtime.name, ())],
            clock,
        )
        notifier = self._notifier = Notifier(
            events,
            stores.silences,
            lambda: [stored.project for stored in store.projects.values()],
            counters.count_notification,
            clock,
        )
        quiescer = self._quiescer = Quiescer(reconciler, stores.quiesced, events, clock)
        self._control = ControlFacade(
            reconciler=reconciler,
            store=store,
            events=events,
            decisions=stores.decisions,
            traffic=stores.traffic,
            calls=stores.calls,
            sizes=stores.sizes,
            lookup=lookup,
            status=status,
            metrics=Metrics(
                counters, ingest, status.daemon, status.services, clock, self._certificate_status
            ),
            admission=admission,
            deployments=deployments,
            progress=ProgressTracker(
                runtime,
                store,
                reconciler,
                lookup,
                lambda: admission.nodes,
                publisher.is_installed,
            ),
            rollouts=RolloutManager(
                store,
                stores.releases,
                stores.release_counts,
                events,
                reconciler,
                deployments.undo,
                clock,
            ),
            jobs=jobs,
            volumes=VolumeManager(runtime, store, reconciler, quiescer, events, clock),
            nodes=nodes,
            recorder=flights,
            log_tail=LogTail(
                runtime, lookup, OutputArchive(settings.state / output_archive.DIRECTORY), clock
            ),
            history=history,
            live=live,
            page=page,
            access=access,
            notifier=notifier,
            shutdown=shutdown,
            leads=leads,
            certificates=self._certificate_status,
            retry_certificate=certificates.retry if certificates else lambda _: False,
            clock=clock,
        )

    async def run(self, end: asyncio.Event, keeping: "asyncio.Task[None] | None" = None) -> None:
        """Serve the API and run all parts until `end` is set. `keeping` keeps the lease, also while
        the parts end; if it fails, so does this. Raises ServeError."""
        try:
            await self._serve(end, keeping)
        finally:  # also if a part failed: its last events say why
            with contextlib.suppress(StoreWriteError):
                self._stores.events.flush()
            await self._runtime.close()

    async def _serve(self, end: asyncio.Event, keeping: "asyncio.Task[None] | None") -> None:
        settings = self._settings
        if settings.last_end:
            text = f"the control process was restarted; the one before: {settings.last_end}"
            self._stores.events.record(self._clock(), Kind.CONTROL_RESTARTED, text)
        self._reconciler.request(ReloadDesired())  # so that the API knows the services at once
        socket = settings.state / presence.API_SOCKET
        async with (
            serve(self._control, socket, settings.metrics, settings.api) as serving,
            self._page.serve(self._control) as page_address,
            self._node_server.serve() if self._node_server else contextlib.nullcontext(),
        ):
            _log.info(
                "control process ready",
                runtime=self._runtime.name,
                state=str(settings.state),
                metrics=serving.metrics_address,
                api=serving.tcp_address,
                page=page_address,
            )
            running: list[Coroutine[Any, Any, None]] = [
                self._publisher.run(),
                self._run_watch(),
                self._reconciler.run(),
                self._sampler.run(
                    lambda: self._reconciler.view().observed.replicas, self._take_usage
                ),
                self._queries.run(),
                self._jobs.run(),
                self._quiescer.run(),
                self._cron.run(),
                self._zero_feed.run(self._scaling, self._reconciler),
                self._ticker.run(),
                send_signs_of_life(settings.watchdog),
                self._clock_watch.run(),
                self._problems.run(),
                self._notifier.run(),
            ]
            if self._firewall is not None:
                served = filter(None, (serving.metrics_address, serving.tcp_address, page_address))
                blocked = [blocked_port_of(address) for address in served]
                self._firewall.block_ports(tuple(each for each in blocked if each is not None))
                running.append(self._run_when_ready(self._firewall))
            if keeping is not None:
                running.append(_follow(keeping))
            if self._runtime.capabilities.swarm:
                running.append(self._nodes.run())
            if isinstance(self._runtime, TakeoverRuntime):
                running.append(Migration(self._runtime, self._reconciler).run())
            if self._certificates is not None:
                running.append(self._certificates.run())
            if self._redirection is not None:
                running.append(self._run_when_ready(self._redirection))
            if self._enforcement is not None:
                running.append(self._run_when_ready(self._enforcement))
            await _run_until(end, running)

    def _make_firewall(self, claims: ProjectClaims) -> HostFirewall | None:
        """Return the firewall between containers and the host; None on a runtime without
        containers."""
        engine = engine_part(self._runtime)
        if engine is None:
            return None
        return engine.make_host_firewall(
            claims.holder.instance,
            lambda: claims.held,
            lambda kind, text: self._stores.events.record(self._clock(), kind, text),
            self._settings.filters,
        )

    def _make_redirection(self, claims: ProjectClaims) -> Redirection | None:
        """Return the redirection of virtual addresses; None on a runtime without networks."""
        engine = engine_part(self._runtime)
        if engine is None:
            return None
        return engine.make_redirection(
            claims.holder.instance,
            lambda: claims.held,
            lambda kind, text: self._stores.events.record(self._clock(), kind, text),
        )

    def _make_enforcement(
        self, claims: ProjectClaims, reconciler: Reconciler
    ) -> Enforcement | None:
        """Return the enforcement of `allow` between containers; None on a runtime without them."""
        engine = engine_part(self._runtime)
        if engine is None:
            return None
        return engine.make_enforcement(
            claims.holder.instance,
            lambda: [
                each.key
                for each in reconciler.view().desired.services
                if each.spec.mesh.is_enforced
            ],
            lambda kind, text: self._stores.events.record(self._clock(), kind, text),
        )

    def _make_certificates(
        self, publisher: Publisher, on_change: Callable[[], None], held: Snapshot | None
    ) -> "CertificateManager | None":
        """Return what orders certificates; None without settings for that. A daemon that takes over
        from another host continues with the certificates of the `held` snapshot, before its own
        first snapshot replaces that one. Raises BadAcmeSettings."""
        if not self._settings.acme:
            return None
        # Imported here: these modules and their libraries take 15 MiB.
        from meshd.certificates.manager import CertificateManager
        from meshd.certificates.store import CertificateStore, adopt_served

        wanted = WantedCertificates(self._settings.acme, self._list_routed)
        store = CertificateStore(self._settings.state)
        try:
            adopt_served(store, held.certificates if held is not None else ())
        except OSError as error:
            _log.error("certificates of the leader before cannot be stored", error=str(error))
        return CertificateManager(
            store,
            wanted.list,
            publisher.is_answered,
            lambda kind, text: self._stores.events.record(self._clock(), kind, text),
            on_change,
            self._clock,
            random.Random(),
        )

    def _list_routed(self) -> list[Service]:
        """Return all services whose routes count: those deployed, and those adopted."""
        stored = [each for each in self._stores.store.projects.values() if not each.leaving]
        deployed = [service for each in stored for service in each.project.services]
        view = self._reconciler.view()
        return deployed + [each.spec for each in view.desired.services if each.adopted]

    def _certificate_status(self) -> Sequence[CertificateStatus]:
        ordered = self._certificates.status() if self._certificates else ()
        return [*describe_files(self._listeners, self._clock()), *ordered]

    def _take_usage(self, loads: Mapping[str, Load]) -> None:
        """Add a reading of CPU and memory to what limits are proposed from."""
        view = self._reconciler.view()
        requests = {s.key: self._ingest.total(s.key).completions for s in view.desired.services}
        self._stores.sizes.take(view.observed.replicas, loads, requests, PAUSE, self._clock())

    async def _run_watch(self) -> None:
        """Connect to the runtime, however long that takes, then watch it."""
        while True:
            try:
                await self._runtime.open()
                break
            except RuntimeFailure as error:
                _log.warning("runtime does not answer yet", reason=str(error))
                await asyncio.sleep(CONNECT_RETRY)
        await self._watch.run()

    async def _run_when_ready(self, part: HostFirewall | Redirection | Enforcement) -> None:
        """Run a part once it is known which projects are ours."""
        await self._reconciler.ready()
        await part.run()


async def _run_until(end: asyncio.Event, running: list[Coroutine[Any, Any, None]]) -> None:
    """Run all coroutines until `end` is set. If one of them fails, the process ends and the
    supervisor starts a new one."""
    tasks = [asyncio.create_task(part) for part in running]
    tasks.append(asyncio.create_task(_wait(end)))
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _follow(task: "asyncio.Task[None]") -> None:
    """Wait for a task that outlives this one."""
    await asyncio.shield(task)


async def _wait(end: asyncio.Event) -> None:
    await end.wait()
