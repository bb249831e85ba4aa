"""Turns the changes that a pass saw into events of the event log.

Owned by the reconciler, which calls it in each pass. The functions decide which changes are worth
an event; `EventRecorder` writes each event once, when the change begins.
"""

from collections.abc import Callable, Container, Iterator, Mapping
from typing import Final

import msgspec

from meshd.model.event import Kind
from meshd.model.replica import Replica, Version
from meshd.model.replica_phase import ALIVE, Phase
from meshd.reconcile.execute.failure_log import FailureLog, FailureRecord
from meshd.reconcile.observe.memory import ReconcileMemory, ReplicaRecord
from meshd.reconcile.observe.observe import describe_exit
from meshd.reconcile.progress import CRASH_LOOP_FAILURES
from meshd.store.events import EventLog

LONGEST_CREATION: Final = 10.0
"""Seconds between the creation of a container and its start. One that started later was started
again, so that the time since its creation says nothing."""


class ReplicaEvent(msgspec.Struct, frozen=True):
    """An event about one replica. `seconds` is the time it took to become ready."""

    kind: str
    replica: Replica
    text: str
    seconds: float | None = None


def phase_events(
    before: Mapping[str, ReplicaRecord], replicas: tuple[Replica, ...], now: float
) -> Iterator[ReplicaEvent]:
    """Yield at most one event per replica whose phase is not the one in `before`."""
    for replica in replicas:
        old = before.get(replica.name)
        if old is not None and old.phase is replica.phase:
            continue
        event = _phase_event(replica, old, now)
        if event is not None:
            yield event


def readiness_events(
    before: ReconcileMemory, replicas: tuple[Replica, ...]
) -> Iterator[ReplicaEvent]:
    """Yield an event for each ready replica whose readiness probe began to fail or to pass."""
    for replica in replicas:
        cached = before.cache.get(replica.name)
        if cached is None or cached.replica is replica or replica.phase is not Phase.READY:
            continue
        if replica.unready and not cached.replica.unready:
            text = f"is not ready for requests: {replica.unready}"
            yield ReplicaEvent(Kind.REPLICA_UNREADY, replica, text)
        elif cached.replica.unready and not replica.unready:
            yield ReplicaEvent(Kind.REPLICA_READY, replica, "is ready for requests again")


def crash_loops(before: ReconcileMemory, after: ReconcileMemory) -> Iterator[tuple[Version, str]]:
    """Yield the versions that began to crash-loop, with a text."""
    for version, slots in after.slots.items():
        known = before.slots.get(version, ())
        if slots is known:
            continue
        worst = max(slot.attempt for slot in slots)
        if worst == CRASH_LOOP_FAILURES and worst not in [slot.attempt for slot in known]:
            last = after.failures[version][-1].text
            yield version, f"{worst} quick failures in a row, backing off restarts; last: {last}"


def removed_by_others(before: ReconcileMemory, running: Container[str]) -> Iterator[ReplicaEvent]:
    """Yield an event for each replica that is no longer among the `running` ones, although meshd
    neither stopped it nor saw its end."""
    for name, cached in before.cache.items():
        was = cached.record
        expected = cached.replica.managed and was.phase in ALIVE and not was.drain_since
        if expected and name not in running:
            text = "was removed by something other than meshd"
            yield ReplicaEvent(Kind.REPLICA_DIED, cached.replica, text)


