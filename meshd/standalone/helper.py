"""The helper process of a standalone proxy: probes, name resolution, file reloads and `/metrics`.

Started by the proxy's supervisor through `meshd.standalone.__main__`. If it ends, the supervisor
continues with the last snapshot. It is level-triggered: after any change it builds the whole
snapshot from the current state, and publishes it if it differs.
"""

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

import msgspec
import structlog
from aiohttp import web

from meshd.api.dto import ServiceStatus, Status
from meshd.certificates.files import describe_files
from meshd.certificates.values import ServedCertificates, WantedCertificate
from meshd.certificates.wanted import BadAcmeSettings
from meshd.discovery.probe import Prober, ProbeTarget
from meshd.model.certificate import CertificateStatus
from meshd.model.replica import ProbeResult
from meshd.model.service_key import split_key
from meshd.publish.publisher import Publisher
from meshd.spec.errors import SpecError
from meshd.standalone import automatic, build
from meshd.standalone.listeners import build_listeners
from meshd.standalone.memory import HelperMemory, read_memory, write_memory
from meshd.standalone.settings import RawSettings, StandaloneSettings, read_settings
from meshd.telemetry.counters import EventCounters
from meshd.telemetry.ingest import Ingest
from meshd.telemetry.metrics import Metrics
from proxy.ipc.signals import release_signals
from proxy.ipc.watchdog import send_signs_of_life, take_watchdog
from proxy.wire.report import Message, Report, Workers
from proxy.wire.snapshot import Endpoint, Generation

_log = structlog.stdlib.get_logger(__name__)
FIRST_WORKER_TIMEOUT: Final = 5.0
"""Seconds that a client of the admin address waits for the first worker, so that no health check
fails while the workers start."""
ADMIN_SHUTDOWN_TIMEOUT: Final = 1.0
"""Seconds for open admin requests at the end; below `build.HELPER_STOP_SECONDS`."""
NO_CERTIFICATES: Final = ServedCertificates()
FIRST_EPOCH: Final = 2
"""The epoch of this process's snapshots; the supervisor starts with a snapshot of epoch 1."""


def is_unhealthy(result: ProbeResult | None, failures: int) -> bool:
    """Whether an endpoint gets no requests because of its probes.

    An endpoint without a result gets requests, since the user has configured it. A failure of the
    very first probe counts at once.
    """
    if result is None:
        return False
    return result.bad >= failures or (result.bad > 0 and not result.first_good)


def _read_settings(file: str, flags: RawSettings, before: HelperMemory) -> StandaloneSettings:
    """Read the settings; those of the helper before if the file has an error by now.

    Raises SpecError.
    """
    try:
        return read_settings(file, flags)
    except SpecError as error:
        if not before.settings:
            raise
        _log.error("keeping the previous settings", error=str(error))
        return StandaloneSettings.model_validate_json(before.settings)


def _find_wanted(settings: StandaloneSettings) -> tuple[WantedCertificate, ...]:
    """Return the certificates to order; none if a file of the settings cannot be read by now."""
    try:
        return automatic.find_wanted(settings)
    except BadAcmeSettings as error:
        _log.error("no certificates are ordered", error=str(error))
        return ()


def _describe_service(
    key: str, endpoints: Sequence[Endpoint], unhealthy: Collection[str]
) -> ServiceStatus:
    project, name = split_key(key)
    known = len(endpoints)
    ready = sum(each.id not in unhealthy for each in endpoints)
    return ServiceStatus(
        project=project,
        name=name,
        desired=known,
        running=known,
        ready=ready,
        minimum=known,
        maximum=known,
        revision="",
        state="ok" if ready else "down",
    )


