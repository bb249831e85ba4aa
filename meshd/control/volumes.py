"""Lists, backs up, restores and deletes volumes; stops the services that use them meanwhile.

Implements `meshd.api.port.VolumeControl`; made by `meshd.daemon.wiring`. A hold of a service is not
stored, so the services start again whatever happens to this process. A service with backup hooks is
not stopped for a backup: `meshd.control.quiescer` runs them.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Final

from meshd.api.dto import VolumeStatus
from meshd.api.responses import closing
from meshd.control.quiescer import HookTarget, Quiescer
from meshd.model.desired import DesiredService
from meshd.model.errors import NotFound, Rejected
from meshd.model.event import Kind
from meshd.model.operation import RemoveVolume, RestoreVolume
from meshd.model.request import DiscardStaged, HoldServices, ReleaseServices, StageVolume
from meshd.model.volume import RuntimeVolume, named_volumes
from meshd.reconcile.loop import Reconciler
from meshd.runtime.base import Runtime, RuntimeFailure
from meshd.spec.model import BackupHooks
from meshd.store.events import EventLog
from meshd.store.store import Store

POLL: Final = 0.1
"""Seconds between two looks at whether the containers with a volume have ended."""
STOP_MARGIN: Final = 60.0
"""Seconds that services may take to end, beyond their drain deadline and grace period."""


class VolumeManager:
    """The volumes of the runtime, as `meshd volume` shows them."""

    def __init__(
        self,
        runtime: Runtime,
        store: Store,
        reconciler: Reconciler,
        quiescer: Quiescer,
        events: EventLog,
        clock: Callable[[], float],
    ) -> None:
        self._runtime = runtime
        self._store = store
        self._reconciler = reconciler
        self._quiescer = quiescer
        self._events = events
        self._clock = clock
        self._busy: set[str] = set()

    async def all(self) -> Sequence[VolumeStatus]:
        """See `VolumeControl.all`."""
        return [self._status(volume) for volume in await self._runtime.volumes()]

    async def read(self, name: str, live: bool, who: str) -> AsyncIterator[bytes]:
        """See `VolumeControl.read`."""
        volume = await self._find(name)
        found = () if live else self._keys_to_stop(volume)
        hooks = self._hooks_of(found)
        keys = tuple(key for key in found if key not in hooks)
        size, complete = 0, False
        with self._alone(volume.name, *hooks):
            try:
                async with (
                    self._stopped(volume.name, keys, kept=hooks),
                    self._quiesced(volume.name, hooks),
                    closing(self._runtime.read_volume(volume.name)) as chunks,
                ):
                    async for chunk in chunks:
                        size += len(chunk)
                        yield chunk
                complete = True
            finally:
                result = f"{size} bytes" if complete else "not completed"
                text = f"backup of volume {volume.name} by {who}: {result}"
                self._record(Kind.VOLUME_BACKUP, volume, text)

    async def check_restore(self, name: str, force: bool) -> str:
        """See `VolumeControl.check_restore`."""
        volume = await self._find(name)
        self._keys_to_stop(volume)
        replaces = force or volume.incomplete
        if not replaces and not await self._runtime.is_volume_empty(volume.name):
            raise Rejected(f"volume {volume.name} is not empty; --force replaces its content")
        return volume.name

    async def restore(self, name: str, data: AsyncIterator[bytes], force: bool, who: str) -> None:
        """See `VolumeControl.restore`."""
        await self.check_restore(name, force)
        volume = await self._find(name)
        with self._alone(volume.name):
            await self._reconciler.request(StageVolume(volume.name, data))
            work = asyncio.ensure_future(self._commit(volume, who))
            try:
                await asyncio.shield(work)
            finally:  # the copy continues if the client has gone
                await asyncio.gather(work, return_exceptions=True)

    async def _commit(self, volume: RuntimeVolume, who: str) -> None:
        """Replace the content by what was staged, with the services stopped."""
        cause = f"restored by {who}"
        try:
            async with self._stopped(volume.name, self._keys_to_stop(volume), removed=True):
                await self._reconciler.request(RestoreVolume(name=volume.name, cause=cause))
        except (Rejected, RuntimeFailure):
            if not (await self._find(volume.name)).incomplete:
                await self._reconciler.request(DiscardStaged(volume.name))
            raise
        self._record(Kind.VOLUME_RESTORE, volume, f"volume {volume.name} {cause}")

    async def remove(self, name: str, who: str) -> None:
        """See `VolumeControl.remove`."""
        volume = await self._find(name)
        if services := self._services_of(volume.name):
            keys = ", ".join(sorted(each.key for each in services))
            raise Rejected(f"volume {volume.name} is used by {keys}; take the project down first")
        with self._alone(volume.name):
            await self._reconciler.request(RemoveVolume(name=volume.name, cause=f"by {who}"))
            self._record(Kind.VOLUME_REMOVED, volume, f"volume {volume.name} deleted by {who}")

    @asynccontextmanager
    async def _quiesced(self, name: str, hooks: Mapping[str, BackupHooks]) -> AsyncIterator[None]:
        """Quiesce the replicas that run with the volume until the end of the block. Raises Rejected
        if that fails, or if another replica started to run with the volume meanwhile."""
        if not hooks:
            yield
            return
        before = await self._targets(name, hooks)
        async with self._quiescer.quiesced(name, before):
            yield
            after = await self._targets(name, hooks)
            started = {each.replica for each in after} - {each.replica for each in before}
            if started:
                raise Rejected(
                    f"{', '.join(sorted(started))} started during the backup of volume {name} and "
                    "was not quiesced; back it up again"
                )

    async def _targets(self, name: str, hooks: Mapping[str, BackupHooks]) -> list[HookTarget]:
        """Return the replicas that run with the volume, of services with backup hooks."""
        running = (await self._find(name)).running
        return [
            HookTarget(each.name, each.project, each.service, hooks[each.key])
            for each in self._reconciler.view().observed.replicas
            if each.name in running and each.key in hooks
        ]

    def _hooks_of(self, keys: Collection[str]) -> dict[str, BackupHooks]:
        """Return the backup hooks of those of these services that have them."""
        return {
            f"{name}/{service}": hooks
            for name, stored in self._store.projects.items()
            for service, hooks in stored.project.backups.items()
            if f"{name}/{service}" in keys
        }

    @asynccontextmanager
    async def _stopped(
        self,
        name: str,
        keys: tuple[str, ...],
        removed: bool = False,
        kept: Collection[str] = (),
    ) -> AsyncIterator[None]:
        """Hold services until the end of the block, which begins once no container with the volume
        runs (`removed`: exists), except those of the services `kept`. Raises Rejected if that takes
        too long."""
        self._reconciler.request(HoldServices(keys))
        try:
            if keys:
                seconds = max(map(self._seconds_to_stop, keys))
                try:
                    async with asyncio.timeout(seconds):
                        while await self._users(name, removed, kept):  # noqa: ASYNC110 (state)
                            await asyncio.sleep(POLL)
                except TimeoutError as error:
                    users = ", ".join(await self._users(name, removed, kept))
                    raise Rejected(
                        f"{users} did not end within {seconds:.0f} s; volume {name} is unchanged"
                    ) from error
            yield
        finally:
            self._reconciler.request(ReleaseServices(keys))

    def _seconds_to_stop(self, key: str) -> float:
        service = self._reconciler.view().services.get(key)
        if service is None:
            return STOP_MARGIN
        spec = service.spec
        return spec.mesh.drain.requests + spec.stop_grace_period + STOP_MARGIN

    async def _users(self, name: str, removed: bool, kept: Collection[str]) -> tuple[str, ...]:
        volume = await self._find(name)
        found = volume.containers if removed else volume.running
        replicas = self._reconciler.view().observed.replicas
        stay = {each.name for each in replicas if each.key in kept}
        return tuple(user for user in found if user not in stay)

    def _services_of(self, name: str) -> list[DesiredService]:
        """Return the services that mount a volume."""
        return [
            service
            for service in self._reconciler.view().desired.services
            if name in named_volumes(service.project, service.spec.volumes)
        ]

    def _keys_to_stop(self, volume: RuntimeVolume) -> tuple[str, ...]:
        """Return the services to hold. Raises Rejected if something else runs with the volume."""
        services = [each for each in self._services_of(volume.name) if not each.adopted]
        keys = {each.key for each in services}
        known = {each.name: each.key for each in self._reconciler.view().observed.replicas}
        others = [name for name in volume.running if known.get(name) not in keys]
        if others:
            raise Rejected(
                f"volume {volume.name} is used by {', '.join(others)}, which meshd does not "
                "manage; stop it first"
            )
        return tuple(sorted(keys))

    @contextmanager
    def _alone(self, name: str, *quiesced: str) -> Iterator[None]:
        """Allow one operation on a volume at a time, and one that has a service quiesced. Raises
        Rejected."""
        if name in self._busy:
            raise Rejected(f"volume {name} is being backed up or restored; try again later")
        if busy := self._busy.intersection(quiesced):
            raise Rejected(
                f"{', '.join(sorted(busy))} is quiesced for the backup of another volume; try "
                "again later"
            )
        self._busy.update((name, *quiesced))
        try:
            yield
        finally:
            self._busy.difference_update((name, *quiesced))

    async def _find(self, name: str) -> RuntimeVolume:
        """Return a volume by its name on the runtime, by the name in the Compose file if only one
        project has it, or by PROJECT/NAME. Raises NotFound."""
        volumes = {volume.name: volume for volume in await self._runtime.volumes()}
        if name in volumes:
            return volumes[name]
        project, _, key = name.rpartition("/")
        matches = {
            engine_name
            for service in self._reconciler.view().desired.services
            for engine_name, mount in named_volumes(service.project, service.spec.volumes).items()
            if mount.source == key and project in ("", service.project)
        }
        kept = {  # those that no service mentions any more
            volume.name
            for volume in volumes.values()
            if volume.name == f"{volume.project}_{key}" and project in ("", volume.project)
        }
        found = sorted(matches & volumes.keys() or kept)
        if len(found) == 1:
            return volumes[found[0]]
        if found:
            raise NotFound(f"{name!r} is ambiguous: {', '.join(found)}; use one of these names")
        known = ", ".join(volumes) or "none"
        raise NotFound(f"there is no volume {name!r}; known: {known}")

    def _status(self, volume: RuntimeVolume) -> VolumeStatus:
        services = self._services_of(volume.name)
        problems = self._quiescer.problems(volume.name)
        state = "not resumed" if problems else "used" if services else "unused"
        return VolumeStatus(
            name=volume.name,
            project=volume.project or next((each.project for each in services), ""),
            services=tuple(sorted(each.key for each in services)),
            containers=volume.containers,
            driver=volume.driver,
            state="incomplete" if volume.incomplete else state,
            external=any(
                named_volumes(each.project, each.spec.volumes)[volume.name].external
                for each in services
            ),
            resume_problems=problems,
        )

    def _record(self, kind: Kind, volume: RuntimeVolume, text: str) -> None:
        self._events.record(self._clock(), kind, text, project=volume.project)
