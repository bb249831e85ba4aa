"""The current view of everything that the runtime runs.

The reconciler reads `RuntimeWatcher.replicas` in every pass. The watcher subscribes to events first
and then lists; it lists again after every interruption of the event stream, and every few seconds.
So an event only makes the view current sooner, and a lost event does no harm.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

import structlog

from meshd.model.runtime import ObservedReplica, ReplicaState
from meshd.runtime.base import EventKind, Runtime, RuntimeEvent, RuntimeFailure

_log = structlog.stdlib.get_logger(__name__)

RESYNC_INTERVAL: Final = 10.0
"""Seconds between two listings, which find what lost events left out."""
FIRST_RETRY, MAX_RETRY = 0.1, 2.0
"""Seconds until a failed listing is tried again, doubled each time up to the second."""

View = Mapping[str, ObservedReplica]
"""The replicas by name."""


class RuntimeWatcher:
    """Keeps the view of the runtime current while `run` runs. Calls `on_change` after each change
    of it, and when the runtime stops or starts to answer. While the runtime does not answer, the
    view stays."""

    def __init__(
        self, runtime: Runtime, on_change: Callable[[], None], resync: float = RESYNC_INTERVAL
    ) -> None:
        self._runtime = runtime
        self._on_change = on_change
        self._resync = resync
        self._view: View = MappingProxyType({})
        self._events_since_listing: list[RuntimeEvent] = []
        self._listing = False
        self._list_now = asyncio.Event()
        self._problem: str | None = None
        self._ready = asyncio.Event()

    @property
    def replicas(self) -> View:
        """Every replica by name. Each change replaces the mapping; it is never edited."""
        return self._view

    @property
    def problem(self) -> str | None:
        """Why the runtime does not answer; None while it does."""
        return self._problem

    async def ready(self) -> None:
        """Return once the runtime has been listed for the first time."""
        await self._ready.wait()

    def list_soon(self) -> None:
        """List at once instead of waiting for the interval."""
        self._list_now.set()

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_events(), name="watch events")
            tasks.create_task(self._list_repeatedly(), name="watch listing")

    async def _follow_events(self) -> None:
        async for event in self._runtime.watch():
            if event.kind in (EventKind.RESYNC, EventKind.CUT):
                self._list_now.set()
                continue
            if self._listing:
                self._events_since_listing.append(event)
            self._set_view(apply_event(self._view, event))

    async def _list_repeatedly(self) -> None:
        pause = FIRST_RETRY
        while True:
            try:
                await self._list()
                wait, pause = self._resync, FIRST_RETRY
                self._set_problem(None)
            except RuntimeFailure as failure:
                wait = pause = min(pause * 2, MAX_RETRY)
                self._set_problem(str(failure))
            try:
                async with asyncio.timeout(wait):
                    await self._list_now.wait()
            except TimeoutError:
                continue

    async def _list(self) -> None:
        """Replace the view by a listing, then apply the events that arrived meanwhile: the listing
        may be older than they are."""
        self._list_now.clear()
        self._events_since_listing.clear()
        self._listing = True
        try:
            view: View = {replica.name: replica for replica in await self._runtime.list()}
        finally:
            self._listing = False
        for event in self._events_since_listing:
            view = apply_event(view, event)
        self._events_since_listing.clear()
        self._ready.set()
        self._set_view(view)

    def _set_view(self, view: View) -> None:
        if view != self._view:
            self._view = MappingProxyType(dict(view))
            self._on_change()

    def _set_problem(self, problem: str | None) -> None:
        changed = (problem is None) != (self._problem is None)
        self._problem = problem
        if changed:
            if problem is None:
                _log.info("runtime answers again")
            else:
                _log.warning("runtime does not answer", reason=problem)
            self._on_change()


def apply_event(view: View, event: RuntimeEvent) -> View:
    """Return the view after an event. Pure.

    An event about an earlier replica of the same name changes nothing.
    """
    known = view.get(event.name)
    new = event.replica
    if known and new and known.runtime_id != new.runtime_id:
        if new.created_at < known.created_at:
            return view
        known = None
    if event.kind is EventKind.REMOVED:
        return {name: replica for name, replica in view.items() if name != event.name}
    if new is None:
        new = _infer_replica(known, event.kind)
    return view if new is None else {**view, event.name: new}


def _infer_replica(known: ObservedReplica | None, kind: EventKind) -> ObservedReplica | None:
    """Return the replica after an event without details; None if the event says nothing."""
    if known is None:
        return None
    match kind:
        case EventKind.STOPPING:
            return replace(known, state=ReplicaState.STOPPING)
        case EventKind.DIED:
            return replace(known, state=ReplicaState.EXITED, host=None, port=0)
        case EventKind.PAUSED:
            return replace(known, state=ReplicaState.PAUSED)
        case EventKind.UNPAUSED:
            return replace(known, state=ReplicaState.RUNNING)
        case _:
            return None
