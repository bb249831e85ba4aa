"""The event log: what happened and what was decided; bounded, kept over restarts. Written by
every part of the daemon, read by `meshd events`."""

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from itertools import islice
from typing import Final

import msgspec

from meshd.model.errors import ReaderTooSlow, StoreWriteError
from meshd.model.event import Event
from meshd.store.store import Store

KEPT: Final = 10_000
"""Events kept on disk."""
RECENT: Final = 1_000
"""Events kept in memory for new subscribers."""
BEHIND: Final = 1_000
"""Events that a subscriber may be behind before it is dropped."""
UNWRITTEN: Final = 500
"""Events that may be published before they are stored."""


class EventLog:
    """Records events and passes them to subscribers. `on_event` is called with each new
    one; `flush` stores those not stored yet."""

    def __init__(self, store: Store, on_event: Callable[[Event], None] | None = None) -> None:
        self._on_event = on_event
        self._store = store
        self._recent: deque[Event] = deque(maxlen=RECENT)
        self._unwritten: list[Event] = []
        self._queues: set[asyncio.Queue[Event]] = set()
        self._last = 0
        self._last_texts: dict[str, str] = {}

    def open(self) -> None:
        """Continue above the last event number that may have been published: a killed process
        may have published events that it had not stored, and a number is used once."""
        for event in reversed(self._read("ORDER BY id DESC LIMIT ?", (RECENT,))):
            self._keep(event)
        query = "SELECT value FROM meta WHERE key = 'events'"
        row = self._store.database.execute(query).fetchone()
        if row or self._recent:
            stored = self._recent[-1].id if self._recent else 0
            self._last = max(int(row[0]) if row else 0, stored) + UNWRITTEN
        with contextlib.suppress(StoreWriteError), self._store.transaction() as database:
            database.execute("INSERT OR REPLACE INTO meta VALUES ('events', ?)", (self._last,))

    def record(
        self,
        at: float,
        kind: str,
        text: str,
        *,
        project: str = "",
        service: str = "",
        replica: str = "",
        numbers: Mapping[str, float] | None = None,
    ) -> Event:
        """Add one event. A subscriber that is too far behind gets no more."""
        self._last += 1
        event = Event(
            id=self._last,
            at=at,
            kind=kind,
            project=project,
            service=service,
            replica=replica,
            text=text,
            numbers=dict(numbers or {}),
        )
        self._keep(event)
        self._unwritten.append(event)
        if len(self._unwritten) >= UNWRITTEN:
            with contextlib.suppress(StoreWriteError):
                self.flush()
            del self._unwritten[:-UNWRITTEN]  # while storing fails, the oldest are lost
        if self._on_event is not None:
            self._on_event(event)
        for queue in tuple(self._queues):
            if queue.full():
                self._queues.discard(queue)
            else:
                queue.put_nowait(event)
        return event

    def _keep(self, event: Event) -> None:
        self._recent.append(event)
        if event.service:
            text = f"{event.replica} {event.text}" if event.replica else event.text
            self._last_texts[f"{event.project}/{event.service}"] = text

    def flush(self) -> None:
        """Store the events not stored yet; delete what is too old."""
        if not self._unwritten:
            return
        with self._store.transaction() as database:
            database.executemany(
                "INSERT OR REPLACE INTO event VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (*msgspec.structs.astuple(e)[:-1], json.dumps(e.numbers))
                    for e in self._unwritten
                ],
            )
            database.execute(
                "DELETE FROM event WHERE id <= "
                "(SELECT id FROM event ORDER BY id DESC LIMIT 1 OFFSET ?)",
                (KEPT,),
            )
        self._unwritten.clear()

    def since(self, since: int, limit: int) -> Sequence[Event]:
        """Return events with id > since, oldest first."""
        if self._recent and since >= self._recent[0].id - 1:
            return [event for event in self._recent if event.id > since][:limit]
        with contextlib.suppress(StoreWriteError):
            self.flush()
        stored = self._read("WHERE id > ? ORDER BY id LIMIT ?", (since, limit))
        return [*stored, *(event for event in self._unwritten if event.id > since)][:limit]

    def latest(self, limit: int) -> Sequence[Event]:
        """Return the newest events, at most `RECENT`, oldest first."""
        return list(islice(self._recent, max(0, len(self._recent) - limit), None))

    def _read(self, which: str, values: tuple[int, ...]) -> list[Event]:
        rows = self._store.database.execute(
            "SELECT id, at, kind, project, service, replica, text, numbers FROM event " + which,  # noqa: S608 (our own words)
            values,
        )
        return [
            Event(
                id=number,
                at=at,
                kind=kind,
                project=project,
                service=service,
                replica=replica,
                text=text,
                numbers=json.loads(numbers),
            )
            for number, at, kind, project, service, replica, text, numbers in rows
        ]

    def last_of(self, key: str) -> str:
        """Return the last event of a service (`PROJECT/SERVICE`) in one line."""
        return self._last_texts.get(key, "")

    async def subscribe(self) -> AsyncIterator[Event]:
        """Yield events from now on, without end. Raises ReaderTooSlow after the last one before
        the subscriber was dropped."""
        queue: asyncio.Queue[Event] = asyncio.Queue(BEHIND)
        self._queues.add(queue)
        try:
            while queue in self._queues or not queue.empty():
                yield await queue.get()
            raise ReaderTooSlow
        finally:
            self._queues.discard(queue)
