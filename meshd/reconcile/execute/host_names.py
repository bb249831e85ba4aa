"""Keeps the names of mesh-managed services in running replicas current.

Owned by the reconciler, which gives the wanted names after each pass. A replica gets its names when
it starts; here they follow a service that is added, or that changes between plain and mesh-managed.
A runtime that cannot change them leaves them as they are.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from meshd.runtime.base import RuntimeFailure

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class HostNames:
    """The names that a replica should know.

    - `incarnation`: identifies the running container; a restarted one has a new hosts file.
    - `names`: addresses by name; `blocks`: the networks that all these addresses are in.
    """

    incarnation: tuple[str, float]
    names: Mapping[str, str] = field(default_factory=dict)
    blocks: tuple[str, ...] = ()


class HostNamesWriter:
    """Writes names that changed, one replica after another. `write` changes those of a running
    replica; it may raise RuntimeFailure."""

    def __init__(
        self, write: Callable[[str, Mapping[str, str], Sequence[str]], Awaitable[None]]
    ) -> None:
        self._write = write
        self._written: dict[str, HostNames] = {}
        self._wanted: Mapping[str, HostNames] = {}
        self._task: asyncio.Task[None] | None = None

    def set_wanted(self, wanted: Mapping[str, HostNames]) -> None:
        """Take the names by replica; write those that changed."""
        self._wanted = wanted
        self._written = {name: one for name, one in self._written.items() if name in wanted}
        if self._written != wanted and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._write_all())

    async def close(self) -> None:
        """Stop writing."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _write_all(self) -> None:
        while True:
            wanted = self._wanted
            changed = {n: one for n, one in wanted.items() if self._written.get(n) != one}
            if not changed:
                return
            for name, one in changed.items():
                try:
                    await self._write(name, one.names, one.blocks)
                except RuntimeFailure as error:
                    _log.debug("names in a replica stay", replica=name, reason=str(error))
                self._written[name] = one
