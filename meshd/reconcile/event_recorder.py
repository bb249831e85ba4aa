"""Tells the event log what a pass has seen; what to say of a replica is `narrate`'s to know."""

from collections.abc import Callable, Container, Iterator, Mapping

import msgspec

from meshd.model.event import Kind
from meshd.model.replica import Replica, Version
from meshd.model.replica_phase import ALIVE, Phase
from meshd.reconcile.execute.failure_log import FailureLog, FailureRecord
from meshd.reconcile.observe.memory import ReconcileMemory, Record
from meshd.reconcile.observe.observe import ending
from meshd.reconcile.progress import PATIENCE
from meshd.store.events import EventLog


class ReplicaEvent(msgspec.Struct, frozen=True):
    """One thing worth an event. `seconds` is how long a replica took to get ready."""

    kind: str
    replica: Replica
    text: str
    seconds: float | None = None


def happenings(
    before: Mapping[str, Record], replicas: tuple[Replica, ...], now: float
) -> Iterator[ReplicaEvent]:
    """One a replica at most whose phase changed since `before`."""
    for replica in replicas:
        old = before.get(replica.name)
        if old is not None and old.phase is replica.phase:
            continue
        told = _tell(replica, old, now)
        if told is not None:
            yield told


def turned(before: ReconcileMemory, replicas: tuple[Replica, ...]) -> Iterator[ReplicaEvent]:
    """Those whose readiness probe takes them out, or brings them back."""
    for replica in replicas:
        sight = before.sights.get(replica.name)
        if sight is None or sight.replica is replica or replica.phase is not Phase.READY:
            continue
        if replica.unready and not sight.replica.unready:
            text = f"wants no requests for now: {replica.unready}"
            yield ReplicaEvent(Kind.REPLICA_UNREADY, replica, text)
        elif sight.replica.unready and not replica.unready:
            yield ReplicaEvent(Kind.REPLICA_READY, replica, "wants requests again")


def looping(before: ReconcileMemory, after: ReconcileMemory) -> Iterator[tuple[Version, str]]:
    """The versions whose replicas fail again and again, each told when that begins."""
    for version, slots in after.slots.items():
        known = before.slots.get(version, ())
        if slots is known:
            continue
        worst = max(slot.attempt for slot in slots)
        if worst == PATIENCE and worst not in [slot.attempt for slot in known]:
            last = after.failures[version][-1].text
            yield version, f"{worst} quick failures in a row, starts ever less often; last: {last}"


def vanished(before: ReconcileMemory, runs: Container[str]) -> Iterator[ReplicaEvent]:
    """Those that were there, were not leaving, and are not among what `runs` any more: nobody
    saw them end."""
    for name, sight in before.sights.items():
        was = sight.record
        stays = sight.replica.managed and was.phase in ALIVE and not was.drain_since
        if stays and name not in runs:
            text = "is there no more: it was removed, and not by the mesh"
            yield ReplicaEvent(Kind.REPLICA_DIED, sight.replica, text)


def _tell(replica: Replica, old: Record | None, now: float) -> ReplicaEvent | None:
    end = ending(replica.exit_code, replica.oom_killed)
    match replica.phase:
        case Phase.PENDING:
            return ReplicaEvent(Kind.REPLICA_STARTED, replica, replica.cause or "started")
        case Phase.READY:
            if old is None and replica.ready_since != now:
                return None
            began = replica.woken or replica.created_at
            took = now - began if began else None
            text = "answers its probe" + (f" after {took:.1f} s" if took is not None else "")
            if replica.woken:
                text = f"was woken and {text}"
            return ReplicaEvent(Kind.REPLICA_READY, replica, text, took)
        case Phase.PAUSED if replica.reserve and old is not None:
            return ReplicaEvent(Kind.REPLICA_PAUSED, replica, "is ready, and kept for later")
        case Phase.DRAINING:
            kind = Kind.REPLICA_UNHEALTHY if replica.blamed else Kind.REPLICA_DRAINING
            return ReplicaEvent(kind, replica, replica.cause)
        case Phase.STOPPING if not (old and old.drain_since) and not replica.busy:
            return ReplicaEvent(
                Kind.REPLICA_DRAINING, replica, "was told to stop, not by the mesh; out of rotation"
            )
        case Phase.FAILED:
            return ReplicaEvent(Kind.REPLICA_DIED, replica, end)
        case Phase.GONE if old is not None:
            return ReplicaEvent(Kind.REPLICA_STOPPED, replica, replica.cause or end)
        case _:
            return None


class EventRecorder:
    """Each thing once, when it begins. `on_ready` is told how many seconds a replica of a service
    took to be ready."""

    def __init__(self, events: EventLog, remains: FailureLog) -> None:
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
        before: ReconcileMemory,
        after: ReconcileMemory,
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
                self._remains.keep(version, FailureRecord(replica.name, happening.text))
        for (key, _), text in looping(before, after):
            project, _, service = key.partition("/")
            self._events.record(
                now, Kind.REPLICA_CRASH_LOOP, text, project=project, service=service
            )
        for each in (*turned(before, seen), *vanished(before, runs)):
            self.tell(each, now)

    def tell(self, happening: ReplicaEvent, now: float) -> None:
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
