"""A lease in a Swarm and the states of its holders, for tests in virtual time."""

import asyncio
import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from meshd.model.errors import StoreWriteError
from meshd.runtime.base import RuntimeFailure, RuntimeUnavailable
from meshd.runtime.lease import LeaseRecord
from meshd.store.schema import SchemaTooNew


@dataclass
class LeaseInSwarm:
    """A lease with versions, as a Swarm keeps it.

    - `cut`: the processes without a manager.
    - `on_write`: called after each write that takes effect.
    - `lost_answers`: how many of the next writes take effect without an answer.
    - `late_writes`: how many of the next writes come after one that was given up.
    - `failing_loads`: how many of the next loads fail.
    """

    record: LeaseRecord | None = None
    version: int = 0
    stored: dict[str, bytes] = field(default_factory=dict)
    cut: set[str] = field(default_factory=set)
    on_write: Callable[[], None] = lambda: None
    lost_answers: int = 0
    late_writes: int = 0
    failing_loads: int = 0

    def content(self) -> set[str]:
        """Return the changes in the state that the lease names."""
        assert self.record is not None
        return read_changes(self.stored[self.record.records])


def read_changes(content: bytes) -> set[str]:
    """Return the changes in a state of `StateOfProcess`."""
    return set(content.decode().split())


class StateOfProcess:
    """The state of one process on its disk: it survives the process. `changes` is what is in it.

    - `later_version`: whether it was written by a version that others do not know.
    - `is_writable`: whether the disk takes anything.
    """

    def __init__(self) -> None:
        self.changes: set[str] = set()
        self.current = 0
        self.later_version = False
        self.is_writable = True
        self.taken: list[set[str] | None] = []

    def token(self) -> int:
        return self.current

    def dump(self) -> bytes:
        version = ["later"] if self.later_version else []
        return " ".join([*version, *sorted(self.changes)]).encode()

    def take_over(self, content: bytes | None, token: int) -> None:
        if not self.is_writable:
            raise StoreWriteError("the disk is full")
        changes = None if content is None else read_changes(content)
        if changes is not None and "later" in changes:
            raise SchemaTooNew("upgrade meshd on this host")
        self.taken.append(changes)
        self.current = token
        if changes is not None:
            self.changes = changes


class KeeperOfProcess:
    """The lease as one process sees it; each call takes a while before and after it has effect."""

    def __init__(self, swarm: LeaseInSwarm, me: str, dice: random.Random) -> None:
        self._swarm = swarm
        self._me = me
        self._dice = dice

    async def _lag(self) -> None:
        await asyncio.sleep(self._dice.uniform(0.0, 0.15))
        if self._me in self._swarm.cut:
            await asyncio.sleep(self._dice.uniform(0.0, 4.0))
            raise RuntimeUnavailable("no manager answers")

    async def read(self) -> LeaseRecord | None:
        await self._lag()
        found = self._swarm.record
        await self._lag()
        return found

    async def write(self, record: LeaseRecord) -> bool:
        await self._lag()
        swarm = self._swarm
        if swarm.late_writes and swarm.record is not None:
            swarm.late_writes -= 1
            swarm.version += 1
            swarm.record = msgspec.structs.replace(swarm.record, version=swarm.version)
        if record.version != (swarm.record.version if swarm.record else 0):
            return False
        swarm.version += self._dice.randint(1, 3)
        swarm.record = msgspec.structs.replace(record, version=swarm.version)
        swarm.on_write()
        if swarm.lost_answers:
            swarm.lost_answers -= 1
            raise RuntimeUnavailable("the connection was closed")
        await self._lag()
        return True

    async def save(self, content: bytes) -> str:
        await self._lag()
        place = hashlib.sha256(content).hexdigest()
        self._swarm.stored[place] = content
        return place

    async def load(self, place: str) -> bytes:
        await self._lag()
        if self._swarm.failing_loads:
            self._swarm.failing_loads -= 1
            raise RuntimeUnavailable("the connection was closed")
        if place not in self._swarm.stored:
            raise RuntimeFailure("it was removed")
        return self._swarm.stored[place]

    async def own_node(self) -> str:
        return self._me

    async def clean(self, place: str) -> None:
        await self._lag()
        self._swarm.stored = {place: self._swarm.stored[place]}
