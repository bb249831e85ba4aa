"""Which projects of the runtime are this mesh's, kept as it is on the runtime.

What is stored here and held by nobody is claimed; so is what is to be adopted. What another
mesh holds is left alone (`elsewhere`), also when it was ours before.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Final

import structlog

from meshd.model.runtime import Holder, ObservedReplica
from meshd.reconcile.ownership.rules import Finding, OwnershipDecision, Presence, judge
from meshd.runtime.base import Runtime, RuntimeFailure
from meshd.spec.labels import CLONE_OF, INSTANCE
from meshd.store import presence
from meshd.store.store import Store

_log = structlog.stdlib.get_logger(__name__)
PERIOD: Final = 10.0
"""Seconds after which the claims are looked at again, whatever happened."""
RETRY: Final = 1.0

View = Mapping[str, ObservedReplica]


class NotOurs(RuntimeFailure):
    """Another mesh holds the project; the text says which, and what to do."""


class ProjectClaims:
    """`held` are the projects that are ours, `elsewhere` those stored here that are another
    mesh's, `refused` why a project is left alone. `view` gives what runs; `on_change` is
    called after each change of these."""

    def __init__(
        self,
        runtime: Runtime,
        store: Store,
        view: Callable[[], View],
        on_change: Callable[[], None],
        adopts: bool,
    ) -> None:
        self._adopts = adopts
        self.held: frozenset[str] = frozenset()
        self.elsewhere: frozenset[str] = frozenset()
        self.refused: Mapping[str, str] = {}
        self._runtime = runtime
        self._store = store
        self._view = view
        self._on_change = on_change
        self._judged: frozenset[str] = frozenset()
        self._seen: View | None = None
        self._ours: tuple[object, View] = (None, {})
        self._me: Holder | None = None
        self._deploying: list[str] = []
        self._look_again = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()

    @property
    def me(self) -> Holder:
        """This mesh, as others know it."""
        if self._me is None:
            state = str(self._store.path.parent.absolute())
            self._me = Holder(self._store.instance(), socket.gethostname(), state)
        return self._me

    @property
    def adopts(self) -> bool:
        """Whether meshd adopts labelled containers that something else started."""
        return self._adopts

    def stop_adopting(self) -> None:
        """Adopt nothing from now on: the daemon ends."""
        self._adopts = False

    async def run(self) -> None:
        """Look ever again until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PERIOD):
                    await self._look_again.wait()
            self._look_again.clear()
            await self.look()

    async def settled(self) -> None:
        """Return once the claims were looked at for the first time."""
        while not await self.look():  # noqa: ASYNC110 (what is, not what was told)
            await asyncio.sleep(RETRY)

    def ours(self, view: View) -> View:
        """What of the view is ours to deal with: of what some mesh started the projects that
        are ours, of what somebody else did those that may be adopted. Has what is new in it
        looked at soon."""
        if view is not self._seen:
            self._seen = view
            if self._to_adopt(view) - self._judged:
                self._look_again.set()
        stored = frozenset(self._store.projects) - self.elsewhere
        made_of = (id(view), stored, self.held, self._adopts)
        if made_of != self._ours[0]:
            adopted = self.held if self._adopts else frozenset()
            found = {
                name: seen
                for name, seen in view.items()
                if seen.project in (stored if seen.managed else adopted)
                or (CLONE_OF in seen.labels and seen.project in self.held)
            }
            self._ours = (made_of, found)
        return self._ours[1]

    @contextlib.asynccontextmanager
    async def deploying(self, project: str, take_over: bool) -> AsyncIterator[None]:
        """Have the project claimed while it is deployed, and from then on if it was stored.
        Raises NotOurs."""
        self._deploying.append(project)
        try:
            async with self._one_at_a_time:
                claims = await self._runtime.claims()
                verdict = await self._settle(project, claims, wish=take_over)
                if verdict.act == "leave":
                    raise NotOurs(verdict.reason)
                self._tell(self.held | {project}, self.elsewhere - {project}, self.refused)
            yield
        finally:
            self._deploying.remove(project)
            self._look_again.set()

    async def release(self, *projects: str) -> None:
        """Give these projects back: nothing of them is left. Where the runtime does not answer,
        that waits until the next look."""
        async with self._one_at_a_time:
            try:
                for project in projects:
                    await self._runtime.unclaim(project, self.me)
            except RuntimeFailure as error:
                _log.warning("a claim could not be given back", error=str(error))
                return
            self._tell(self.held - {*projects}, self.elsewhere - {*projects}, self.refused)

    async def look(self) -> bool:
        """Bring the claims to what is stored and what runs; whether the runtime answered."""
        async with self._one_at_a_time:
            try:
                await self._look()
            except RuntimeFailure as error:
                _log.info("no claims to be had", error=str(error))
                return False
        return True

    async def _look(self) -> None:
        view = self._view()
        stored = set(self._store.projects) | set(self._deploying)
        adoptable = self._to_adopt(view) - stored
        claims = await self._runtime.claims()
        held, elsewhere, refused = set(), set(), dict[str, str]()
        for project in sorted(stored | adoptable):
            verdict = await self._settle(project, claims, adopting=project not in stored)
            if verdict.act != "leave":
                held.add(project)
                continue
            refused[project] = verdict.reason
            if project in stored:
                elsewhere.add(project)
        for project, holder in claims.items():
            if holder == self.me and project not in stored | adoptable:
                await self._runtime.unclaim(project, holder)
        self._judged = frozenset(stored | adoptable)
        self._tell(frozenset(held), frozenset(elsewhere), refused)

    async def _settle(
        self,
        project: str,
        claims: Mapping[str, Holder],
        *,
        adopting: bool = False,
        wish: bool = False,
    ) -> OwnershipDecision:
        """Take the project if that may be; what came of it."""
        claim, me = claims.get(project), self.me
        for _ in range(2):
            finding = Finding(
                project, claim, presence_of(claim, me.host), starters(project, self._view())
            )
            verdict = judge(finding, me, adopting=adopting, wish=wish)
            if verdict.act != "take":
                return verdict
            got = await self._runtime.claim(project, me, claim)
            if got == me:
                _log.info("project claimed", project=project, instead_of=claim)
                return OwnershipDecision("hold")
            claim = got  # somebody was faster
        return OwnershipDecision("leave", f"project {project} was claimed by another mesh just now")

    def _to_adopt(self, view: View) -> frozenset[str]:
        """The projects of what others started, and of our copies of that."""
        mine = self.me.instance
        return frozenset(
            seen.project
            for seen in view.values()
            if (not seen.managed or CLONE_OF in seen.labels)
            and (self._adopts or seen.labels.get(INSTANCE) == mine)
        )

    def _tell(
        self, held: frozenset[str], elsewhere: frozenset[str], refused: Mapping[str, str]
    ) -> None:
        refused = {name: why for name, why in refused.items() if name not in held}
        if (held, elsewhere, refused) != (self.held, self.elsewhere, self.refused):
            self.held, self.elsewhere, self.refused = held, elsewhere, refused
            self._on_change()


def presence_of(holder: Holder | None, host: str) -> Presence:
    """What can be told of a holder's daemon from this host."""
    if holder is None or holder.host != host:
        return Presence.UNKNOWN
    state = Path(holder.state)
    if presence.owner_pid(state) is not None:
        return Presence.RUNS
    return Presence.ENDED if state.is_dir() else Presence.LOST


def starters(project: str, view: View) -> frozenset[str]:
    """The instances that started a project's replicas, as far as their labels say; copies of
    adopted containers aside."""
    return frozenset(
        seen.labels[INSTANCE]
        for seen in view.values()
        if seen.managed
        and seen.project == project
        and INSTANCE in seen.labels
        and CLONE_OF not in seen.labels
    )
