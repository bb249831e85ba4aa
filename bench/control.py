"""What the control path costs with many services: passes, changes, the second's work, memory.

The real reconciler, store, publisher and scaling over a simulated runtime whose replicas simply
run, and one worker's data plane at the other end of the wire. CPU times of this machine; what
counts is how they grow.

    python -m bench.control [--services 100 --services 300 --services 1000] [--replicas 10]
                            [--profile PART]

PART is a word of the table.
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

from bench.hive import Hive
from meshd.control.status import by_service
from meshd.control.status_reader import StatusReader
from meshd.discovery.watch import RuntimeWatcher
from meshd.jobs.factory import JobFactory
from meshd.jobs.hook_runner import HookRunner
from meshd.jobs.table import JobTable
from meshd.model.rollout import Override
from meshd.publish.gateways import Gateways
from meshd.publish.publisher import Publisher
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
from meshd.telemetry.counters import EventCounters
from meshd.telemetry.ingest import Ingest
from meshd.telemetry.metrics import Metrics
from meshd.telemetry.usage_sampler import UsageSampler
from proxy.ipc.shared_memory import SharedCells
from proxy.request.data_plane import DataPlane
from proxy.wire import codec
from proxy.wire.report import Publish, Report
from proxy.wire.snapshot import Snapshot, apply, difference

ROUNDS: Final = 9
PER_PROJECT: Final = 20


def project(number: int, services: int, replicas: int) -> Project:
    """One application."""
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
    """The control process, without the sockets, and one worker."""

    def __init__(self, directory: Path, loop: asyncio.AbstractEventLoop) -> None:
        self.hive = Hive()
        self.store = Store(directory)
        self.store.open()
        self.events = EventLog(self.store)
        self.events.open()
        wake = asyncio.Event()
        publisher = Publisher(directory / "none", self.store.next_epoch(), _ignore)
        watch = self.watch = RuntimeWatcher(self.hive, wake.set)
        gateways = Gateways(self.hive)
        claims = ProjectClaims(self.hive, self.store, lambda: watch.replicas, wake.set, adopts=True)
        job_log = JobLog(self.store)
        jobs = JobTable(self.store, job_log, wake.set)
        jobs.set_containers({})
        factory = JobFactory(self.store, job_log, time.time, random.Random())
        self.reconciler = Reconciler(
            runtime=self.hive, watch=watch, store=self.store, events=self.events,
            publisher=publisher, gateways=gateways, claims=claims, held_snapshot=None, wake=wake,
            probe=self.hive.probe, jobs=jobs, hooks=HookRunner(factory, jobs, job_log),
            traffic=None, in_flight={}, start_slots=int, on_ready=_ignore,
            trusted_proxies=(), clock=time.time, random=random.Random(),
        )  # fmt: skip
        self.publisher, self.gateways = publisher, gateways
        self.ingest, sampler = Ingest(), UsageSampler(self.hive)
        self.status = StatusReader(
            runtime=self.hive, store=self.store, events=self.events, reconciler=self.reconciler,
            claims=claims, publisher=publisher, gateways=gateways, ingest=self.ingest,
            sampler=sampler, firewall_state=str, clock=time.time,
        )  # fmt: skip
        counters = EventCounters()
        self.metrics = Metrics(
            counters, self.ingest, self.status.daemon, self.status.services, time.time
        )
        self.scaling = ScalingController(
            self.store, self.events, DecisionLog(self.store), TrafficLog(self.store), self.ingest,
            counters, sampler, PrometheusQueries(), tuple, wake.set,
        )  # fmt: skip
        self.worker = DataPlane(0, loop)
        self.cells = SharedCells.create(2)
        self.worker.cells, self.worker.workers = self.cells.row(0), 2
        self.before: Snapshot | None = None
        self.snapshot: Snapshot | None = None
        self.frame = self.told = b""
        self.changes = 0
        self.blocked = 0.0
        # A second goes by with each report, from the beginning of a minute on: what is stored once
        # in ten seconds then comes in no measured one.
        self.told_until = time.time() // 60 * 60 + 0.5

    async def close(self) -> None:
        """End what runs."""
        self.worker.close()
        await self.reconciler.close()
        self.store.close()

    async def settle(self) -> None:
        """Pass after pass until nothing changes any more."""
        quiet = 0
        while quiet < 3:
            generation = self.publisher.generation
            await self.look()
            busy = self.reconciler.view().running or self.publisher.generation != generation
            quiet = 0 if busy else quiet + 1

    async def look(self) -> None:
        """The runtime is listed, a pass is made, and what it began gets its turn."""
        await self.watch._list()
        self.turn()
        for _ in range(5):
            await asyncio.sleep(0)

    async def one_more(self, replicas: int) -> None:
        """One service more gets a replica more, and it answers its first probe: the next pass
        has something to publish."""
        self.before = self.publisher.current
        self.changes += 1
        key = self.reconciler.view().desired.services[self.changes].key
        self.store.set_override(key, Override(replicas + 1, 0.0))
        await self.look()
        await self.look()

    # What is measured

    def turn(self) -> None:
        """One pass."""
        self.reconciler.run_pass(time.time())

    def encode(self) -> None:
        """What changed since `one_more`, for the wire."""
        current = self.publisher.current
        assert current is not None
        assert current is not self.before
        self.frame = codec.encode(Publish(update=difference(self.before, current)))

    def install(self) -> None:
        """A worker takes it."""
        (message,) = codec.Decoder().feed(self.frame)
        assert isinstance(message, Publish)
        self.snapshot = apply(self.snapshot, message.update)
        self.worker.install(self.snapshot)

    def report(self) -> None:
        """A worker's counts of a second, of the next one each time: what is new in a second
        costs more than what is not."""
        self.told_until += 1.0
        self.told = codec.encode(self.worker.report(self.told_until - 1.0, self.told_until))

    def take(self) -> None:
        """They come in."""
        (report,) = codec.Decoder().feed(self.told)
        assert isinstance(report, Report)
        self.ingest.add(report)

    def second(self) -> None:
        """What the control process does once a second."""
        view = self.reconciler.view()
        services = view.desired.services
        self.ingest.keep([service.key for service in services])
        self.scaling.step(services, by_service(view.observed.replicas), self.told_until)

    def scrape(self) -> None:
        """Everything for Prometheus; `blocked` becomes the longest that the event loop had to
        wait meanwhile, in CPU seconds."""
        scraping, self.blocked = self.metrics.exposition(), 0.0
        with contextlib.suppress(StopIteration):
            while True:
                begin = time.process_time()
                try:
                    scraping.send(None)
                finally:
                    self.blocked = max(self.blocked, time.process_time() - begin)


PARTS: Final[Mapping[str, Callable[[Mesh], object]]] = {
    "change": Mesh.turn,
    "encode": Mesh.encode,
    "install": Mesh.install,
    "pass": Mesh.turn,
    "look around": lambda mesh: mesh.worker._look_around(),
    "housekeeping": lambda mesh: mesh.worker._keep_house(time.monotonic()),
    "report": Mesh.report,
    "ingest": Mesh.take,
    "second": Mesh.second,
    "status": lambda mesh: mesh.status.status(),
    "metrics": lambda mesh: mesh.scrape(),
}
"""What runs again and again, in an order in which each finds what it needs: `change` to `install`
is the way of a change from the first pass that sees it to a worker that routes by it."""


def _ignore(*values: object) -> None:
    del values


async def measure(services: int, options: argparse.Namespace) -> dict[str, float]:
    """CPU milliseconds of each part, and megabytes."""
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
    """Deploy everything, with its replicas in place, and let the first passes see it."""
    for number in range(-(-services // PER_PROJECT)):
        size = min(PER_PROJECT, services - number * PER_PROJECT)
        made = project(number, size, replicas)
        revisions = {service.name: compute_revision(service) for service in made.services}
        mesh.hive.populate(made, revisions)
        mesh.store.deploy(made, revisions, "bench", "", time.time())
        await mesh.gateways.learn(made.name, list(revisions))
    await mesh.settle()
    current = mesh.publisher.current
    assert current is not None
    assert sum(len(each.endpoints) for each in current.services) == services * replicas
    mesh.encode()
    mesh.install()


async def parts(mesh: Mesh, options: argparse.Namespace) -> dict[str, float]:
    """Each part by itself, several times."""
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
    found["update, KB"], found["report, KB"] = len(mesh.frame) / 1024, len(mesh.told) / 1024
    return found


def resident() -> int:
    """Bytes of this process's memory."""
    with open("/proc/self/statm", "rb") as statm:
        return int(statm.read().split()[1]) * 4096


def main() -> None:
    parser = argparse.ArgumentParser(description="cost of the control path by size")
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
