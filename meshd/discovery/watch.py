"""The always-current view of what the runtime runs.

Subscribe first, then list; again after every cut of the event stream and every few seconds.
So an event only makes the view current sooner: one that is lost is made up for.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

import structlog

from meshd.model.runtime import ObservedReplica, ReplicaState
from meshd.runtime.base import EventKind, Runtime, RuntimeEvent, RuntimeFailure

RESYNC_SECONDS = 10.0
RETRY_FIRST, RETRY_LONGEST = 0.1, 2.0

_log = structlog.stdlib.get_logger(__name__)

View = Mapping[str, ObservedReplica]


class RuntimeWatcher:
    """Keeps the view while `run` runs, and calls `on_change` after each change of it, or of
    whether the runtime answers. While it does not, the view stays as it last was."""

    def __init__(
        self, runtime: Runtime, on_change: Callable[[], None], resync: float = RESYNC_SECONDS
    ) -> None:
        self._runtime = runtime
        self._on_change = on_change
        self._resync = resync
        self._view: View = MappingProxyType({})
        self._since_listing: list[RuntimeEvent] = []
        self._listing = False
        self._list_again = asyncio.Event()
        self._problem: str | None = None
        self._ready = asyncio.Event()

    @property
    def replicas(self) -> View:
        """Every replica by name: a value that is replaced with each change, never edited."""
        return self._view

    @property
    def problem(self) -> str | None:
        """Why the runtime does not answer; None while it does."""
        return self._problem

    async def ready(self) -> None:
        """Return once the runtime was listed for the first time."""
        await self._ready.wait()

    def list_soon(self) -> None:
        """List at once, not only when the time comes."""
        self._list_again.set()

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen(), name="watch events")
            tasks.create_task(self._list_ever_again(), name="watch listing")

    async def _listen(self) -> None:
        async for event in self._runtime.watch():
            if event.kind in (EventKind.RESYNC, EventKind.CUT):
                self._list_again.set()
                continue
            if self._listing:
                self._since_listing.append(event)
            self._replace(after(self._view, event))

    async def _list_ever_again(self) -> None:
        pause = RETRY_FIRST
        while True:
            try:
                await self._list()
                wait, pause = self._resync, RETRY_FIRST
                self._judge(None)
            except RuntimeFailure as failure:
                wait = pause = min(pause * 2, RETRY_LONGEST)
                self._judge(str(failure))
            try:
                async with asyncio.timeout(wait):
                    await self._list_again.wait()
            except TimeoutError:
                continue

    async def _list(self) -> None:
        """Replace the view by what is, then by what was told meanwhile: an answer may be
        older than an event that overtook it."""
        self._list_again.clear()
        self._since_listing.clear()
        self._listing = True
        try:
            view: View = {replica.name: replica for replica in await self._runtime.list()}
        finally:
            self._listing = False
        for event in self._since_listing:
            view = after(view, event)
        self._since_listing.clear()
        self._ready.set()
        self._replace(view)

    def _replace(self, view: View) -> None:
        if view != self._view:
            self._view = MappingProxyType(dict(view))
            self._on_change()

    def _judge(self, problem: str | None) -> None:
        changed = (problem is None) != (self._problem is None)
        self._problem = problem
        if changed:
            if problem is None:
                _log.info("the runtime answers again")
            else:
                _log.warning("the runtime does not answer", reason=problem)
            self._on_change()


def after(view: View, event: RuntimeEvent) -> View:
    """The view after an event. Pure.

    An event about an earlier replica of the same name changes nothing.
    """
    known = view.get(event.name)
    told = event.replica
    if known and told and known.runtime_id != told.runtime_id:
        if told.created_at < known.created_at:
            return view
        known = None
    if event.kind is EventKind.REMOVED:
        return {name: replica for name, replica in view.items() if name != event.name}
    if told is None:
        told = _changed(known, event.kind)
    return view if told is None else {**view, event.name: told}


def _changed(known: ObservedReplica | None, kind: EventKind) -> ObservedReplica | None:
    """What an event means when the runtime could not say more."""
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
