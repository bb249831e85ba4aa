"""What changes in the mesh, once a second, for all pages that show it.

`meshd.daemon.ticker` calls `step`. Without subscribers that does nothing. Each update is computed
and encoded once, however many pages are open; pages for one project share another one.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

import msgspec

from meshd.api.dto import CallEdge, LiveUpdate, ServiceStatus, Status
from meshd.model.errors import ReaderTooSlow
from meshd.model.event import Event
from meshd.store.events import EventLog

LATEST: Final = 200
"""Events in a full update."""
BEHIND: Final = 5
"""Updates that a page may be behind before it is disconnected; it then connects again."""


class LiveFeed:
    """Sends updates to its subscribers. `status` returns the current state, `calls` who calls
    whom."""

    def __init__(
        self,
        status: Callable[[], Status],
        calls: Callable[[Sequence[ServiceStatus], float], Sequence[CallEdge]],
        events: EventLog,
    ) -> None:
        self._status = status
        self._calls = calls
        self._events = events
        self._queues: dict[asyncio.Queue[msgspec.Raw | None], str] = {}
        self._last: LiveUpdate | None = None

    def current(self, project: str, now: float) -> LiveUpdate:
        """Return everything, or everything of `project` if that is set."""
        return _part_of(self._compute(now), project)

    def step(self, now: float) -> None:
        """Send each subscriber what changed since the step before."""
        if not self._queues:
            self._last = None
            return
        before, self._last = self._last, self._compute(now)
        update = self._last if before is None else _changes(before, self._last)
        encoded = {
            project: msgspec.Raw(msgspec.json.encode(_part_of(update, project)))
            for project in set(self._queues.values())
        }
        for queue, project in tuple(self._queues.items()):
            if queue.full():
                del self._queues[queue]
                queue.get_nowait()
                queue.put_nowait(None)
            else:
                queue.put_nowait(encoded[project])

    async def follow(self, project: str, now: float) -> AsyncIterator[msgspec.Raw]:
        """Yield an encoded full update, then one with the changes every second. Raises
        ReaderTooSlow."""
        if self._last is None:
            self._last = self._compute(now)
        queue: asyncio.Queue[msgspec.Raw | None] = asyncio.Queue(BEHIND)
        self._queues[queue] = project
        try:
            yield msgspec.Raw(msgspec.json.encode(_part_of(self._last, project)))
            while (update := await queue.get()) is not None:
                yield update
            raise ReaderTooSlow
        finally:
            self._queues.pop(queue, None)

    def _compute(self, now: float) -> LiveUpdate:
        status = self._status()
        return LiveUpdate(
            at=now,
            full=True,
            daemon=msgspec.structs.replace(status, services=()),
            services=status.services,
            removed=(),
            calls=tuple(self._calls(status.services, now)),
            events=tuple(self._events.latest(LATEST)),
        )


def _changes(before: LiveUpdate, now: LiveUpdate) -> LiveUpdate:
    """Return the part of `now` that differs from `before`."""
    known = {(each.project, each.name): each for each in before.services}
    changed = tuple(s for s in now.services if known.pop((s.project, s.name), None) != s)
    last = before.events[-1].id if before.events else 0
    return msgspec.structs.replace(
        now,
        full=False,
        services=changed,
        removed=tuple(f"{project}/{name}" for project, name in known),
        events=tuple(event for event in now.events if event.id > last),
    )


def _part_of(update: LiveUpdate, project: str) -> LiveUpdate:
    """Return the part of an update that is about `project`; all of it if that is empty."""
    if not project:
        return update
    prefix = f"{project}/"
    daemon = msgspec.structs.replace(
        update.daemon,
        projects=tuple(each for each in update.daemon.projects if each.name == project),
        images=(),
    )
    events: list[Event] = [event for event in update.events if event.project == project]
    return msgspec.structs.replace(
        update,
        daemon=daemon,
        services=tuple(each for each in update.services if each.project == project),
        removed=tuple(each for each in update.removed if each.startswith(prefix)),
        calls=tuple(each for each in update.calls if each.service.startswith(prefix)),
        events=tuple(events),
    )
