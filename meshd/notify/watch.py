"""Watches for problems that no other part reports, and records an event for each change.

`meshd.daemon.wiring` runs it. `burn` and `conditions` decide; this reads counts, replicas, nodes
and disks.
"""

import asyncio
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Final

from meshd.model.desired import DesiredService
from meshd.model.replica import Replica
from meshd.model.replica_phase import Phase
from meshd.model.runtime import Node
from meshd.notify import conditions
from meshd.notify.burn import STEP, BurnWindow
from meshd.notify.conditions import Change, Condition, ConditionTracker, Disk
from meshd.store.events import EventLog
from meshd.telemetry.totals import ObjectiveCounts

INTERVAL: Final = 5.0
"""Seconds between two looks: as often as the runtime is asked for its nodes."""
DISK_STEP: Final = 60.0
"""Seconds between two looks at the disks, which fill slowly."""
DISK_TIMEOUT: Final = 10.0
"""Seconds that the disks may take to answer; a network file system can hang."""


class ProblemWatch:
    """Looks every few seconds while `run` runs.

    - `services`, `replicas`: the desired services, and the replicas of each by key.
    - `objective`: the counts of a service for its objective.
    - `nodes`: as the runtime reports them.
    - `paths`: directories whose disks are watched, besides those that services mount.
    """

    def __init__(
        self,
        events: EventLog,
        services: Callable[[], Sequence[DesiredService]],
        replicas: Callable[[], Mapping[str, Sequence[Replica]]],
        objective: Callable[[str], ObjectiveCounts],
        nodes: Callable[[], Sequence[Node]],
        paths: Sequence[Path],
        clock: Callable[[], float],
    ) -> None:
        self._events = events
        self._services = services
        self._replicas = replicas
        self._objective = objective
        self._nodes = nodes
        self._paths = paths
        self._clock = clock
        self._tracker = ConditionTracker()
        self._windows: dict[str, BurnWindow] = {}
        self._known: frozenset[str] = frozenset()
        self._disks: Sequence[Disk] = ()
        self._disks_at = self._sampled_at = -inf
        self._reading: asyncio.Task[Sequence[Disk]] | None = None

    async def run(self) -> None:
        """Look every few seconds until cancelled."""
        while True:
            now = self._clock()
            if now - self._disks_at >= DISK_STEP:
                self._disks_at = now
                await self._read_disks()
            self.step(now)
            await asyncio.sleep(INTERVAL)

    def step(self, now: float) -> None:
        """Record what has begun and ended since the last call."""
        services = self._services()
        if now - self._sampled_at >= STEP:
            self._sampled_at = now
            self._sample([service.key for service in services])
        found = [*self._find_conditions(services), *conditions.lost_nodes(self._nodes())]
        found += conditions.filling_disks(self._disks, self._tracker)
        keys = frozenset(service.key for service in services)
        for change in self._tracker.step(found, now, self._known - keys):
            self._record(change, now)
        self._known = keys

    def _sample(self, keys: Sequence[str]) -> None:
        windows = {key: self._windows.get(key) or BurnWindow() for key in keys}
        for key, window in windows.items():
            counts = self._objective(key)
            window.add(counts.requests, counts.misses)
        self._windows = windows

    def _find_conditions(self, services: Sequence[DesiredService]) -> Iterable[Condition]:
        replicas = self._replicas()
        for service in services:
            project, name = service.project, service.spec.name
            own = replicas.get(service.key, ())
            # Replicas that have done their work are not missed.
            if service.desired > 0 and not any(r.serves or r.phase is Phase.COMPLETED for r in own):
                yield conditions.unavailable(project, name, service.desired)
            window = self._windows.get(service.key)
            if window is None:
                continue
            counts = self._objective(service.key)
            burn = window.find_burn(1.0 - counts.share / 100.0)
            if burn is not None:
                latency = counts.latency if counts.latency < inf else None
                yield conditions.burning(project, name, burn, latency)

    def _record(self, change: Change, now: float) -> None:
        about = change.condition
        self._events.record(
            now,
            change.kind,
            change.text,
            project=about.project,
            service=about.service,
            replica="" if about.service else about.subject,
            numbers=about.numbers,
        )

    async def _read_disks(self) -> None:
        """Read the disks in a thread; while one does not answer, keep what was known."""
        if self._reading is None or self._reading.done():
            paths = [*self._paths, *_mounted(self._services())]
            self._reading = asyncio.create_task(asyncio.to_thread(read_disks, paths))
        done, _ = await asyncio.wait((self._reading,), timeout=DISK_TIMEOUT)
        if done:
            self._disks = self._reading.result()


def read_disks(paths: Iterable[Path]) -> Sequence[Disk]:
    """Return the disks of the paths that exist, each once, under its first path."""
    found: dict[int, Disk] = {}
    for path in paths:
        try:
            device = os.stat(path).st_dev
            if device not in found:
                usage = shutil.disk_usage(path)
                # Space that is kept for root is not free for others.
                found[device] = Disk(str(path), usage.used + usage.free, usage.used)
        except OSError:
            continue
    return list(found.values())


def _mounted(services: Iterable[DesiredService]) -> list[Path]:
    """Return the host directories that services write to."""
    return sorted(
        {
            Path(mount.source)
            for service in services
            for mount in service.spec.volumes
            if mount.type == "bind" and not mount.read_only and mount.source.startswith("/")
        }
    )
