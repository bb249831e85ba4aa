"""What replicas used, per day and service, for a week: the basis of `meshd right-size`. Fed by
the daemon's ticker."""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from meshd.model.replica import Replica
from meshd.model.scaling import Load, ResourceUsage, merge_usage
from meshd.store.store import Store

DAY: Final = 86400
"""Seconds."""
DAYS: Final = 7
"""Days that are kept."""
PERIOD: Final = 60.0
"""Seconds between two writes; a killed process loses no more."""
IDLE_CORES: Final = 0.02
"""Cores below which a replica without requests counts as idle: timers and probes need less."""
OOMS_KNOWN: Final = 1000
"""Out-of-memory kills remembered, so that none is counted twice."""


class UsageLog:
    """Collects readings of usage; `flush` stores them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._days: dict[tuple[str, int], ResourceUsage] = {}
        self._changed: set[tuple[str, int]] = set()
        self._requests: dict[str, int] = {}
        self._killed: dict[str, None] = {}
        self._written = 0.0

    def open(self) -> None:
        """Read what is stored, after the store was opened."""
        rows = self._store.database.execute("SELECT project, service, day, body FROM sizing")
        for project, service, day, body in rows:
            self._days[f"{project}/{service}", day] = msgspec.json.decode(body, type=ResourceUsage)

    def take(
        self,
        replicas: Sequence[Replica],
        loads: Mapping[str, Load],
        requests: Mapping[str, int],
        seconds: float,
        now: float,
    ) -> None:
        """Add one reading of all replicas. `requests` by service only grow while this process
        lives. A replica has work if its service completed requests since the last reading, or if
        it used CPU."""
        for replica in replicas:
            load, key = loads.get(replica.name), replica.key
            if load is not None and replica.ready_since:
                count = requests.get(key, 0)
                served = count > self._requests.get(key, count)
                if served or (load.cores or 0.0) >= IDLE_CORES:
                    self._use(key, now).add_reading(load.cores, load.memory, seconds)
                else:
                    self._use(key, now).add_idle_reading(load.memory)
            if replica.oom_killed and replica.name not in self._killed:
                self._killed[replica.name] = None
                self._use(replica.key, now).ooms += 1
        while len(self._killed) > OOMS_KNOWN:
            del self._killed[next(iter(self._killed))]
        for key, count in requests.items():
            had = self._requests.get(key, count)
            if count > had and (key, int(now // DAY)) in self._days:
                self._use(key, now).requests += count - had
        self._requests = dict(requests)
        if now - self._written >= PERIOD:
            self.flush(now)

    def _use(self, key: str, now: float) -> ResourceUsage:
        place = (key, int(now // DAY))
        self._changed.add(place)
        return self._days.setdefault(place, ResourceUsage(since=now))

    def flush(self, now: float) -> None:
        """Store what changed; delete what is too old or belongs to a removed service."""
        self._written = now
        last = int(now // DAY) - DAYS
        gone = [
            (key, day)
            for key, day in self._days
            if day <= last or key.partition("/")[0] not in self._store.projects
        ]
        for place in gone:
            del self._days[place]
        rows = [
            (*key.split("/", 1), day, msgspec.json.encode(self._days[key, day]).decode())
            for key, day in self._changed
            if (key, day) in self._days
        ]
        self._changed.clear()
        if rows or gone:
            with self._store.transaction() as database:
                database.executemany("INSERT OR REPLACE INTO sizing VALUES (?, ?, ?, ?)", rows)
                database.executemany(
                    "DELETE FROM sizing WHERE project = ? AND service = ? AND day = ?",
                    [(*key.split("/", 1), day) for key, day in gone],
                )

    def of(self, key: str) -> ResourceUsage:
        """Return the last week of a service."""
        return merge_usage(use for (other, _), use in sorted(self._days.items()) if other == key)
