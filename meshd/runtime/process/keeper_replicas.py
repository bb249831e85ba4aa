"""The replicas of a keeper and their event subscribers. Owned by `keeper`; one `ReplicaProcess`
each."""

import asyncio
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from meshd.model.runtime import ObservedReplica
from meshd.runtime.base import EventKind, ReplicaNotFound, ReplicaRunning, RuntimeEvent, StartFailed
from meshd.runtime.process.keeper_child import ReplicaProcess
from meshd.runtime.process.keeper_output import Output
from meshd.runtime.process.keeper_ports import Ports
from meshd.runtime.process.keeper_protocol import Launch

SUBSCRIBER_EVENTS = 1024
"""Events a subscriber may be behind before it gets a RESYNC; a busy minute has a few dozen."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")

_log = structlog.stdlib.get_logger(__name__)

Subscriber = asyncio.Queue[RuntimeEvent | None]


class Replicas:
    """All replicas by name, ended ones until they are removed. Their output goes to files in the
    directory `logs`."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._children: dict[str, ReplicaProcess] = {}
        self._subscribers: set[Subscriber] = set()
        self._ports = Ports()

    def observe(self) -> tuple[ObservedReplica, ...]:
        """Return every replica as it is now."""
        return tuple(child.observe() for child in self._children.values())

    def start(self, launch: Launch) -> ReplicaProcess:
        """Start a replica on its own port. Raises StartFailed."""
        if not _NAME.fullmatch(launch.name):
            raise StartFailed(f"{launch.name!r} is not a valid name of a replica")
        if launch.name in self._children:
            raise StartFailed(f"a replica named {launch.name} already exists; remove it first")
        if not launch.argv:
            raise StartFailed(f"service {launch.service} has no command to run")
        held = {child.port for child in self._children.values() if not child.ended}
        try:
            port = self._ports.take(held)
        except OSError as error:
            raise StartFailed(f"replica {launch.name}: {error}") from error
        child = ReplicaProcess(
            launch, port, Output(self._logs / f"{launch.name}.log"), self._publish
        )
        child.spawn()
        self._children[launch.name] = child
        self._publish(child, EventKind.STARTED)
        return child

    def remove(self, name: str) -> None:
        """Remove an ended replica. Raises ReplicaNotFound, ReplicaRunning."""
        child = self.find(name)
        if not child.ended:
            raise ReplicaRunning(f"replica {name} is running; stop it first")
        del self._children[name]
        child.output.delete()
        self._publish(child, EventKind.REMOVED)

    def find(self, name: str) -> ReplicaProcess:
        """Return the replica of that name. Raises ReplicaNotFound."""
        child = self._children.get(name)
        if child is None:
            raise ReplicaNotFound(f"no replica {name} runs here")
        return child

    def running(self, name: str) -> ReplicaProcess:
        """Return the running replica of that name. Raises ReplicaNotFound."""
        child = self.find(name)
        if child.ended:
            raise ReplicaNotFound(f"replica {name} has ended")
        return child

    @contextmanager
    def subscribe(self) -> Iterator[Subscriber]:
        """Return a queue of events, RESYNC first. A subscriber that falls behind gets another
        RESYNC instead of the events it missed."""
        events: Subscriber = asyncio.Queue(maxsize=SUBSCRIBER_EVENTS)
        events.put_nowait(_resync())
        self._subscribers.add(events)
        try:
            yield events
        finally:
            self._subscribers.discard(events)

    async def end(self, grace: float) -> None:
        """Stop all replicas at once, KILL after `grace` seconds."""
        running = [child for child in self._children.values() if not child.ended]
        endings = [child.stop(grace) for child in running]
        for child, ended in zip(
            running, await asyncio.gather(*endings, return_exceptions=True), strict=True
        ):
            if isinstance(ended, BaseException):
                _log.error("replica did not end", replica=child.launch.name, reason=str(ended))

    def _publish(self, child: ReplicaProcess, kind: EventKind) -> None:
        replica = child.observe()
        event = RuntimeEvent(kind, replica.name, time.time(), replica)
        for subscriber in self._subscribers:
            if subscriber.full():
                while not subscriber.empty():
                    subscriber.get_nowait()
                subscriber.put_nowait(_resync())
            subscriber.put_nowait(event)


def _resync() -> RuntimeEvent:
    return RuntimeEvent(EventKind.RESYNC, at=time.time())