def _phase_event(replica: Replica, old: ReplicaRecord | None, now: float) -> ReplicaEvent | None:
    end = describe_exit(replica.exit_code, replica.oom_killed, replica.error)
    match replica.phase:
        case Phase.PENDING:
            return ReplicaEvent(Kind.REPLICA_STARTED, replica, replica.cause or "started")
        case Phase.READY:
            if old is None and replica.ready_since != now:
                return None
            return _ready_event(replica, now)
        case Phase.PAUSED if replica.warm and old is not None:
            text = "is ready and paused in the warm pool"
            return ReplicaEvent(Kind.REPLICA_PAUSED, replica, text)
        case Phase.DRAINING:
            kind = Kind.REPLICA_UNHEALTHY if replica.counted_as_failure else Kind.REPLICA_DRAINING
            return ReplicaEvent(kind, replica, replica.cause)
        case Phase.STOPPING if not (old and old.drain_since) and not replica.busy:
            text = "is being stopped by something other than meshd"
            text += "" if replica.plain else "; it gets no new requests"
            return ReplicaEvent(Kind.REPLICA_DRAINING, replica, text)
        case Phase.FAILED:
            return ReplicaEvent(Kind.REPLICA_DIED, replica, end)
        case Phase.COMPLETED if old is not None or replica.uptime:
            text = f"completed: {end} after {replica.uptime:.1f} s"
            return ReplicaEvent(Kind.REPLICA_COMPLETED, replica, text)
        case Phase.GONE if old is not None:
            return ReplicaEvent(Kind.REPLICA_STOPPED, replica, replica.cause or end)
        case _:
            return None


def _ready_event(replica: Replica, now: float) -> ReplicaEvent:
    restarted = replica.started_at > replica.created_at + LONGEST_CREATION
    began = replica.resumed_at or (replica.started_at if restarted else replica.created_at)
    took = now - began if began else None
    how = "is ready" if replica.plain else "passed its probe"
    text = how + (f" after {took:.1f} s" if took is not None else "")
    if replica.resumed_at:
        text = f"was resumed and {text}"
    return ReplicaEvent(Kind.REPLICA_READY, replica, text, took)


class EventRecorder:
    """Records each change once, when it begins. `on_ready` is called with a service's key and the
    seconds that a replica of it took to become ready."""

    def __init__(
        self, events: EventLog, failures: FailureLog, on_ready: Callable[[str, float], None]
    ) -> None:
        self._events = events
        self._failures = failures
        self._on_ready = on_ready
        self._available = True
        self._problems: frozenset[str] = frozenset()
        self._refused: frozenset[str] = frozenset()

    def record_runtime(self, name: str, problem: str | None, now: float) -> None:
        """Record that the runtime stopped or started to answer; `problem` is why it does not
        answer, None if it does."""
        available = problem is None
        if available == self._available:
            return
        self._available = available
        if available:
            self._events.record(now, Kind.RUNTIME_BACK, f"{name} answers again")
        else:
            text = f"{name} does not answer; meshd changes nothing until it does ({problem})"
            self._events.record(now, Kind.RUNTIME_LOST, text)

    def record_problems(
        self, problems: frozenset[str], refused: frozenset[str], now: float
    ) -> None:
        """Record new problems of adopted containers, and projects that another mesh holds."""
        for text in sorted(problems - self._problems):
            self._events.record(now, Kind.ADOPT_FAILED, text)
        for text in sorted(refused - self._refused):
            self._events.record(now, Kind.CLAIM_REFUSED, f"left alone: {text}")
        self._problems, self._refused = problems, refused

    def record_replicas(
        self,
        before: ReconcileMemory,
        after: ReconcileMemory,
        replicas: tuple[Replica, ...],
        running: Container[str],
        now: float,
    ) -> None:
        """Record how replicas changed from one memory to the next; `running` names all replicas
        that run."""
        for event in phase_events(before.records, replicas, now):
            replica = event.replica
            if event.seconds is not None:
                self._on_ready(replica.key, event.seconds)
            self.record(event, now)
            if replica.phase is Phase.DRAINING and replica.counted_as_failure:
                version = (replica.key, replica.revision)
                self._failures.keep(version, FailureRecord(replica.name, event.text))
        for (key, _), text in crash_loops(before, after):
            project, _, service = key.partition("/")
            self._events.record(
                now, Kind.REPLICA_CRASH_LOOP, text, project=project, service=service
            )
        for event in (
            *readiness_events(before, replicas),
            *removed_by_others(before, running),
        ):
            self.record(event, now)

    def record(self, event: ReplicaEvent, now: float) -> None:
        """Record an event about one replica."""
        replica = event.replica
        self._events.record(
            now,
            event.kind,
            event.text,
            project=replica.project,
            service=replica.service,
            replica=replica.name,
        )
