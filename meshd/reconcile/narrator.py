"""Tells the event log what a pass has seen; what to say of a replica is `narrate`'s to know."""

from collections.abc import Callable, Container

from meshd.reconcile.memory import Memory, Replica
from meshd.reconcile.narrate import Happening, happenings, looping, turned, vanished
from meshd.reconcile.phase import Phase
from meshd.reconcile.remains import Evidence, Remains
from meshd.store.events import EventLog
from meshd.telemetry.events import Kind


class Narrator:
    """Each thing once, when it begins. `on_ready` is told how many seconds a replica of a service
    took to be ready."""

    def __init__(self, events: EventLog, remains: Remains) -> None:
        self.on_ready: Callable[[str, float], None] = _ignore
        self._events = events
        self._remains = remains
        self._available = True
        self._problems: frozenset[str] = frozenset()
        self._refused: frozenset[str] = frozenset()

    def runtime(self, name: str, problem: str | None, now: float) -> None:
        """Whether the runtime answers; `problem` is why it does not."""
        available = problem is None
        if available == self._available:
            return
        self._available = available
        kind = Kind.RUNTIME_BACK if available else Kind.RUNTIME_LOST
        text = f"does not answer; everything is held as it is ({problem})"
        self._events.record(now, kind, f"{name} {'answers again' if available else text}")

    def problems(self, adopting: frozenset[str], refused: frozenset[str], now: float) -> None:
        """What cannot be adopted, and the projects that are left alone."""
        for text in sorted(adopting - self._problems):
            self._events.record(now, Kind.ADOPT_FAILED, text)
        for text in sorted(refused - self._refused):
            self._events.record(now, Kind.CLAIM_REFUSED, f"left alone: {text}")
        self._problems, self._refused = adopting, refused

    def replicas(
        self,
        before: Memory,
        after: Memory,
        seen: tuple[Replica, ...],
        runs: Container[str],
        now: float,
    ) -> None:
        """What became of the replicas from one memory to the next; `runs` names all that run."""
        for happening in happenings(before.records, seen, now):
            replica = happening.replica
            if happening.seconds is not None:
                self.on_ready(replica.key, happening.seconds)
            self.tell(happening, now)
            if replica.phase is Phase.DRAINING and replica.blamed:
                version = (replica.key, replica.revision)
                self._remains.keep(version, Evidence(replica.name, happening.text))
        for (key, _), text in looping(before, after):
            project, _, service = key.partition("/")
            self._events.record(
                now, Kind.REPLICA_CRASH_LOOP, text, project=project, service=service
            )
        for each in (*turned(before, seen), *vanished(before, runs)):
            self.tell(each, now)

    def tell(self, happening: Happening, now: float) -> None:
        """An event about one replica."""
        replica = happening.replica
        self._events.record(
            now,
            happening.kind,
            happening.text,
            project=replica.project,
            service=replica.service,
            replica=replica.name,
        )


def _ignore(service: str, seconds: float) -> None:
    """Nobody asked how long replicas take to start."""
