"""What the supervisor tells the control process, handed on to who needs it."""

import time
from collections.abc import Callable

import structlog

from meshd.model.event import Kind
from meshd.store.events import EventLog
from meshd.telemetry.ingest import Ingest
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

_log = structlog.stdlib.get_logger(__name__)


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
