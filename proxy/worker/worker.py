"""One worker process: the request path, an event loop, and the channel to the supervisor.

Started by `proxy.supervisor.worker_pool` as `python -m proxy.worker CONFIG`. It imports only what
serving needs, so that a replacement serves within a fraction of a second.
"""

import asyncio
import gc
import os
import resource
import signal
import socket
import sys
import time
import traceback
from typing import TYPE_CHECKING, cast

import msgspec
import uvloop

from proxy import http2
from proxy.ipc.channel import Channel
from proxy.ipc.config import LogConfig, SpanConfig, WorkerConfig
from proxy.ipc.shared_memory import SharedCells, WorkerRow
from proxy.ipc.signals import hold_late_signals, release_signals
from proxy.observe.access_log import AccessLog
from proxy.observe.flight_ring import FlightRing, find_threshold
from proxy.observe.spans import SpanQueue
from proxy.peer.routes import PeerRoutes
from proxy.request.data_plane import CreateClient, CreateStreamPool, DataPlane
from proxy.request.tunnel import CLOSING
from proxy.state.descriptors import Descriptors
from proxy.tcp.poller import Poller
from proxy.tcp.sessions import TcpSessions
from proxy.wire.report import (
    Accepting,
    Ack,
    Drain,
    Ejected,
    ListenOn,
    Message,
    Publish,
    PublishDelta,
    ReopenLog,
    Resync,
    SnapshotRefused,
    StopListening,
    TicketSecrets,
    Wake,
    read_publication,
)
from proxy.wire.snapshot import Generation, MissingService, Snapshot
from proxy.worker.acceptor import Acceptor
from proxy.worker.allocator import keep_freed_memory
from proxy.worker.attachments import Attachments
from proxy.worker.flight_files import FlightFiles
from proxy.worker.handover import Handover
from proxy.worker.log_writer import LogWriter
from proxy.worker.newcomers import Newcomers
from proxy.worker.taps import Taps
from proxy.worker.tls_listeners import TlsListeners

if TYPE_CHECKING:
    from proxy.worker.span_exporter import SpanExporter

_MAX_UNREAD = 4 * 1024 * 1024
"""Bytes not yet read by the supervisor above which reports are delayed; the counts of a delayed
report are part of the next one."""
_DRAIN_POLL_SECONDS = 0.05
"""Interval at which a draining worker looks for requests in flight."""
_REPORT_DELAY = 0.002
"""Seconds after the start of a second at which a report is sent; timers may fire 1 ms early."""
_FLUSH_SECONDS = 1.0
"""Time for the last report and ack to be read before the process ends."""
_FLUSH_POLL_SECONDS = 0.01
"""Interval at which it looks whether they have been read."""
_GC_THRESHOLDS = (50_000, 20, 100)
"""Thresholds of the garbage collector: it runs rarely, since the request path makes few cycles."""


