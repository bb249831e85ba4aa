"""A data plane in virtual time: workers that take snapshots late and have requests in flight.

It outlives the control process, as the real one does. It checks every stop of a replica and every
snapshot, and keeps violations in `problems`.
"""

import asyncio
import random
from dataclasses import dataclass, field

from meshd.publish.publisher import Publisher
from proxy.wire.report import Ack, Hello, Workers
from proxy.wire.snapshot import Generation, Snapshot
from tests.fakes.sim_runtime import SimRuntime
from tests.fakes.virtual import clock

LAG = 0.8
"""Seconds that the last worker may lag behind the first; a drain deadline runs from the first."""


@dataclass
class SimWorker:
    number: int
    snapshot: Snapshot | None = None
    in_flight: dict[str, list[float]] = field(default_factory=dict)
    acked: tuple[Generation, tuple[str, ...]] | None = None

    def states(self) -> dict[str, str]:
        services = self.snapshot.services if self.snapshot else ()
        return {e.id: e.state for service in services for e in service.endpoints}

    def ack(self) -> Ack | None:
        if self.snapshot is None:
            return None
        states = self.states()
        busy = tuple(sorted(n for n, f in self.in_flight.items() if f and states.get(n) != "ready"))
        return Ack(self.number, self.snapshot.generation, busy)


class SimPlane:
    """`workers` is their number; `drain` is the drain deadline that stops are checked against."""

    def __init__(
        self, runtime: SimRuntime, generator: random.Random, workers: int, drain: float
    ) -> None:
        self.workers = [SimWorker(n + 1) for n in range(workers)]
        self.held: Snapshot | None = None
        self.publisher: Publisher | None = None
        self.problems: list[str] = []
        self.served = 0
        self._next = workers + 1
        self._runtime = runtime
        self._random = generator
        self._drain = drain
        self._out_since: dict[str, float] = {}
        runtime.on_stop = self._check_stop

    def connect(self, publisher: Publisher) -> None:
        """A control process connects."""
        self.publisher = publisher
        publisher.handle(Hello("supervisor", self.held.generation if self.held else Generation()))
        self._report_workers()
        for worker in self.workers:
            ack = worker.ack()
            if ack:
                publisher.handle(ack)

    def disconnect(self) -> None:
        self.publisher = None

    def _report_workers(self) -> None:
        if self.publisher:
            self.publisher.handle(Workers(tuple(worker.number for worker in self.workers)))

    def replace_worker(self) -> None:
        """A worker dies, and a new one takes its place."""
        self.workers.pop(self._random.randrange(len(self.workers)))
        self.workers.append(SimWorker(self._next, self.held))
        self._next += 1
        self._report_workers()

    async def run(self) -> None:
        """Take snapshots after a delay, begin and end requests, and ack, until cancelled."""
        while True:
            await asyncio.sleep(0.03)
            current = self.publisher.current if self.publisher else None
            if current is not None and (not self.held or current.generation > self.held.generation):
                self._check_snapshot(current)
                self.held = current
            for worker in self.workers:
                self._step(worker)

    def _step(self, worker: SimWorker) -> None:
        now = clock()
        behind = self.held is not worker.snapshot
        if behind and self._random.random() < 0.4:
            worker.snapshot = self.held
        for endpoint, state in worker.states().items():
            if state == "ready":
                self._out_since.pop(endpoint, None)
                if self._random.random() < 0.3:
                    self._request(worker, endpoint, now)
            else:
                self._out_since.setdefault(endpoint, now)
        for endpoint in list(worker.in_flight):
            rest = [end for end in worker.in_flight[endpoint] if end > now]
            worker.in_flight[endpoint] = rest
            if not rest:
                del worker.in_flight[endpoint]
        ack = worker.ack()
        if ack and self.publisher and (ack.generation, ack.busy) != worker.acked:
            worker.acked = (ack.generation, ack.busy)
            self.publisher.handle(ack)

    def _request(self, worker: SimWorker, endpoint: str, now: float) -> None:
        box = self._runtime.boxes.get(endpoint)
        if endpoint in self._runtime.stopped:
            self.problems.append(f"request to {endpoint}, which meshd stopped")
        if box is None or not box.running:
            return  # killed by others a moment ago; the proxy tries another one
        length = 20.0 if self._random.random() < 0.005 else self._random.expovariate(10.0)
        worker.in_flight.setdefault(endpoint, []).append(now + length)
        self.served += 1

    def _check_stop(self, name: str) -> None:
        """meshd is about to stop a replica: check that it is no longer in use."""
        now = clock()
        box = self._runtime.boxes[name]
        if box.hangs:
            return
        for worker in self.workers:
            if worker.states().get(name) == "ready":
                self.problems.append(f"{name} stopped while worker {worker.number} routes to it")
            since = self._out_since.get(name)
            waited = since is not None and now - since >= self._drain - LAG
            if worker.in_flight.get(name) and not waited:
                self.problems.append(f"{name} stopped with requests in flight")

    def _check_snapshot(self, snapshot: Snapshot) -> None:
        """Check that new endpoints can answer already."""
        known = self.workers[0].states()
        for service in snapshot.services:
            for endpoint in service.endpoints:
                box = self._runtime.boxes.get(endpoint.id)
                new = endpoint.state == "ready" and endpoint.id not in known
                if new and box and clock() < box.answers_at:
                    self.problems.append(f"{endpoint.id} is routed to before it can answer")
