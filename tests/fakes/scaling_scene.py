"""One service with a real store, and one worker that reports every second, for tests of scaling."""

import time
from pathlib import Path
from typing import Any

from meshd.capacity.job_demand import JobDemand
from meshd.model.desired import DesiredService
from meshd.model.replica import Replica
from meshd.model.replica_phase import Phase
from meshd.runtime.process.runtime import ProcessRuntime
from meshd.scaling.controller import ScalingController
from meshd.scaling.prometheus_queries import PrometheusQueries
from meshd.spec.model import Service
from meshd.store.decisions import DecisionLog
from meshd.store.events import EventLog
from meshd.store.store import Store
from meshd.store.traffic import TrafficLog
from meshd.telemetry.counters import EventCounters
from meshd.telemetry.ingest import Ingest
from meshd.telemetry.usage_sampler import UsageSampler
from proxy.wire.report import EndpointReport, Histogram, Report, ServiceReport
from proxy.wire.snapshot import Generation
from tests.fakes import traffic

NOW = 1_000_000.0
KEY = "shop/web"


def desired(count: int = 0, name: str = "web", **fields: Any) -> DesiredService:
    scale = {"min": 0, "max": 20, "concurrency": 2, **fields.pop("scale", {})}
    spec = {"name": name, "image": "app", "mesh": {"scale": scale}, **fields.pop("spec", {})}
    fields.setdefault("revision", "r1")
    made = Service.model_validate(spec)
    return DesiredService(project="shop", spec=made, desired=count, **fields)


def replicas(count: int, revision: str = "r1", **more: Any) -> list[Replica]:
    return [
        Replica(
            name=f"web-{number}", project="shop", service="web", revision=revision,
            phase=Phase.READY, **more,
        )
        for number in range(count)
    ]  # fmt: skip


class Scene:
    """The scaling controller as the daemon wires it. `restart` replaces it by a new one.

    `start_slots`: replicas that may always start at the same time; 0: no limit.
    """

    def __init__(self, folder: Path, start_slots: int = 0) -> None:
        self.folder = folder
        self.start_slots = start_slots
        self.clock = NOW
        self.woken = 0
        self._sequence = 0
        self.sampler = UsageSampler(ProcessRuntime(folder))
        self.jobs: list[JobDemand] = []
        self._begin()

    def _begin(self) -> None:
        self.store = Store(self.folder)
        self.store.open()
        self.events = EventLog(self.store)
        self.events.open()
        self.ingest = Ingest()
        self.counters = EventCounters()
        self.decisions = DecisionLog(self.store)
        self.traffic = TrafficLog(self.store)
        self.scaling = ScalingController(
            self.store,
            self.events,
            self.decisions,
            self.traffic,
            self.ingest,
            self.counters,
            self.sampler,
            PrometheusQueries(time.monotonic),
            lambda: self.jobs,
            self._wake,
            lambda: self.start_slots,
        )

    def restart(self, killed: bool = False) -> None:
        """End the control process and start another one."""
        if not killed:
            self.scaling.close(self.clock)
        self.store.close()
        self._begin()

    def close(self) -> None:
        self.store.close()

    def _wake(self) -> None:
        self.woken += 1

    def wanted(self, key: str = KEY) -> int | None:
        found = self.store.scaling.get(key)
        return found.desired if found else None

    def second(
        self,
        service: DesiredService,
        group: list[Replica],
        arrivals: int = 0,
        took: float = 0.1,
        name: str = KEY,
        ejected: bool = False,
        others: list[Replica] | None = None,
    ) -> None:
        """Report a second with `arrivals` requests of `took` seconds each, then run a step.
        `others` are the replicas of another service."""
        latency = traffic.histogram(*[took] * arrivals) if arrivals else Histogram()
        endpoint = EndpointReport("web-0", "r1", busy_seconds=arrivals * took, ejected=ejected)
        report = ServiceReport(
            name,
            arrivals=arrivals,
            codes={"GET 2xx": arrivals} if arrivals else {},
            total=latency,
            first_byte=latency,
            endpoints=(endpoint,),
        )
        self._sequence += 1
        start, self.clock = self.clock, self.clock + 1.0
        self.ingest.add(Report(1, self._sequence, start, self.clock, Generation(1, 1), (report,)))
        self.ingest.set_services([name])
        groups = {name: group, **({others[0].key: others} if others else {})}
        self.scaling.step([service], groups, self.clock + 0.15)
