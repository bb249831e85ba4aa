"""Keep this mesh's claims on projects up to date on the runtime.

Owned by `meshd.reconcile.loop`; deployments claim through it as well. It claims the projects in the
store that no mesh holds, and those to adopt (see `rules`). A project that another mesh holds is
left alone (`held_elsewhere`), even if it was this mesh's before.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Final

import structlog

from meshd.model.runtime import Holder, ObservedReplica
from meshd.reconcile.ownership.rules import (
    ClaimAction,
    ClaimFacts,
    OwnershipDecision,
    Presence,
    decide_ownership,
)
from meshd.runtime.base import Runtime, RuntimeFailure
from meshd.spec.labels import CLONE_OF, INSTANCE
from meshd.store import presence
from meshd.store.store import Store

_log = structlog.stdlib.get_logger(__name__)
PERIOD: Final = 10.0
"""Seconds between two refreshes if nothing happens. Another mesh's claims send no event."""
RETRY: Final = 1.0
"""Seconds between two attempts at the start while the runtime does not respond."""

View = Mapping[str, ObservedReplica]
"""The runtime's replicas by name."""


class ProjectHeldElsewhere(RuntimeFailure):
    """Another mesh holds the project; the text says which, and what to do."""


class ProjectClaims:
    """This mesh's claims on the projects of a runtime.

    - `held`: projects that this mesh holds.
    - `held_elsewhere`: projects in the store that another mesh holds.
    - `refusals`: why a project is left alone, by project.

    Arguments: `view` returns the runtime's replicas; `on_change` is called after each change of the
    attributes; `adopts`: whether to adopt labelled containers that something else started;
    `lease`: name of the lease by which one of several processes leads; empty: there are no others.
    """

    def __init__(
        self,
        runtime: Runtime,
        store: Store,
        view: Callable[[], View],
        on_change: Callable[[], None],
        adopts: bool,
        lease: str = "",
    ) -> None:
        self._lease = lease
        self.held: frozenset[str] = frozenset()
        self.held_elsewhere: frozenset[str] = frozenset()
        self.refusals: Mapping[str, str] = {}
        self._runtime = runtime
        self._store = store
        self._adopts = adopts
        self._view = view
        self._on_change = on_change
        self._decided: frozenset[str] = frozenset()
        self._last_view: View | None = None
        self._own: tuple[object, View] = (None, {})
        self._holder: Holder | None = None
        self._deploying: list[str] = []
        self._refresh_soon = asyncio.Event()
        self._lock = asyncio.Lock()

    @property
    def adopts(self) -> bool:
        """Whether meshd adopts labelled containers that something else started."""
        return self._adopts

    def stop_adopting(self) -> None:
        """Adopt nothing from now on: the daemon ends."""
        self._adopts = False

    @property
    def holder(self) -> Holder:
        """This mesh, as others see it."""
        if self._holder is None:
            if self._lease:  # the same for all processes that may lead
                self._holder = Holder(self._store.instance(), f"lease {self._lease}", "")
                return self._holder
            state = str(self._store.path.parent.absolute())
            self._holder = Holder(self._store.instance(), socket.gethostname(), state)
        return self._holder

    async def run(self) -> None:
        """Refresh the claims until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PERIOD):
                    await self._refresh_soon.wait()
            self._refresh_soon.clear()
            await self.refresh()

    async def ready(self) -> None:
        """Return once the claims were refreshed for the first time."""
        while not await self.refresh():  # noqa: ASYNC110 (polls: an event would be stale)
            await asyncio.sleep(RETRY)

    def own_replicas(self, view: View) -> View:
        """Return the replicas that this mesh manages or adopts.

        Projects that are new in the view are claimed soon.
        """
        if view is not self._last_view:
            self._last_view = view
            if self._projects_to_adopt(view) - self._decided:
                self._refresh_soon.set()
        stored = frozenset(self._store.projects) - self.held_elsewhere
        inputs = (id(view), stored, self.held, self._adopts)
        if inputs != self._own[0]:
            adopted = self.held if self._adopts else frozenset()
            found = {
                name: seen
                for name, seen in view.items()
                if seen.project in (stored if seen.managed else adopted)
                or (CLONE_OF in seen.labels and seen.project in self.held)
            }
            self._own = (inputs, found)
        return self._own[1]

    @contextlib.asynccontextmanager
    async def deploying(self, project: str, take_over: bool) -> AsyncIterator[None]:
        """Hold a claim while the project is deployed. The claim stays if the project was stored.

        Raises ProjectHeldElsewhere.
        """
        self._deploying.append(project)
        try:
            async with self._lock:
                claims = await self._runtime.claims()
                decision = await self._claim(project, claims, take_over=take_over)
                if decision.action is ClaimAction.LEAVE:
                    raise ProjectHeldElsewhere(decision.reason)
                self._update(self.held | {project}, self.held_elsewhere - {project}, self.refusals)
            yield
        finally:
            self._deploying.remove(project)
            self._refresh_soon.set()

    async def release(self, *projects: str) -> None:
        """Release the claims on projects that were taken down.

        If the runtime does not respond, the next refresh does it.
        """
        async with self._lock:
            try:
                for project in projects:
                    await self._runtime.unclaim(project, self.holder)
            except RuntimeFailure as error:
                _log.warning("claim not released", error=str(error))
                return
            self._update(self.held - {*projects}, self.held_elsewhere - {*projects}, self.refusals)

    async def refresh(self) -> bool:
        """Adapt the claims to the store and the runtime; return whether the runtime responded."""
        async with self._lock:
            try:
                await self._refresh()
            except RuntimeFailure as error:
                _log.info("claims not available", error=str(error))
                return False
        return True

    async def _refresh(self) -> None:
        view = self._view()
        stored = set(self._store.projects) | set(self._deploying)
        adoptable = self._projects_to_adopt(view) - stored
        claims = await self._runtime.claims()
        held, elsewhere, refusals = set(), set(), dict[str, str]()
        for project in sorted(stored | adoptable):
            decision = await self._claim(project, claims, adopting=project not in stored)
            if decision.action is not ClaimAction.LEAVE:
                held.add(project)
                continue
            refusals[project] = decision.reason
            if project in stored:
                elsewhere.add(project)
        for project, holder in claims.items():
            if holder == self.holder and project not in stored | adoptable:
                await self._runtime.unclaim(project, holder)
        self._decided = frozenset(stored | adoptable)
        self._update(frozenset(held), frozenset(elsewhere), refusals)

    async def _claim(
        self,
        project: str,
        claims: Mapping[str, Holder],
        *,
        adopting: bool = False,
        take_over: bool = False,
    ) -> OwnershipDecision:
        """Claim a project if the rules allow it; return the decision."""
        claim, me = claims.get(project), self.holder
        for _ in range(2):  # twice, as another mesh may claim it at the same time
            facts = ClaimFacts(
                project, claim, presence_of(claim, me.host), starters(project, self._view())
            )
            decision = decide_ownership(facts, me, adopting=adopting, take_over=take_over)
            if decision.action is not ClaimAction.TAKE:
                return decision
            now_held_by = await self._runtime.claim(project, me, claim)
            if now_held_by == me:
                _log.info("project claimed", project=project, instead_of=claim)
                return OwnershipDecision(ClaimAction.HOLD)
            claim = now_held_by
        return OwnershipDecision(
            ClaimAction.LEAVE, f"project {project} was claimed by another mesh just now"
        )

    def _projects_to_adopt(self, view: View) -> frozenset[str]:
        """The projects of containers that others started, and of copies of such containers."""
        mine = self.holder.instance
        return frozenset(
            seen.project
            for seen in view.values()
            if (not seen.managed or CLONE_OF in seen.labels)
            and (self._adopts or seen.labels.get(INSTANCE) == mine)
        )

    def _update(
        self, held: frozenset[str], elsewhere: frozenset[str], refusals: Mapping[str, str]
    ) -> None:
        refusals = {name: reason for name, reason in refusals.items() if name not in held}
        if (held, elsewhere, refusals) != (self.held, self.held_elsewhere, self.refusals):
            self.held, self.held_elsewhere, self.refusals = held, elsewhere, refusals
            self._on_change()


def presence_of(holder: Holder | None, host: str) -> Presence:
    """Return the state of a holder's daemon as seen from the machine `host`."""
    if holder is None or holder.host != host:
        return Presence.UNKNOWN
    state = Path(holder.state)
    if presence.owner_pid(state) is not None:
        return Presence.RUNS
    return Presence.ENDED if state.is_dir() else Presence.LOST


def starters(project: str, view: View) -> frozenset[str]:
    """Return the instances that started a project's replicas, according to their labels; copies
    of adopted containers do not count."""
    return frozenset(
        seen.labels[INSTANCE]
        for seen in view.values()
        if seen.managed
        and seen.project == project
        and INSTANCE in seen.labels
        and CLONE_OF not in seen.labels
    )
