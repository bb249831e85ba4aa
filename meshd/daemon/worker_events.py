"""Handles the supervisor's messages about workers: reports, acks, ejections, failed listeners.

The publisher passes every message on to it. It records events, adds up the requests in flight, and
wakes the reconciler.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import msgspec
import structlog

from meshd.model.event import Kind
from meshd.model.node_proxy import is_local_worker
from meshd.model.service_key import base_key, split_key
from meshd.store.events import EventLog
from meshd.telemetry.fold import fold_ports
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

SHORTAGE_OVER: Final = 60.0
"""Seconds without a shortage of descriptors after which the next one is another event."""
_log = structlog.stdlib.get_logger(__name__)


class WorkerEvents:
    """The state of the workers as far as messages tell it. Arguments:

    - `readers`: called with each report, after `ingest` has it.
    - `on_parked`: called when requests wait for a service without replicas.
    - `wake`: called after each other message.
    - `worker_name`: returns how texts name a worker.
    """

    def __init__(
        self,
        ingest: Ingest,
        events: EventLog,
        readers: Sequence[Callable[[Report], None]],
        on_parked: Callable[[Wake], None],
        wake: Callable[[], None],
        clock: Callable[[], float],
        worker_name: Callable[[int], str] = "worker {}".format,
    ) -> None:
        self._worker_name = worker_name
        self._ingest = ingest
        self._events = events
        self._readers = readers
        self._on_parked = on_parked
        self._wake = wake
        self._clock = clock
        self._in_flight: dict[str, int] = {}
        self._in_flight_by_worker: dict[int, dict[str, int]] = {}
        self._live: frozenset[int] = frozenset()
        self._listen_errors: dict[str, str] = {}
        self._refused: dict[int, SnapshotRefused] = {}
        self._short_until: dict[int, float] = {}

    @property
    def in_flight(self) -> Mapping[str, int]:
        """Requests in flight by replica, over all workers; a live view."""
        return MappingProxyType(self._in_flight)

    def take(self, message: Message) -> None:
        """Handle one message."""
        match message:
            case Report():
                self._take_report(fold_ports(message))
                return
            case Workers(live=live):
                self._set_workers(frozenset(live))
            case Ejected():
                self._record_ejection(message)
            case Wake():
                service = base_key(message.service)
                self._on_parked(msgspec.structs.replace(message, service=service))
            case ListenFailed():
                self._record_listen_error(message)
            case Listening(bound=bound):
                errors = self._listen_errors.items()
                self._listen_errors = {a: error for a, error in errors if a not in bound}
            case SnapshotRefused():
                self._record_refusal(message)
            case Ack(worker=worker, generation=generation):
                refused = self._refused.get(worker)
                if refused is not None and generation > refused.generation:
                    del self._refused[worker]
            case _:
                pass
        self._wake()

    def _record_ejection(self, ejected: Ejected) -> None:
        project, service = split_key(base_key(ejected.service))
        self._events.record(
            self._clock(),
            Kind.ENDPOINT_EJECTED,
            f"was ejected by {self._worker_name(ejected.worker)}: {ejected.cause}",
            project=project,
            service=service,
            replica=ejected.endpoint,
        )

    def _record_listen_error(self, failed: ListenFailed) -> None:
        """Record a new listen error. The supervisor repeats an old one with each snapshot."""
        if self._listen_errors.get(failed.address) != failed.error:
            self._listen_errors[failed.address] = failed.error
            text = f"the proxy cannot listen on {failed.address}: {failed.error}"
            self._events.record(self._clock(), Kind.LISTEN_FAILED, text)

    def _record_refusal(self, refused: SnapshotRefused) -> None:
        before = self._refused.get(refused.worker)
        self._refused[refused.worker] = refused
        if before is None or before.reason != refused.reason:
            at = refused.generation
            text = (
                f"{self._worker_name(refused.worker)} rejected snapshot {at.epoch}.{at.number} and "
                f"still uses the previous one: {refused.reason}"
            )
            self._events.record(self._clock(), Kind.SNAPSHOT_REFUSED, text)

    def _take_report(self, report: Report) -> None:
        self._ingest.add(report)
        for read in self._readers:
            read(report)
        if report.descriptor_shortages or report.accept_pauses:
            self._record_shortage(report)
        self._in_flight_by_worker[report.worker] = {
            endpoint.id: endpoint.in_flight
            for service in report.services
            for endpoint in service.endpoints
            if endpoint.in_flight
        }
        self._sum_in_flight()

    def _record_shortage(self, report: Report) -> None:
        """Record that a worker has too few descriptors, once until it had enough for a while."""
        now = self._clock()
        known = now < self._short_until.get(report.worker, 0.0)
        self._short_until[report.worker] = now + SHORTAGE_OVER
        if not known:
            text = (
                f"{self._worker_name(report.worker)} has too few file descriptors (the limit of "
                f"open files is {report.descriptor_limit}): new clients and requests wait; raise "
                "the limit"
            )
            self._events.record(now, Kind.WORKER_SHORT, text)

    def _set_workers(self, live: frozenset[int]) -> None:
        self._ingest.set_workers(live)
        gone, new = self._live - live, live - self._live
        ended = frozenset(filter(is_local_worker, gone))
        if ended:
            # A node whose connection ended has an own event, and its workers continue.
            rest = frozenset(filter(is_local_worker, live))
            text = f"worker {_numbers(ended)} ended; live: {_numbers(rest)}"
            self._events.record(self._clock(), Kind.WORKER_REPLACED, text)
        elif new and self._live:
            _log.info("workers changed", live=sorted(live))
        self._live = live
        for worker in gone:
            self._in_flight_by_worker.pop(worker, None)
            self._refused.pop(worker, None)
            self._short_until.pop(worker, None)
        self._sum_in_flight()

    def _sum_in_flight(self) -> None:
        self._in_flight.clear()
        for endpoints in self._in_flight_by_worker.values():
            for name, count in endpoints.items():
                self._in_flight[name] = self._in_flight.get(name, 0) + count


def _numbers(workers: frozenset[int]) -> str:
    return ", ".join(map(str, sorted(workers))) or "none"
