"""Cost of the control process with many services: passes, changes, periodic work, memory.

Runs the real reconciler, store, publisher and scaling over a simulated runtime whose replicas are
always running, and one worker's data plane at the other end of the wire. CPU times depend on the
machine; compare how they grow.

    python -m bench.control [--services 100 --services 300 --services 1000] [--replicas 10]
                            [--profile PART]

PART is a name in the table.
"""

import argparse
import asyncio
import contextlib
import cProfile
import gc
import pstats
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from bench.simulated_runtime import SimulatedRuntime
from meshd.control.status import by_service
from meshd.control.status_reader import StatusReader
from meshd.discovery.watch import RuntimeWatcher
from meshd.jobs.factory import JobFactory
from meshd.jobs.hook_runner import HookRunner
from meshd.jobs.table import JobTable
from meshd.model.rollout import Override
from meshd.publish.compile import EdgeSettings
from meshd.publish.gateways import Gateways
from meshd.publish.publisher import OtherProxies, Publisher
from meshd.publish.virtual_addresses import VirtualAddresses
from meshd.reconcile.loop import Reconciler
from meshd.reconcile.ownership.claims import ProjectClaims
from meshd.scaling.controller import ScalingController
from meshd.scaling.prometheus_queries import PrometheusQueries
from meshd.spec.fingerprint import compute_revision
from meshd.spec.model import Project
from meshd.store.decisions import DecisionLog
from meshd.store.events import EventLog
from meshd.store.jobs import JobLog
from meshd.store.store import Store
from meshd.store.traffic import TrafficLog
from meshd.store.virtual_addresses import VirtualAddressLog
from meshd.telemetry.counters import EventCounters
from meshd.telemetry.ingest import Ingest
from meshd.telemetry.metrics import Metrics
from meshd.telemetry.usage_sampler import UsageSampler
from proxy.ipc.shared_memory import SharedCells
from proxy.request.data_plane import DataPlane
from proxy.wire import codec
from proxy.wire.report import (
    Publish,
    PublishDelta,
    Report,
    make_publication,
    read_publication,
)
from proxy.wire.snapshot import Snapshot

ROUNDS: Final = 9
"""Runs of each part; the median counts."""
PER_PROJECT: Final = 20
"""Services per project."""


def project(number: int, services: int, replicas: int) -> Project:
    """Return a project."""
    return Project.model_validate(
        {
            "name": f"app{number}",
            "services": [
                {
                    "name": f"svc-{number * PER_PROJECT + each}",
                    "image": "app",
                    "replicas": replicas,
                    "mesh": {
                        "routes": [f"/app{number}/svc{each}"],
                        "allow": [f"svc-{number * PER_PROJECT}"],
                        "health": {"interval": 3600},
                        "scale": {"min": replicas, "max": 2 * replicas, "p95": "250ms"},
                    },
                }
                for each in range(services)
            ],
        }
    )


