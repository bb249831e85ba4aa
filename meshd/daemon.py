"""The control process: `python -m meshd.daemon --state DIR --runtime docker|process`.

Composition root: makes the parts, wires them, runs them until told to end. Exit codes: 0
ended in order, 1 failed, 2 refused (the state is held by another, an address is in use).
"""

import argparse
import asyncio
import random
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec
import structlog

from meshd.api.model import Load
from meshd.api.server import CannotServe, serve
from meshd.control import MeshControl
from meshd.discovery.probe import probe
from meshd.discovery.watch import Watch
from meshd.jobs.desk import JobDesk
from meshd.jobs.hooks import Hooks
from meshd.jobs.room import Room
from meshd.jobs.timetable import Timetable
from meshd.publish.gateways import Gateways
from meshd.publish.publisher import Publisher
from meshd.reconcile.loop import Reconciler
from meshd.reconcile.starts import places
from meshd.rollouts import RolloutDesk
from meshd.runtime.base import RuntimeFailure
from meshd.runtime.docker import DockerRuntime
from meshd.runtime.docker_fence import Fence
from meshd.runtime.docker_filter import door_of
from meshd.runtime.select import runtime as make_runtime
from meshd.scaling.external import Queries
from meshd.scaling.meter import PAUSE, Meter
from meshd.scaling.scaling import INTERVAL, Scaling
from meshd.status import by_service
from meshd.store.calls import CallLog
from meshd.store.decisions import DecisionLog
from meshd.store.events import EventLog
from meshd.store.jobs import JobLog
from meshd.store.lock import Held
from meshd.store.releases import Releases
from meshd.store.schema import TooNew
from meshd.store.sizes import Sizes
from meshd.store.store import CannotStore, Store
from meshd.store.traffic import TrafficLog
from meshd.telemetry.events import Kind, set_up_logging
from meshd.telemetry.ingest import Ingest
from meshd.telemetry.metrics import Metrics
from meshd.telemetry.tally import Tallies
from proxy.wire.report import (
    Ack,
    Ejected,
    ListenFailed,
    Listening,
    Message,
    Report,
    SnapshotRefused,
    Wake,
    Workers,
)
from proxy.wire.snapshot import Snapshot

_log = structlog.stdlib.get_logger(__name__)
REPORT_LATE: Final = 0.15
"""Seconds after the full second at which workers' reports of it are in."""


def read_held(path: Path) -> Snapshot | None:
    """The snapshot that the workers hold, as the supervisor stored it; None without one."""
    try:
        return msgspec.msgpack.decode(path.read_bytes(), type=Snapshot)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        _log.warning("the stored snapshot is left aside", error=str(error))
        return None


class Feedback:
    """What the supervisor tells, handed on to who needs it."""

    def __init__(self, ingest: Ingest, events: EventLog) -> None:
        self.in_flight: dict[str, int] = {}
        self.wake: Callable[[], None] = lambda: None
        self.on_parked: Callable[[Wake], None] = lambda _: None
        self.on_report: Callable[[Report], None] = lambda _: None
        self._ingest = ingest
        self._events = events
        self._by_worker: dict[int, dict[str, int]] = {}
        self._live: frozenset[int] = frozenset()
        self._deaf: dict[str, str] = {}
        self._refused: dict[int, SnapshotRefused] = {}

    def take(self, message: Message) -> None:
        """One message."""
        match message:
            case Report():
                self._report(message)
                return
            case Workers(live=live):
                self._workers(frozenset(live))
            case Ejected():
                project, _, service = message.service.partition("/")
                self._events.record(
                    time.time(),
                    Kind.ENDPOINT_EJECTED,
                    f"worker {message.worker} ejected it: {message.cause}",
                    project=project,
                    service=service,
                    replica=message.endpoint,
                )
            case Wake():
                self.on_parked(message)
            case ListenFailed():
                self._listen_failed(message)
            case Listening(bound=bound):
                self._deaf = {a: why for a, why in self._deaf.items() if a not in bound}
            case SnapshotRefused():
                self._snapshot_refused(message)
            case Ack(worker=worker, generation=generation):
                refused = self._refused.get(worker)
                if refused is not None and generation > refused.generation:
                    del self._refused[worker]
            case _:
                pass
        self.wake()

    def _listen_failed(self, failed: ListenFailed) -> None:
        """It is tried again, and told of, with each snapshot: an event only for what is new."""
        if self._deaf.get(failed.address) != failed.error:
            self._deaf[failed.address] = failed.error
            text = f"the proxy cannot listen on {failed.address}: {failed.error}"
            self._events.record(time.time(), Kind.LISTEN_FAILED, text)

    def _snapshot_refused(self, refused: SnapshotRefused) -> None:
        before = self._refused.get(refused.worker)
        self._refused[refused.worker] = refused
        if before is None or before.reason != refused.reason:
            at = refused.generation
            text = (
                f"worker {refused.worker} cannot route by generation {at.epoch}.{at.number} and "
                f"goes on with the one before: {refused.reason}"
            )
            self._events.record(time.time(), Kind.SNAPSHOT_REFUSED, text)

    def _report(self, report: Report) -> None:
        self._ingest.add(report)
        self.on_report(report)
        self._by_worker[report.worker] = {
            endpoint.id: endpoint.in_flight
            for service in report.services
            for endpoint in service.endpoints
            if endpoint.in_flight
        }
        self._sum_up()

    def _workers(self, live: frozenset[int]) -> None:
        self._ingest.workers(live)
        gone, new = self._live - live, live - self._live
        if gone and self._live:
            text = f"worker {_numbers(gone)} ended; live: {_numbers(live)}"
            self._events.record(time.time(), Kind.WORKER_REPLACED, text)
        elif new and self._live:
            _log.info("workers", live=sorted(live))
        self._live = live
        for worker in gone:
            self._by_worker.pop(worker, None)
            self._refused.pop(worker, None)
        self._sum_up()

    def _sum_up(self) -> None:
        self.in_flight.clear()
        for endpoints in self._by_worker.values():
            for name, count in endpoints.items():
                self.in_flight[name] = self.in_flight.get(name, 0) + count


