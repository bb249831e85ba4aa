"""Records the past of all services: the shell around `history`.

`meshd.daemon.ticker` runs it every second. Each minute is stored, so that it survives a restart.
"""

from collections.abc import Callable, Mapping, Sequence

from meshd.model.desired import DesiredService
from meshd.model.history import HistoryPoint
from meshd.model.replica import Replica
from meshd.model.scaling import Load
from meshd.store.history import DAY, HistoryLog
from meshd.telemetry.history import COARSEST, History, ServiceSize
from meshd.telemetry.ingest import Ingest


class HistoryRecorder:
    """Adds each second of each service to `history`. `loads`: CPU and memory use by replica."""

    def __init__(
        self,
        history: History,
        log: HistoryLog,
        ingest: Ingest,
        loads: Callable[[], Mapping[str, Load]],
    ) -> None:
        self._history = history
        self._log = log
        self._ingest = ingest
        self._loads = loads

    def open(self, now: float) -> None:
        """Take what an earlier process stored."""
        for _, points in self._log.read(now):
            for service, point in points.items():
                self._history.restore(service, (point,))

    def step(
        self,
        services: Sequence[DesiredService],
        replicas: Mapping[str, Sequence[Replica]],
        now: float,
    ) -> None:
        """Add the last complete second. Raises StoreWriteError once a minute if the state cannot be
        written."""
        loads = self._loads()
        minute: dict[str, HistoryPoint] = {}
        for service in services:
            own = replicas.get(service.key, ())
            used = (loads[each.name].cores or 0.0 for each in own if each.name in loads)
            size = ServiceSize(sum(each.serves for each in own), service.desired, sum(used))
            merged = self._ingest.window(service.key, 1, now).merged
            ended = self._history.add(service.key, int(merged.start), merged, size)
            if ended is not None:
                minute[service.key] = ended
        if minute:
            self._history.forget_removed([service.key for service in services])
            self._log.keep(next(iter(minute.values())).at, minute, now - DAY - COARSEST)