class Mesh:
    """The control process, without sockets, and one worker. `others`: the proxies of other
    nodes."""

    def __init__(
        self,
        directory: Path,
        loop: asyncio.AbstractEventLoop,
        runtime: SimulatedRuntime | None = None,
        others: OtherProxies | None = None,
    ) -> None:
        self.runtime = runtime or SimulatedRuntime()
        self.store = Store(directory)
        self.store.open()
        self.events = EventLog(self.store)
        self.events.open()
        wake = asyncio.Event()
        publisher = Publisher(directory / "none", self.store.next_epoch(), _ignore, others)
        watch = self.watch = RuntimeWatcher(self.runtime, wake.set)
        gateways = Gateways(self.runtime, VirtualAddresses(VirtualAddressLog(self.store)))
        claims = ProjectClaims(
            self.runtime, self.store, lambda: watch.replicas, wake.set, adopts=True
        )
        job_log = JobLog(self.store)
        jobs = JobTable(self.store, job_log, wake.set)
        jobs.set_containers({})
        factory = JobFactory(self.store, job_log, time.time, random.Random())
        self.reconciler = Reconciler(
            runtime=self.runtime, watch=watch, store=self.store, events=self.events,
            publisher=publisher, gateways=gateways, claims=claims, held_snapshot=None, wake=wake,
            probe=self.runtime.probe, jobs=jobs, hooks=HookRunner(factory, jobs, job_log),
            traffic=None, in_flight={}, start_slots=int, on_ready=_ignore,
            edge=EdgeSettings(), clock=time.time, random=random.Random(),
        )  # fmt: skip
        self.publisher, self.gateways = publisher, gateways
        self.ingest, sampler = Ingest(), UsageSampler(self.runtime)
        self.status = StatusReader(
            runtime=self.runtime, store=self.store, events=self.events, reconciler=self.reconciler,
            claims=claims, publisher=publisher, gateways=gateways, ingest=self.ingest,
            sampler=sampler, firewall_state=str, addresses_state=str, enforcement_state=str,
            is_ending=bool, clock=time.time,
        )  # fmt: skip
        counters = EventCounters()
        self.metrics = Metrics(
            counters, self.ingest, self.status.daemon, self.status.services, time.time
        )
        self.scaling = ScalingController(
            self.store, self.events, DecisionLog(self.store), TrafficLog(self.store), self.ingest,
            counters, sampler, PrometheusQueries(time.monotonic), tuple, wake.set,
        )  # fmt: skip
        self.cells = SharedCells.create(2)
        self.worker = DataPlane(0, loop, workers=2, row=self.cells.row(0))
        self.before: Snapshot | None = None
        self.snapshot: Snapshot | None = None
        self.frame = self.report_frame = b""
        self.changes = 0
        self.blocked = 0.0
        # Each report covers one second, from the start of a minute: so no measured second is one
        # of those, one in ten, in which traffic is stored.
        self.reported_until = time.time() // 60 * 60 + 0.5

    async def close(self) -> None:
        """Close the worker, the reconciler and the store."""
        self.worker.close()
        await self.reconciler.close()
        self.store.close()

    async def settle(self) -> None:
        """Run passes until nothing changes."""
        quiet = 0
        while quiet < 3:
            generation = self.publisher.generation
            await self.step()
            busy = self.reconciler.view().running or self.publisher.generation != generation
            quiet = 0 if busy else quiet + 1

    async def step(self) -> None:
        """List the runtime, run a pass, and let the operations that it started run."""
        await self.watch._list()
        self.run_pass()
        for _ in range(5):
            await asyncio.sleep(0)

    async def one_more(self, replicas: int) -> None:
        """Scale another service up by one and probe the new replica.

        The next pass has a change to publish.
        """
        self.before = self.publisher.current
        self.changes += 1
        key = self.reconciler.view().desired.services[self.changes].key
        self.store.set_override(key, Override(replicas + 1, 0.0))
        await self.step()
        await self.step()

    # --- The measured parts

    def run_pass(self) -> None:
        """Run one pass."""
        self.reconciler.run_pass(time.time())

    def encode(self) -> None:
        """Encode the changes since `one_more`."""
        current = self.publisher.current
        assert current is not None
        assert current is not self.before
        self.frame = codec.encode(make_publication(self.before, current, deltas=True))

    def install(self) -> None:
        """Install the update in the worker."""
        (message,) = codec.Decoder().feed(self.frame)
        assert isinstance(message, Publish | PublishDelta)
        self.snapshot = read_publication(self.snapshot, message)
        self.worker.install(self.snapshot)

    def report(self) -> None:
        """Encode the worker's report of the next second.

        A new second each time: the first report of a second costs more than the others.
        """
        self.reported_until += 1.0
        self.report_frame = codec.encode(
            self.worker.report(self.reported_until - 1.0, self.reported_until, busy_only=True)
        )

    def take(self) -> None:
        """Receive the report."""
        (report,) = codec.Decoder().feed(self.report_frame)
        assert isinstance(report, Report)
        self.ingest.add(report)

    def second(self) -> None:
        """Run the work that the control process does once per second."""
        view = self.reconciler.view()
        services = view.desired.services
        self.ingest.set_services([service.key for service in services])
        self.scaling.step(services, by_service(view.observed.replicas), self.reported_until)

    def scrape(self) -> None:
        """Generate the exposition; set `blocked` to the longest step in CPU seconds.

        Other work of the event loop waits for a step.
        """
        scraping, self.blocked = self.metrics.exposition(), 0.0
        with contextlib.suppress(StopIteration):
            while True:
                begin = time.process_time()
                try:
                    scraping.send(None)
                finally:
                    self.blocked = max(self.blocked, time.process_time() - begin)


