"""Several control processes and one lease, in virtual time: never two lead, and one soon does."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import msgspec
import pytest

from meshd.daemon.leadership import Leadership, LeaseLost
from meshd.runtime.base import RuntimeFailure, RuntimeUnavailable
from meshd.runtime.lease import LeaseRecord, LeaseState
from tests.fakes import virtual


@dataclass
class FakeSwarm:
    """A lease with versions, as a Swarm keeps it. `cut` has the processes without a manager."""

    record: LeaseRecord | None = None
    version: int = 0
    stored: dict[str, bytes] = field(default_factory=dict)
    cut: set[str] = field(default_factory=set)


class FakeKeeper:
    """The lease as one process sees it; each call takes a while before and after it has effect."""

    def __init__(self, swarm: FakeSwarm, me: str, dice: random.Random) -> None:
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
        if record.version != (swarm.record.version if swarm.record else 0):
            return False
        swarm.version += self._dice.randint(1, 3)
        swarm.record = msgspec.structs.replace(record, version=swarm.version)
        await self._lag()
        return True

    async def save(self, content: bytes) -> str:
        await self._lag()
        self._swarm.stored[content.decode()] = content
        return content.decode()

    async def load(self, place: str) -> bytes:
        await self._lag()
        if place not in self._swarm.stored:
            raise RuntimeFailure("it was removed")
        return self._swarm.stored[place]

    async def clean(self, place: str) -> None:
        await self._lag()
        self._swarm.stored = {place: self._swarm.stored[place]}


class Process:
    """A control process that leads, writes what it did, and stands by again when it lost."""

    def __init__(self, swarm: FakeSwarm, name: str, dice: random.Random) -> None:
        self.name = name
        self.lead: Leadership | None = None
        self.restored: list[bytes | None] = []
        self.content = name
        self._swarm = swarm
        self._dice = dice
        self.task = asyncio.ensure_future(self.run())

    async def run(self) -> None:
        while True:
            keeper = FakeKeeper(self._swarm, self.name, self._dice)
            self.lead = lead = Leadership(keeper, self.name, self.name, virtual.clock)
            self.restored.append(await lead.acquire())
            try:
                await lead.keep(self.encoded)
            except LeaseLost:
                await asyncio.sleep(self._dice.uniform(0.1, 1.0))

    def encoded(self) -> bytes:
        return self.content.encode()

    @property
    def acts(self) -> bool:
        return self.lead is not None and self.lead.remaining() > 0.0

    async def kill(self) -> None:
        self.lead = None
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        await main()

    virtual.run(whole())


async def watch(processes: list[Process], seconds: float) -> float:
    """Let time pass; return the longest time without a leader. Two at once fail the test."""
    longest = without = 0.0
    for _ in range(round(seconds / 0.05)):
        await asyncio.sleep(0.05)
        leaders = [each.name for each in processes if each.acts]
        assert len(leaders) < 2, leaders
        without = 0.0 if leaders else without + 0.05
        longest = max(longest, without)
        for each in processes:
            if each.task.done():
                each.task.result()
    return longest


@pytest.mark.parametrize("seed", range(8))
def test_never_do_two_lead(seed: int) -> None:
    """Processes are killed, started again and cut from the Swarm at random."""

    async def main() -> None:
        dice, swarm = random.Random(seed), FakeSwarm()
        processes = [Process(swarm, name, dice) for name in "abc"]
        tokens = []
        for _ in range(25):
            await watch(processes, dice.uniform(0.5, 8.0))
            tokens.append(swarm.record.token if swarm.record else 0)
            number = dice.randrange(3)
            name = "abc"[number]
            match dice.randrange(3):
                case 0:
                    await processes[number].kill()
                    await asyncio.sleep(0)
                    processes[number] = Process(swarm, name, dice)
                case 1:
                    swarm.cut.add(name)
                case _:
                    swarm.cut.clear()
        swarm.cut.clear()
        await watch(processes, 12.0)
        assert any(each.acts for each in processes)
        assert tokens == sorted(tokens)
        for each in processes:
            await each.kill()

    run(main)


def test_another_process_takes_over_with_the_state_of_the_leader() -> None:
    async def main() -> None:
        dice, swarm = random.Random(1), FakeSwarm()
        first = Process(swarm, "a", dice)
        await watch([first], 2.0)
        second = Process(swarm, "b", dice)
        first.content = "three services"
        await watch([first, second], 3.0)
        assert first.acts
        assert second.lead is not None
        assert (second.lead.state, second.lead.leader) == (LeaseState.STANDBY, "a")
        await first.kill()
        assert await watch([second], 6.0) < 5.0
        assert second.restored == [b"three services"]
        await second.kill()
        third = Process(swarm, "b", dice)
        await watch([third], 2.0)
        assert third.acts, "the same process need not wait"
        assert third.restored == [None], "its own state is the newest"
        await third.kill()

    run(main)


def test_a_lease_that_is_released_is_taken_at_once() -> None:
    async def main() -> None:
        dice, swarm = random.Random(2), FakeSwarm()
        first = Process(swarm, "a", dice)
        await watch([first], 2.0)
        second = Process(swarm, "b", dice)
        await watch([first, second], 2.0)
        first.task.cancel()
        await asyncio.gather(first.task, return_exceptions=True)
        assert first.lead is not None
        await first.lead.release()
        assert first.lead.remaining() == 0.0
        assert await watch([second], 4.0) < 2.0
        assert second.acts
        await first.lead.release()
        await second.kill()

    run(main)


def test_a_leader_without_a_manager_stops_in_time() -> None:
    async def main() -> None:
        dice, swarm = random.Random(3), FakeSwarm()
        first, second = Process(swarm, "a", dice), Process(swarm, "b", dice)
        await watch([first, second], 3.0)
        leader, other = (first, second) if first.acts else (second, first)
        swarm.cut.add(leader.name)
        assert await watch([first, second], 8.0) < 5.0
        assert other.acts
        swarm.cut.clear()
        await watch([first, second], 5.0)
        assert other.acts
        for each in (first, second):
            await each.kill()

    run(main)