class Helper:
    """The helper process of `meshd proxy`. `run` returns when the supervisor ends or on SIGTERM;
    SIGHUP reloads the settings. It continues with what the helper before it left in the file
    `memory`."""

    def __init__(
        self,
        file: str,
        flags: RawSettings,
        feed: socket.socket,
        admin: socket.socket | None,
        memory: int = -1,
        resolve_host: build.HostResolver = build.resolve_host,
    ) -> None:
        self._resolve_host = resolve_host
        self._file = file
        self._flags = flags
        self._feed = feed
        self._admin = admin
        self._memory = memory
        before = read_memory(memory)
        self._settings = _read_settings(file, flags, before)
        self._resolved: build.ResolvedAddresses = before.resolved
        self._unhealthy_before = frozenset(before.unhealthy)
        self._problems: Mapping[str, str] = {}
        self._refresh_requested = asyncio.Event()
        self._reload_requested = False
        self._wake = asyncio.Event()
        self._has_worker = asyncio.Event()
        self._prober = Prober(self._wake.set)
        self._publisher = Publisher(Path(), FIRST_EPOCH, self._on_message)
        self._wanted = _find_wanted(self._settings)
        self._certificates = automatic.make_manager(
            self._settings, lambda: self._wanted, self._publisher.is_answered, self._wake.set
        )
        self._ingest = Ingest()
        self._metrics = Metrics(
            EventCounters(),
            self._ingest,
            self.get_status,
            lambda: self.get_status().services,
            time.time,
            self._certificate_status,
        )

    async def run(self) -> None:
        """Run until the supervisor ends or SIGTERM arrives."""
        loop = asyncio.get_running_loop()
        terminated = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, terminated.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        release_signals()
        await self._refresh()
        parts = [terminated.wait(), self._publisher.run_over(self._feed), self._publish()]
        parts.append(self._refresh_periodically())
        parts.append(send_signs_of_life(take_watchdog()))
        if self._certificates is not None:
            parts.append(self._certificates.run())
        if self._admin is not None:
            parts.append(self._serve_admin(self._admin))
        tasks = [asyncio.ensure_future(part) for part in parts]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            await self._prober.close()
        for result in results:
            if isinstance(result, Exception):
                raise result

    def _list_endpoints(self) -> tuple[Endpoint, ...]:
        return build.build_endpoints(self._settings, self._resolved)

    def _list_unhealthy(self) -> Collection[str]:
        failures, results = self._settings.mesh.health.failures, self._prober.results
        return [
            each.id
            for each in self._list_endpoints()
            if is_unhealthy(results.get(each.id), failures)
            or (each.id not in results and each.id in self._unhealthy_before)
        ]

    async def _publish(self) -> None:
        """Update the probe targets and publish the snapshot, now and after every change."""
        while True:
            self._wake.clear()
            self._ingest.set_services(build.list_services(self._settings, self._resolved))
            self._prober.set_targets(self._probe_targets())
            self._remember()
            self._publisher.publish(
                build.build_snapshot(
                    self._settings,
                    self._resolved,
                    Generation(),
                    self._list_unhealthy(),
                    self._certificates.served if self._certificates else NO_CERTIFICATES,
                )
            )
            await self._wake.wait()

    def _remember(self) -> None:
        """Keep what the next helper process continues with."""
        # Which settings are given matters: without parking, for example, nothing waits.
        settings = self._settings.model_dump_json(exclude_unset=True)
        unhealthy = tuple(self._list_unhealthy())
        write_memory(self._memory, HelperMemory(dict(self._resolved), unhealthy, settings))

    def _probe_targets(self) -> dict[str, ProbeTarget]:
        if not self._settings.probes:
            return {}
        health = self._settings.mesh.probe
        return {
            each.id: ProbeTarget(
                each.host,
                each.port,
                health,
                (each.id, 0.0),
                path=each.path,
                alternatives=each.alternatives,
                opening=build.build_probe_opening(self._settings, each),
            )
            for each in self._list_endpoints()
        }

    def _reload(self) -> None:
        self._reload_requested = True
        self._refresh_requested.set()

    async def _refresh_periodically(self) -> None:
        """Resolve the names periodically, and on a reload also read the file."""
        while True:
            self._refresh_requested.clear()
            await self._refresh()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(build.RESOLVE_INTERVAL):
                    await self._refresh_requested.wait()

    async def _refresh(self) -> None:
        """Resolve the names, after reading the file if a reload was requested.

        A file with an error changes nothing. A name that does not resolve keeps its addresses.
        """
        reload, self._reload_requested = self._reload_requested, False
        settings = self._settings
        if reload:
            try:
                settings = read_settings(self._file, self._flags)
                self._wanted = automatic.find_wanted(settings)
                if self._certificates is not None:
                    self._certificates.retry()
                _log.info("settings reloaded")
            except (SpecError, BadAcmeSettings, OSError) as error:
                _log.error("keeping the previous settings", error=str(error))
        resolved, problems = await build.resolve_hosts(settings, self._resolve_host, self._resolved)
        for host, problem in problems.items():
            if self._problems.get(host) != problem:
                kept = ", ".join(resolved[host]) or "none"
                _log.error("host does not resolve", error=problem, addresses=kept)
        for host in self._problems.keys() - problems.keys():
            _log.info("host resolves again", host=host)
        self._problems = problems
        if (settings, resolved) != (self._settings, self._resolved):
            self._settings, self._resolved = settings, resolved
            self._wake.set()

    def _on_message(self, message: Message) -> None:
        match message:
            case Report():
                self._ingest.add(message)
            case Workers(live=live):
                self._ingest.set_workers(live)
                if live:
                    self._has_worker.set()

    def get_status(self) -> Status:
        """Return the state of endpoints and workers for `/metrics` and `/healthz`."""
        unhealthy = self._list_unhealthy()
        services = tuple(
            _describe_service(key, endpoints, unhealthy if key == build.KEY else ())
            for key, endpoints in build.list_services(self._settings, self._resolved).items()
        )
        generation = self._publisher.held
        return Status(
            version=version("meshd"),
            runtime="none",
            runtime_state="ok",
            generation=(generation.epoch, generation.number),
            workers=self._publisher.live,
            proxy=tuple(self._publisher.bound.values()),
            services=services,
        )

    async def _serve_admin(self, admin: socket.socket) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_WORKER_TIMEOUT):
                await self._has_worker.wait()
        app = web.Application()
        app.router.add_get("/metrics", self._get_metrics)
        app.router.add_get("/healthz", self._get_health)
        app.router.add_get("/certificates", self._get_certificates)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=ADMIN_SHUTDOWN_TIMEOUT)
        await runner.setup()
        try:
            await web.SockSite(runner, admin).start()
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    async def _get_metrics(self, request: web.Request) -> web.Response:
        accept = ",".join(request.headers.getall("Accept", []))
        found = await self._metrics.exposition(accept)
        headers = {"Content-Type": found.content_type, "Vary": "Accept"}
        return web.Response(body=found.body, headers=headers)

    def _certificate_status(self) -> Sequence[CertificateStatus]:
        listeners = build_listeners(self._settings, self._settings.listen)
        ordered = self._certificates.status() if self._certificates else ()
        return [*describe_files(listeners, time.time()), *ordered]

    async def _get_certificates(self, request: web.Request) -> web.Response:
        """Respond with the `CertificateStatus` of each certificate; `meshd certificates` reads
        it."""
        del request
        body = msgspec.json.encode(list(self._certificate_status()))
        return web.Response(body=body, content_type="application/json")

    async def _get_health(self, request: web.Request) -> web.Response:
        """Respond 200 if a worker accepts connections and an endpoint of each service gets
        requests, else 503."""
        del request
        status = self.get_status()
        healthy = bool(status.workers) and all(each.ready > 0 for each in status.services)
        body = {
            "status": "ok" if healthy else "unavailable",
            "workers": len(status.workers),
            "endpoints": sum(each.desired for each in status.services),
            "ready": sum(each.ready for each in status.services),
        }
        return web.json_response(body, status=200 if healthy else 503)
