"""Composition root of the control process: makes the parts, wires them, runs them until the end.

Who needs something of another part is given it here, as an argument where it cannot do without,
and else as an attribute, so that no part knows how another is made.
"""

import asyncio
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from meshd.api.server import serve
from meshd.capacity.job_demand import JobAdmission
from meshd.control.facade import ControlFacade
from meshd.control.rollouts import RolloutManager
from meshd.daemon.stores import Stores
from meshd.daemon.ticker import Ticker
from meshd.daemon.worker_events import Feedback
from meshd.discovery.probe import probe
from meshd.discovery.watch import RuntimeWatcher
from meshd.jobs.cron_scheduler import CronScheduler
from meshd.jobs.hook_runner import HookRunner
from meshd.jobs.manager import JobManager
from meshd.model.scaling import Load
from meshd.publish.gateways import Gateways
from meshd.publish.last_snapshot import read_held
from meshd.publish.publisher import Publisher
from meshd.reconcile.loop import Reconciler
from meshd.reconcile.plan.start_limit import places
from meshd.runtime.base import RuntimeFailure
from meshd.runtime.docker.firewall_rules import door_of
from meshd.runtime.docker.host_firewall import HostFirewall
from meshd.runtime.docker.runtime import DockerRuntime
from meshd.runtime.select import make_runtime
from meshd.scaling.controller import ScalingController
from meshd.scaling.prometheus_queries import PrometheusQueries
from meshd.store import presence
from meshd.telemetry.ingest import Ingest
from meshd.telemetry.metrics import Metrics
from meshd.telemetry.usage_sampler import PAUSE, UsageSampler
from proxy.wire.report import Wake

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class DaemonSettings:
    """What the process is started with. `metrics` is the address to serve them on, `starts` how
    many replicas may start at once on a node (0: as many as it has CPUs), `adopts` whether what
    others started is taken in, `filters` whether containers are kept from the host."""

    state: Path
    runtime: str
    metrics: str
    starts: int = 0
    adopts: bool = True
    trusted_proxies: tuple[str, ...] = ()
    filters: bool = True


