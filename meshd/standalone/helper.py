"""The process beside a stand-alone proxy: probes, names, the file, `/metrics`.

The supervisor serves on without it, by the last snapshot. Level-triggered: whatever changed,
the snapshot is made anew from what is, and published when it differs.
"""

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import Collection
from importlib.metadata import version
from pathlib import Path

import structlog
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from meshd.api.dto import ServiceStatus, Status
from meshd.discovery.probe import Prober, ProbeTarget
from meshd.model.replica import ProbeResult
from meshd.publish.publisher import Publisher
from meshd.spec.errors import SpecError
from meshd.standalone import build
from meshd.standalone.settings import RawSettings, StandaloneSettings, read_settings
from meshd.telemetry.counters import EventCounters
from meshd.telemetry.ingest import Ingest
from meshd.telemetry.metrics import Metrics
from proxy.wire.report import Message, Report, Workers
from proxy.wire.snapshot import Endpoint, Generation

_log = structlog.stdlib.get_logger(__name__)
RESOLVE_INTERVAL = 10.0
FIRST_WORKER_TIMEOUT = 5.0
"""For so long, in seconds, the admin address lets a client wait for the first worker, so that no
health check fails because this process is younger than the workers."""
FIRST_EPOCH = 2
"""Above that of the snapshot which the supervisor was started with."""


def is_unhealthy(result: ProbeResult | None, failures: int) -> bool:
    """Whether probes keep an endpoint out of rotation. One that was not probed yet is in: the
    proxy was told to balance over it. The very first probe is believed at once."""
    if result is None:
        return False
    return result.bad >= failures or (result.bad > 0 and not result.first_good)


class Helper:
    """See the module. `run` ends when the supervisor is gone or SIGTERM comes."""

    def __init__(
        self,
        settings: StandaloneSettings,
        file: str,
        flags: RawSettings,
        feed: socket.socket,
        admin: socket.socket | None,
    ) -> None:
        self._settings = settings
        self._file = file
        self._flags = flags
        self._feed = feed
        self._admin = admin
        self._resolved: build.ResolvedAddresses = {}
        self._look = asyncio.Event()
        self._reread = False
        self._wake = asyncio.Event()
        self._some_worker = asyncio.Event()
        self._prober = Prober(self._wake.set)
        self._publisher = Publisher(Path(), FIRST_EPOCH, self._received)
        self._ingest = Ingest()
        self._metrics = Metrics(
            EventCounters(), self._ingest, self.status, lambda: self.status().services, time.time
        )

    async def run(self) -> None:
        """Do all of it."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, ended.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        self._ingest.keep([build.KEY])
        await self._look_once()
        parts = [ended.wait(), self._publisher.over(self._feed), self._publish()]
        parts.append(self._look_often())
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

    def _endpoints(self) -> tuple[Endpoint, ...]:
        return build.build_endpoints(self._settings, self._resolved)

    def _sick(self) -> Collection[str]:
        failures, results = self._settings.mesh.health.failures, self._prober.results
        return [
            each.id for each in self._endpoints() if is_unhealthy(results.get(each.id), failures)
        ]

    async def _publish(self) -> None:
        """Bring probes and snapshot to what holds, now and whenever something changed."""
        while True:
            self._wake.clear()
            self._prober.want(self._targets())
            self._publisher.publish(
                build.build_snapshot(self._settings, self._resolved, Generation(), self._sick())
            )
            await self._wake.wait()

    def _targets(self) -> dict[str, ProbeTarget]:
        if not self._settings.probes:
            return {}
        health = self._settings.mesh.health
        return {
            each.id: ProbeTarget(each.host, each.port, health, (each.id, 0.0), path=each.path)
            for each in self._endpoints()
        }

    def _reload(self) -> None:
        self._reread = True
        self._look.set()

    async def _look_often(self) -> None:
        """Resolve the names now and then, and at SIGHUP read the file again. What cannot be
        read or resolved changes nothing."""
        while True:
            self._look.clear()
            await self._look_once()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RESOLVE_INTERVAL):
                    await self._look.wait()

    async def _look_once(self) -> None:
        reread, self._reread = self._reread, False
        try:
            settings = read_settings(self._file, self._flags) if reread else self._settings
            resolved = await asyncio.to_thread(build.resolve_hosts, settings, build.resolve_host)
        except (SpecError, build.UnknownHost) as error:
            _log.error("the old settings and addresses stay", error=str(error))
            return
        if reread:
            _log.info("settings read again")
        if (settings, resolved) != (self._settings, self._resolved):
            self._settings, self._resolved = settings, resolved
            self._wake.set()

    def _received(self, message: Message) -> None:
        match message:
            case Report():
                self._ingest.add(message)
            case Workers(live=live):
                self._ingest.workers(live)
                if live:
                    self._some_worker.set()

    def status(self) -> Status:
        """What `/metrics` tells of endpoints and workers."""
        known = len(self._endpoints())
        ready = known - len(self._sick())
        service = ServiceStatus(
            project=build.PROJECT,
            name=build.SERVICE,
            desired=known,
            running=known,
            ready=ready,
            minimum=known,
            maximum=known,
            revision="",
            state="ok" if ready else "down",
        )
        generation = self._publisher.held
        return Status(
            version=version("meshd"),
            runtime="none",
            runtime_state="ok",
            generation=(generation.epoch, generation.number),
            workers=self._publisher.live,
            proxy=tuple(self._publisher.bound.values()),
            services=(service,),
        )

    async def _serve_admin(self, admin: socket.socket) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_WORKER_TIMEOUT):
                await self._some_worker.wait()
        app = web.Application()
        app.router.add_get("/metrics", self._get_metrics)
        app.router.add_get("/healthz", self._get_health)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.SockSite(runner, admin).start()
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    async def _get_metrics(self, request: web.Request) -> web.Response:
        del request
        headers = {"Content-Type": CONTENT_TYPE_LATEST}
        return web.Response(body=await self._metrics.exposition(), headers=headers)

    async def _get_health(self, request: web.Request) -> web.Response:
        """200 while some worker accepts and some endpoint may be asked, else 503."""
        del request
        status = self.status()
        well = bool(status.workers) and status.services[0].ready > 0
        told = {
            "status": "ok" if well else "unavailable",
            "workers": len(status.workers),
            "endpoints": status.services[0].desired,
            "ready": status.services[0].ready,
        }
        return web.json_response(told, status=200 if well else 503)