def _numbers(workers: frozenset[int]) -> str:
    return ", ".join(map(str, sorted(workers))) or "none"


class Daemon:
    """Every part of the control process, and the order they start and end in."""

    def __init__(
        self,
        state: Path,
        runtime: str,
        metrics: str,
        starts: int = 0,
        adopts: bool = True,
        trusted_proxies: tuple[str, ...] = (),
        filters: bool = True,
    ) -> None:
        self.state = state
        self.trusted_proxies = trusted_proxies
        self.filters = filters
        self.adopts = adopts
        self.starts = starts
        self.metrics_address = metrics
        self.end = asyncio.Event()
        self.store = Store(state)
        self.events = EventLog(self.store)
        self.decisions = DecisionLog(self.store)
        self.calls = CallLog(self.store, self._calls)
        self.traffic = TrafficLog(self.store)
        self.jobs = JobLog(self.store)
        self.sizes = Sizes(self.store)
        self.releases = Releases(self.store)
        self.tallies = Tallies(self.releases, self.releases.under_way)
        self.ingest = Ingest()
        self.feedback = Feedback(self.ingest, self.events)
        self.runtime = make_runtime("docker" if runtime == "docker" else "process", state)

    async def run(self) -> None:
        """Run until `end` is set. Raises Held, TooNew, CannotServe, sqlite3.DatabaseError."""
        self.store.open()
        try:
            self.events.open()
            self.jobs.open()
            self.sizes.open()
            await self._run()
        finally:
            self.store.close()

    async def _run(self) -> None:
        gateways = Gateways(self.runtime)
        publisher = Publisher(self.state / "feed.sock", self.store.next_epoch(), self.feedback.take)
        wake = asyncio.Event()
        watch = Watch(self.runtime, wake.set)
        loop = Reconciler(
            self.runtime,
            watch,
            self.store,
            self.events,
            publisher,
            gateways,
            self.store.secret(),
            read_held(self.state / "snapshot.bin"),
            wake,
            probe,
            time.time,
        )
        loop.in_flight = self.feedback.in_flight
        loop.claims.adopts = self.adopts
        loop.outlet.trusted_proxies = self.trusted_proxies
        loop.refresh(time.time())
        loop.trials.traffic = self.ingest
        self.feedback.on_report = self.tallies.take
        self.feedback.wake = wake.set
        control = MeshControl(
            self.runtime,
            self.store,
            self.events,
            self.decisions,
            self.traffic,
            loop,
            publisher,
            gateways,
            self.ingest,
            self.end.set,
        )
        control.by_hand = RolloutDesk(
            self.store, self.releases, self.tallies, self.events, loop, control.deployments.undo
        )
        metrics = Metrics(self.ingest, control.about, control.services, time.time)
        control.exposition, control.calls = metrics, self.calls
        self.events.on_event = metrics.observe_event
        desk = control.jobs = JobDesk(
            self.runtime,
            self.store,
            self.jobs,
            self.events,
            loop.briefing.job,
            loop.briefing.may_start,
            wake.set,
            time.time,
            random.Random(),
        )
        loop.callers, loop.working = desk.callers, desk.working
        loop.hooks = Hooks(desk)
        timetable = Timetable(self.store, self.jobs, desk, self.events, time.time)
        desk.schedules, desk.kept = timetable.statuses, timetable.kept
        meter = control.meter = Meter(self.runtime, lambda: loop.observed.replicas)
        control.used = self.sizes

        def measured(loads: Mapping[str, Load]) -> None:
            requests = {s.key: self.ingest.total(s.key).completions for s in loop.desired.services}
            self.sizes.take(loop.observed.replicas, loads, requests, PAUSE, time.time())

        meter.on_read = measured
        loop.places = lambda: places(meter.nodes, self.starts)
        scaling = Scaling(
            self.store, self.events, self.decisions, self.traffic, self.ingest, metrics, wake.set
        )
        scaling.meter = meter
        room = Room(self.store, meter, self.runtime.capabilities,
                    lambda: loop.desired.services, lambda: loop.observed.replicas)  # fmt: skip
        desk.room, scaling.jobs = room, desk.burdens
        control.admission.burdens = desk.burdens
        queries = scaling.queries = Queries()

        def ready(key: str, seconds: float) -> None:
            metrics.observe_start(key, seconds)
            scaling.ready(key, time.time())

        def parked(message: Wake) -> None:
            service = loop.wanted.service(message.service)
            if service is not None:
                scaling.woken(service, message.worker, message.parked, time.time())

        loop.narrator.on_ready, self.feedback.on_parked = ready, parked
        fence = self._fence(loop)
        if fence is not None:
            control.filter = lambda: fence.state
        async with serve(control, self.state / "admin.sock", self.metrics_address) as serving:
            _log.info("control process ready", runtime=self.runtime.name, state=str(self.state),
                      metrics=serving.metrics_address)  # fmt: skip
            parts = []
            if fence is not None:
                door = door_of(serving.metrics_address)
                fence.doors = () if door is None else (door,)
                parts.append(self._keep_up(fence, loop))
            await self._run_parts(
                *parts,
                publisher.run(),
                self._open_runtime(watch),
                loop.run(),
                meter.run(),
                queries.run(),
                desk.run(),
                timetable.run(),
                self._every_second(scaling, loop),
            )
        self.events.flush()
        await self.runtime.close()

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

    async def _open_runtime(self, watch: Watch) -> None:
        """Connect, however long that takes, then watch."""
        while True:
            try:
                await self.runtime.open()
                break
            except RuntimeFailure as error:
                _log.warning("the runtime does not answer yet", reason=str(error))
                await asyncio.sleep(1.0)
        await watch.run()

    def _fence(self, loop: Reconciler) -> Fence | None:
        """What keeps containers from the host; None where there are no containers."""
        if not isinstance(self.runtime, DockerRuntime):
            return None
        fence = self.runtime.fence(
            loop.claims.me.instance,
            lambda: loop.claims.held,
            lambda kind, text: self.events.record(time.time(), kind, text),
        )
        fence.wished = self.filters
        return fence

    async def _keep_up(self, fence: Fence, loop: Reconciler) -> None:
        """From when it is known which projects are ours."""
        await loop.began.wait()
        await fence.run()

    def _calls(self) -> dict[str, tuple[Mapping[str, int], Mapping[str, int]]]:
        """Who called whom so far, and what of it was not covered."""
        totals = {name: self.ingest.total(name) for name in self.ingest.services()}
        return {name: (total.calls, total.uncovered) for name, total in totals.items()}

    async def _every_second(self, scaling: Scaling, loop: Reconciler) -> None:
        """Scaling decisions, and what has to be written down."""
        try:
            while True:
                now = time.time()
                await asyncio.sleep(INTERVAL - (now - REPORT_LATE) % INTERVAL)
                try:
                    self._second(scaling, loop, time.time())
                except CannotStore as error:
                    _log.error("what happens is not stored", reason=str(error))
        finally:
            self.calls.flush(time.time())
            self.tallies.flush()
            scaling.close(time.time())
            self.sizes.flush(time.time())

    def _second(self, scaling: Scaling, loop: Reconciler, now: float) -> None:
        services = loop.desired.services
        self.ingest.keep([service.key for service in services])
        scaling.step(services, by_service(loop.observed.replicas), now)
        self.tallies.step(now)
        self.calls.step(now)
        self.events.flush()


async def _wait(end: asyncio.Event) -> None:
    await end.wait()


async def _main(options: argparse.Namespace) -> None:
    daemon = Daemon(
        options.state, options.runtime, options.metrics, options.starts, not options.no_adopt,
        tuple(options.trusted_proxy), not options.no_filter,
    )  # fmt: skip
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, daemon.end.set)
    await daemon.run()


def main() -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(prog="python -m meshd.daemon", description=__doc__)
    parser.add_argument("--state", required=True, type=Path, metavar="DIR")
    parser.add_argument("--runtime", required=True, choices=("docker", "process"))
    parser.add_argument("--metrics", default="127.0.0.1:9900", metavar="ADDRESS")
    parser.add_argument("--starts", type=int, default=0, metavar="N")
    parser.add_argument("--no-adopt", action="store_true")
    parser.add_argument("--no-filter", action="store_true")
    parser.add_argument("--trusted-proxy", action="append", default=[], metavar="CIDR")
    options = parser.parse_args()
    set_up_logging()
    options.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        asyncio.run(_main(options))
    except (Held, TooNew, CannotServe, sqlite3.DatabaseError) as error:
        print(f"meshd: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
