"""Runs the `quiesce` and `resume` commands of services around the backup of a volume.

Made by `meshd.daemon.wiring`, which runs `Quiescer.run`; `meshd.control.volumes` calls the rest.
Each replica is stored before its `quiesce` runs, and forgotten once `resume` has exited with code 0
or the replica is gone. So `resume` also runs after the control process was killed.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec
import structlog

from meshd.model.errors import Rejected, StoreWriteError
from meshd.model.event import Kind
from meshd.model.request import RunCommand
from meshd.model.runtime import CommandResult
from meshd.model.volume import QuiescedReplica
from meshd.runtime.base import ReplicaNotFound, RuntimeFailure
from meshd.spec.model import BackupHooks, ContainerHook
from meshd.store.events import EventLog
from meshd.store.quiesced import QuiescedLog

_log = structlog.stdlib.get_logger(__name__)
RETRY: Final = 5.0
"""Seconds between two attempts to resume a replica: it may refuse writes until one succeeds."""
LINES: Final = 5
"""Last lines of output of a failed command that are part of the reason."""


class CommandFailed(RuntimeFailure):
    """A command ended with another exit code than 0."""


class CommandPort(Protocol):
    """Runs commands in replicas; see `meshd.reconcile.loop.Reconciler`."""

    def request(self, request: RunCommand) -> Awaitable[CommandResult]:
        """Run a command. Awaiting raises RuntimeFailure."""

    async def ready(self) -> None:
        """Return once the runtime is known."""


@dataclass(frozen=True, slots=True)
class HookTarget:
    """One running replica, and the backup hooks of its service."""

    replica: str
    project: str
    service: str
    hooks: BackupHooks


class Quiescer:
    """The replicas that backups have quiesced."""

    def __init__(
        self,
        reconciler: CommandPort,
        log: QuiescedLog,
        events: EventLog,
        clock: Callable[[], float],
    ) -> None:
        self._reconciler = reconciler
        self._quiesced = log
        self._events = events
        self._clock = clock
        self._active: set[str] = set()
        self._resuming = asyncio.Lock()

    def problems(self, volume: str) -> tuple[str, ...]:
        """Return the replicas that a backup of a volume could not resume, with the reasons."""
        return tuple(
            f"{each.replica}: {each.problem}"
            for each in self._quiesced.read()
            if each.volume == volume and each.problem
        )

    @asynccontextmanager
    async def quiesced(self, volume: str, targets: Sequence[HookTarget]) -> AsyncIterator[None]:
        """Quiesce replicas until the end of the block. Raises Rejected if one fails; `resume` runs
        in each whose `quiesce` was begun. No replica may be in two blocks at the same time."""
        names = {target.replica for target in targets}
        async with self._resuming:  # `run` must not resume a replica that is quiesced here
            self._active |= names
        try:
            for target in targets:
                try:
                    await self._quiesce(volume, target)
                except RuntimeFailure as error:
                    raise Rejected(
                        f"volume {volume} was not backed up: quiesce in {target.replica}: {error}"
                    ) from error
            yield
        finally:
            work = asyncio.ensure_future(self._resume_all(names))
            try:
                await asyncio.shield(work)
            finally:  # it continues if the client has gone
                await asyncio.gather(work, return_exceptions=True)

    async def run(self) -> None:
        """Resume what an earlier control process left quiesced, and repeat what failed."""
        await self._reconciler.ready()
        while True:
            async with self._resuming:
                for stored in self._quiesced.read():
                    if stored.replica not in self._active:
                        await self._resume(stored, late=True)
            await asyncio.sleep(RETRY)

    async def _quiesce(self, volume: str, target: HookTarget) -> None:
        """Quiesce one replica, which is stored before. Raises RuntimeFailure."""
        hooks = target.hooks
        stored = QuiescedReplica(
            replica=target.replica,
            project=target.project,
            service=target.service,
            volume=volume,
            resume=hooks.resume,
            user=hooks.user,
            timeout=hooks.timeout,
        )
        if hooks.resume:
            self._store_unfinished(stored)
        try:
            await self._execute(target.replica, hooks.quiesce, hooks.user, hooks.timeout)
        except (CommandFailed, ReplicaNotFound):
            if hooks.resume:
                self._quiesced.keep(stored)
            raise
        except RuntimeFailure:  # it may still run
            if hooks.resume:
                self._store_unfinished(stored)
            raise
        if hooks.resume:
            self._quiesced.keep(stored)

    def _store_unfinished(self, stored: QuiescedReplica) -> None:
        """Store a replica whose `quiesce` may run for its time limit from now on."""
        until = self._clock() + stored.timeout
        self._quiesced.keep(msgspec.structs.replace(stored, quiesces_until=until))

    async def _resume_all(self, names: set[str]) -> None:
        try:
            for stored in reversed(self._quiesced.read()):
                if stored.replica in names:
                    await self._resume(stored)
        finally:
            self._active -= names

    async def _resume(self, stored: QuiescedReplica, late: bool = False) -> None:
        """Resume one replica; `late`: not at the end of its backup. An error is an event, and kept
        for the next attempt."""
        name = stored.replica
        try:
            await self._execute(name, stored.resume, stored.user, stored.timeout)
        except ReplicaNotFound:
            _log.info("a quiesced replica does not run any more", replica=name)
        except RuntimeFailure as error:
            self._take_problem(stored, f"resume: {error}")
            return
        else:
            if self._clock() < stored.quiesces_until:
                return  # `run` repeats it, because `quiesce` may end after this
            if late:
                text = f"{name} was resumed after a backup of volume {stored.volume}"
                self._record(Kind.VOLUME_RESUMED, stored, text)
        with suppress(StoreWriteError):  # `run` resumes it again
            self._quiesced.remove(name)

    def _take_problem(self, stored: QuiescedReplica, problem: str) -> None:
        _log.error("a replica stays quiesced", replica=stored.replica, reason=problem)
        if problem == stored.problem:
            return
        text = (
            f"{stored.replica} stays quiesced after a backup of volume {stored.volume}: {problem}"
        )
        self._record(Kind.VOLUME_RESUME_FAILED, stored, text)
        with suppress(StoreWriteError):  # it is stored without the reason
            self._quiesced.keep(msgspec.structs.replace(stored, problem=problem))

    async def _execute(
        self, name: str, command: tuple[str, ...], user: str, seconds: float
    ) -> None:
        """Run a command in a replica. Raises RuntimeFailure if it fails."""
        hook = ContainerHook(command=command, user=user)
        result = await self._reconciler.request(RunCommand(name, hook, seconds))
        if result.exit_code:
            output = "; ".join(result.lines[-LINES:])
            text = f"{' '.join(command)!r} exited with code {result.exit_code}: {output}"
            raise CommandFailed(text)

    def _record(self, kind: Kind, stored: QuiescedReplica, text: str) -> None:
        self._events.record(
            self._clock(),
            kind,
            text,
            project=stored.project,
            service=stored.service,
            replica=stored.replica,
        )