class Daemon:
    """Every part of the control process, and the order they start and end in."""

    def __init__(self, settings: DaemonSettings) -> None:
        self.end = asyncio.Event()
        self._settings = settings
        self._wake = asyncio.Event()
        self._ingest = Ingest()
        self._ledgers = Stores(settings.state, self._ingest)
        self._feedback = Feedback(self._ingest, self._ledgers.events)
        self._runtime = make_runtime(
            "docker" if settings.runtime == "docker" else "process", settings.state
        )

    async def run(self) -> None:
        """Run until `end` is set. Raises Held, TooNew, CannotServe, sqlite3.DatabaseError."""
        with self._ledgers.opened():
            await self._run()

    async def _run(self) -> None:
        settings, ledgers = self._settings, self._ledgers
        gateways = Gateways(self._runtime)
        publisher = Publisher(
            settings.state / "feed.sock", ledgers.store.next_epoch(), self._feedback.take
        )
        watch = RuntimeWatcher(self._runtime, self._wake.set)
        loop = self._make_loop(watch, publisher, gateways)
        control = self._make_control(loop, publisher, gateways)
        metrics = Metrics(self._ingest, control.about, control.services, time.time)
        desk, timetable = self._make_jobs(loop)
        meter = self._make_meter(loop)
        scaling = self._make_scaling(loop, metrics, meter)
        queries = scaling.queries = PrometheusQueries()
        room = JobAdmission(
            ledgers.store,
            meter,
            self._runtime.capabilities,
            lambda: loop.desired.services,
            lambda: loop.observed.replicas,
        )
        desk.room = room
        scaling.jobs = control.admission.burdens = desk.burdens
        control.exposition, control.jobs, control.meter = metrics, desk, meter
        ledgers.events.on_event = metrics.observe_event
        fence = self._make_fence(loop)
        if fence is not None:
            control.filter = lambda: fence.state
        async with serve(
            control, settings.state / presence.API_SOCKET, settings.metrics
        ) as serving:
            _log.info(
                "control process ready",
                runtime=self._runtime.name,
                state=str(settings.state),
                metrics=serving.metrics_address,
            )
            parts = [
                publisher.run(),
                self._open_runtime(watch),
                loop.run(),
                meter.run(),
                queries.run(),
                desk.run(),
                timetable.run(),
                Ticker(self._ingest, ledgers, scaling, loop).run(),
            ]
            if fence is not None:
                door = door_of(serving.metrics_address)
                fence.doors = () if door is None else (door,)
                parts.append(_keep_up(fence, loop))
            await self._run_parts(*parts)
        ledgers.events.flush()
        await self._runtime.close()

    # Parts

    def _make_loop(
        self, watch: RuntimeWatcher, publisher: Publisher, gateways: Gateways
    ) -> Reconciler:
        loop = Reconciler(
            self._runtime,
            watch,
            self._ledgers.store,
            self._ledgers.events,
            publisher,
            gateways,
            self._ledgers.store.secret(),
            read_held(self._settings.state / "snapshot.bin"),
            self._wake,
            probe,
            time.time,
        )
        loop.in_flight = self._feedback.in_flight
        loop.claims.adopts = self._settings.adopts
        loop.outlet.trusted_proxies = self._settings.trusted_proxies
        loop.refresh(time.time())
        loop.trials.traffic = self._ingest
        self._feedback.on_report = self._ledgers.tallies.take
        self._feedback.wake = self._wake.set
        return loop

    def _make_control(
        self, loop: Reconciler, publisher: Publisher, gateways: Gateways
    ) -> ControlFacade:
        ledgers = self._ledgers
        control = ControlFacade(
            self._runtime,
            ledgers.store,
            ledgers.events,
            ledgers.decisions,
            ledgers.traffic,
            loop,
            publisher,
            gateways,
            self._ingest,
            self.end.set,
        )
        control.by_hand = RolloutManager(
            ledgers.store,
            ledgers.releases,
            ledgers.tallies,
            ledgers.events,
            loop,
            control.deployments.undo,
        )
        control.calls, control.used = ledgers.calls, ledgers.sizes
        return control

    def _make_jobs(self, loop: Reconciler) -> tuple[JobManager, CronScheduler]:
        ledgers = self._ledgers
        desk = JobManager(
            self._runtime,
            ledgers.store,
            ledgers.jobs,
            ledgers.events,
            loop.briefing.job,
            loop.briefing.may_start,
            self._wake.set,
            time.time,
            random.Random(),
        )
        timetable = CronScheduler(ledgers.store, ledgers.jobs, desk, ledgers.events, time.time)
        desk.schedules, desk.kept = timetable.statuses, timetable.kept
        loop.callers, loop.working, loop.hooks = desk.callers, desk.working, HookRunner(desk)
        return desk, timetable

    def _make_meter(self, loop: Reconciler) -> UsageSampler:
        meter = UsageSampler(self._runtime, lambda: loop.observed.replicas)

        def measured(loads: Mapping[str, Load]) -> None:
            requests = {s.key: self._ingest.total(s.key).completions for s in loop.desired.services}
            self._ledgers.sizes.take(loop.observed.replicas, loads, requests, PAUSE, time.time())

        meter.on_read = measured
        loop.places = lambda: places(meter.nodes, self._settings.starts)
        return meter

    def _make_scaling(
        self, loop: Reconciler, metrics: Metrics, meter: UsageSampler
    ) -> ScalingController:
        ledgers = self._ledgers
        scaling = ScalingController(
            ledgers.store,
            ledgers.events,
            ledgers.decisions,
            ledgers.traffic,
            self._ingest,
            metrics,
            self._wake.set,
        )
        scaling.meter = meter

        def ready(key: str, seconds: float) -> None:
            metrics.observe_start(key, seconds)
            scaling.ready(key, time.time())

        def parked(message: Wake) -> None:
            service = loop.wanted.service(message.service)
            if service is not None:
                scaling.woken(service, message.worker, message.parked, time.time())

        loop.narrator.on_ready, self._feedback.on_parked = ready, parked
        return scaling

    def _make_fence(self, loop: Reconciler) -> HostFirewall | None:
        """What keeps containers from the host; None where there are no containers."""
        if not isinstance(self._runtime, DockerRuntime):
            return None
        fence = self._runtime.fence(
            loop.claims.me.instance,
            lambda: loop.claims.held,
            lambda kind, text: self._ledgers.events.record(time.time(), kind, text),
        )
        fence.wished = self._settings.filters
        return fence

    # Running

    async def _run_parts(self, *parts: "asyncio._CoroutineLike[None]") -> None:
        """Run all of them until the end; a part that fails ends the process, and the
        supervisor starts a new one."""
        tasks = [asyncio.create_task(part) for part in parts]
        tasks.append(asyncio.create_task(_wait(self.end)))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _open_runtime(self, watch: RuntimeWatcher) -> None:
        """Connect, however long that takes, then watch."""
        while True:
            try:
                await self._runtime.open()
                break
            except RuntimeFailure as error:
                _log.warning("the runtime does not answer yet", reason=str(error))
                await asyncio.sleep(1.0)
        await watch.run()


async def _keep_up(fence: HostFirewall, loop: Reconciler) -> None:
    """From when it is known which projects are ours."""
    await loop.began.wait()
    await fence.run()


async def _wait(end: asyncio.Event) -> None:
    await end.wait()