class Worker:
    """Connects the data plane to the supervisor. `run` returns once the worker has drained."""

    def __init__(self, config: WorkerConfig, loop: asyncio.AbstractEventLoop) -> None:
        self._config = config
        self._loop = loop
        access_log, self._log_writer = _open_log(config.access_log)
        spans, self._span_exporter = _make_span_exporter(config.spans)
        flights = FlightRing() if config.records else None
        self._plane = DataPlane(
            config.worker,
            loop,
            workers=config.of,
            row=_attach_row(config),
            descriptors=Descriptors(resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
            peers=PeerRoutes(config.peer),
            access_log=access_log,
            spans=spans,
            flights=flights,
            create_http2_client=_http2_clients(config.worker),
            create_stream_pool=_http2_pools(),
            on_busy_changed=self._send_ack,
            on_wake=self._send_wake,
            on_ejected=self._send_ejected,
            on_problem=self._print_problem,
        )
        self._taps = (
            Taps(config.taps, access_log, self._plane.use_access_log) if config.taps else None
        )
        self._flight_files = None
        if flights is not None:
            query = config.access_log.query
            self._flight_files = FlightFiles(
                config.records, config.worker, flights, query, self._algorithms
            )
        self._poller = Poller(loop)
        self._tcp = TcpSessions(loop, self._poller)
        self._newcomers = Newcomers(loop)
        self._tls = TlsListeners(self._plane)
        self._attachments = Attachments(loop)
        handover = Handover(
            self._plane, self._attachments, self._tcp.start, self._newcomers, self._tls
        )
        self._acceptor = Acceptor(loop, self._poller, handover, self._attachments, self._plane)
        self._snapshot: Snapshot | None = None
        self._commands: asyncio.Queue[tuple[Message, int]] = asyncio.Queue()
        self._channel = Channel(
            socket.socket(fileno=config.channel), self._received, self._supervisor_gone
        )
        self._draining = asyncio.Event()
        self._reported_at = 0.0

    async def run(self) -> None:
        """Serve until drained."""
        if self._span_exporter is not None:
            self._span_exporter.start()
        self._loop.add_signal_handler(signal.SIGTERM, self._draining.set)
        release_signals()
        self._channel.start()
        self._reported_at = time.time()
        self._report_next_second()
        listening = asyncio.create_task(self._listen())
        logging = asyncio.create_task(self._log_writer.run()) if self._log_writer else None
        await self._draining.wait()
        listening.cancel()
        await self._acceptor.drain()
        self._newcomers.release()
        await self._attachments.settle()
        self._plane.start_drain(self._config.drain)
        while self._plane.active():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(_DRAIN_POLL_SECONDS)
        self._report()
        self._plane.close()
        self._tcp.close()
        self._poller.close()
        if self._log_writer is not None and logging is not None:
            self._log_writer.close()
            await logging
        if self._span_exporter is not None:
            await asyncio.to_thread(self._span_exporter.stop)
        await self._flush()
        self._channel.close()

    def _received(self, message: Message, descriptor: int) -> None:
        match message:
            case Publish() | PublishDelta():
                self._install(message)
            case Drain(tunnels):
                if not tunnels:
                    self._plane.limit_tunnels(max(0.0, self._config.drain - CLOSING))
                self._draining.set()
            case TicketSecrets(secrets):
                self._tls.use_ticket_secrets(secrets)
            case ReopenLog():
                if self._log_writer is not None:
                    self._log_writer.reopen()
            case ListenOn() | StopListening():
                self._commands.put_nowait((message, descriptor))

    def _install(self, message: Publish | PublishDelta) -> None:
        """Install a snapshot, unless it is older than the current one."""
        if self._snapshot and message.generation < self._snapshot.generation:
            return
        try:
            snapshot = read_publication(self._snapshot, message)
        except MissingService:
            self._channel.send(Resync(self._config.worker))
            return
        try:
            self._plane.install(snapshot)
        except Exception as error:  # noqa: BLE001 (no error may stop the traffic)
            self._refuse(snapshot.generation, error)
            return
        self._tls.install(snapshot)
        self._snapshot = snapshot
        self._newcomers.snapshot_installed()
        self._send_ack()

    def _refuse(self, generation: Generation, error: Exception) -> None:
        """Install the snapshot before again, and report that this one could not be installed."""
        traceback.print_exception(error)
        self._plane.install(self._snapshot or Snapshot(Generation()))
        reason = f"{type(error).__name__}: {error}"
        self._channel.send(SnapshotRefused(self._config.worker, generation, reason))

    async def _listen(self) -> None:
        """Execute the listening commands in order; report the addresses when all are done."""
        while True:
            message, descriptor = await self._commands.get()
            match message:
                case ListenOn(listener):
                    await self._acceptor.open(listener, descriptor)
                case StopListening(address):
                    self._acceptor.close(address)
            if self._commands.empty():
                self._channel.send(Accepting(self._config.worker, self._acceptor.addresses))

    def _send_ack(self) -> None:
        generation = self._snapshot.generation if self._snapshot else Generation()
        self._channel.send(Ack(self._config.worker, generation, self._plane.busy()))

    def _send_wake(self, service: str, parked: int) -> None:
        self._channel.send(Wake(self._config.worker, service, parked))

    def _send_ejected(self, service: str, endpoint: str, until: float, cause: str) -> None:
        self._channel.send(Ejected(self._config.worker, service, endpoint, until, cause))

    def _print_problem(self, text: str) -> None:
        print(f"worker {self._config.worker}: {text}", file=sys.stderr)

    def _report_next_second(self) -> None:
        """Schedule the report shortly after the end of the second.

        Timers may fire a little early, so a second that is about to begin counts as begun.
        """
        now = time.time()
        self._loop.call_later(int(now + 0.5) + 1 - now + _REPORT_DELAY, self._tick)

    def _tick(self) -> None:
        if self._channel.pending < _MAX_UNREAD:
            self._report()
        if self._taps is not None:
            self._taps.refresh()
        if self._flight_files is not None:
            self._flight_files.refresh()
        self._report_next_second()

    def _report(self) -> None:
        end = time.time()
        report = self._plane.report(self._reported_at, end, busy_only=True)
        self._channel.send(report)
        if self._flight_files is not None:
            latencies = (service.total for service in report.services)
            self._plane.set_record_after(find_threshold(latencies, end - self._reported_at))
        self._reported_at = end

    def _algorithms(self) -> dict[str, str]:
        """The balancing algorithm of each service, for the flight recorder."""
        services = self._snapshot.services if self._snapshot else ()
        return {service.name: service.balance.algorithm for service in services}

    async def _flush(self) -> None:
        """Wait until the last report and ack have been read, for a limited time."""
        deadline = self._loop.time() + _FLUSH_SECONDS
        while self._channel.pending and self._loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(_FLUSH_POLL_SECONDS)

    def _supervisor_gone(self) -> None:
        """Exit at once.

        No process can control this worker any more, and the next supervisor needs the addresses
        that it holds open.
        """
        self._plane.close()
        os._exit(1)


def _attach_row(config: WorkerConfig) -> WorkerRow | None:
    """Return this worker's row of the shared memory; None if nothing is shared."""
    if config.row < 0:
        return None
    return SharedCells(config.cells, config.rows).row(config.row)


def _open_log(config: LogConfig) -> tuple[AccessLog | None, LogWriter | None]:
    """Return the access log and its writer; None if there is none. If the file cannot be opened,
    nothing is written until it can be."""
    if config.mode == "off":
        return None, None
    batch_ready = asyncio.Event()
    sample = config.sample if config.mode == "sampled" else 1.0
    log = AccessLog(config.format, sample, query=config.query, on_batch=batch_ready.set)
    writer = LogWriter(log, config.path, batch_ready)
    writer.open()
    return log, writer


def _http2_clients(worker: int) -> CreateClient | None:
    """Return what creates HTTP/2 connections of clients; None if HTTP/2 is not available."""
    if not http2.is_available():
        if worker == 0:
            print("no HTTP/2, clients use HTTP/1.1: the package ngh2 is missing", file=sys.stderr)
        return None
    from proxy.http2_downstream.connection import Http2Connection

    return lambda plane, listener, tls: cast(
        "asyncio.Protocol", Http2Connection(plane, listener, tls)
    )


def _http2_pools() -> CreateStreamPool | None:
    """Return what creates HTTP/2 connections to endpoints; None if HTTP/2 is not available."""
    if not http2.is_available():
        return None
    from proxy.http2_upstream.pool import create_pool

    return create_pool


def _make_span_exporter(config: SpanConfig) -> "tuple[SpanQueue | None, SpanExporter | None]":
    """Return the queue of spans and its exporter; None if spans are not exported or OpenTelemetry
    is not installed."""
    if not config.endpoint:
        return None, None
    try:
        from proxy.worker.span_exporter import SpanExporter
    except ImportError as error:
        print(f"no spans: {error}; pip install 'meshd[otlp]'", file=sys.stderr)
        return None, None
    spans = SpanQueue(config.sample, query=config.query)
    return spans, SpanExporter(spans, config)


def prepare_process() -> None:
    """Exclude the objects made at start-up from garbage collection, and make it rare. Keep the
    memory of bodies."""
    keep_freed_memory()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


def main() -> None:
    """Run a worker; the configuration is the first argument, as JSON."""
    config = msgspec.json.decode(sys.argv[1], type=WorkerConfig)

    async def serve() -> None:
        worker = Worker(config, asyncio.get_running_loop())
        prepare_process()
        await worker.run()

    uvloop.run(hold_late_signals(serve()))