PARTS: Final[Mapping[str, Callable[[Mesh], object]]] = {
    "change": Mesh.run_pass,
    "encode": Mesh.encode,
    "install": Mesh.install,
    "pass": Mesh.run_pass,
    "refresh shared counts": lambda mesh: mesh.worker._refresh_shared_counts(),
    "housekeeping": lambda mesh: mesh.worker._housekeeping(time.monotonic()),
    "report": Mesh.report,
    "ingest": Mesh.take,
    "second": Mesh.second,
    "status": lambda mesh: mesh.status.status(),
    "metrics": lambda mesh: mesh.scrape(),
}
"""The repeated parts, in the order in which each has its input. `change` to `install` are the path
of a change from the first pass that sees it to a worker that routes by it."""


def _ignore(*values: object) -> None:
    del values


async def measure(services: int, options: argparse.Namespace) -> dict[str, float]:
    """Return the CPU milliseconds of each part, and megabytes of memory."""
    gc.collect()
    memory = resident()
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        mesh = Mesh(Path(directory), asyncio.get_running_loop())
        try:
            begin = time.process_time()
            await populate(mesh, services, options.replicas)
            found = {"adopt": (time.process_time() - begin) * 1e3}
            gc.collect()
            found["memory, MB"] = (resident() - memory) / 2**20
            found |= await parts(mesh, options)
        finally:
            await mesh.close()
    return found


async def populate(mesh: Mesh, services: int, replicas: int) -> None:
    """Deploy all services with running replicas, and run the first passes."""
    for number in range(-(-services // PER_PROJECT)):
        size = min(PER_PROJECT, services - number * PER_PROJECT)
        made = project(number, size, replicas)
        revisions = {service.name: compute_revision(service) for service in made.services}
        mesh.runtime.populate(made, revisions)
        mesh.store.deploy(made, revisions, "bench", "", time.time())
        await mesh.gateways.discover(made.name, list(revisions))
    await mesh.settle()
    current = mesh.publisher.current
    assert current is not None
    assert sum(len(each.endpoints) for each in current.services) == services * replicas
    mesh.encode()
    mesh.install()


async def parts(mesh: Mesh, options: argparse.Namespace) -> dict[str, float]:
    """Measure each part, several times."""
    profile = cProfile.Profile()
    times: dict[str, list[float]] = {name: [] for name in PARTS}
    blocked = times["metrics, wait"] = []
    for _ in range(ROUNDS):
        await mesh.one_more(options.replicas)
        for name, part in PARTS.items():
            if options.profile == name:
                profile.enable()
            begin = time.process_time()
            part(mesh)
            times[name].append((time.process_time() - begin) * 1e3)
            profile.disable()
        blocked.append(mesh.blocked * 1e3)
    if options.profile:
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)
    found = {name: statistics.median(values) for name, values in times.items()}
    found["update, KB"], found["report, KB"] = len(mesh.frame) / 1024, len(mesh.report_frame) / 1024
    return found


def resident() -> int:
    """Return the resident memory of this process in bytes."""
    with open("/proc/self/statm", "rb") as statm:
        return int(statm.read().split()[1]) * 4096


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Cost of the control process by number of services."
    )
    parser.add_argument("--services", type=int, action="append")
    parser.add_argument("--replicas", type=int, default=10)
    parser.add_argument("--profile", default="", help="profile this part")
    options = parser.parse_args()
    table: dict[str, dict[int, float]] = {}
    sizes = options.services or [100, 300, 1000]
    for size in sizes:
        for name, value in asyncio.run(measure(size, options)).items():
            table.setdefault(name, {})[size] = value
    print(f"{'CPU ms':14}" + "".join(f"{size:>10}" for size in sizes))
    for name, row in table.items():
        print(f"{name:14}" + "".join(f"{row[size]:10.2f}" for size in sizes))


if __name__ == "__main__":
    main()
