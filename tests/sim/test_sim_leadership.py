"""Several control processes and one lease, in virtual time: never two lead, one soon does, and no
change that was stored is lost."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from meshd.daemon.leadership import Leadership, LeaseLost
from meshd.runtime.lease import DURATION, LeaseRecord, LeaseState
from tests.fakes import virtual
from tests.fakes.lease import KeeperOfProcess, LeaseInSwarm, StateOfProcess


class Process:
    """A control process that leads, writes what it did, and stands by again when it lost. `state`
    is that of a process before."""

    def __init__(
        self,
        swarm: LeaseInSwarm,
        name: str,
        dice: random.Random,
        state: StateOfProcess | None = None,
    ) -> None:
        self.name = name
        self.lead: Leadership | None = None
        self.state = state or StateOfProcess()
        self._swarm = swarm
        self._dice = dice
        self.task = asyncio.ensure_future(self.run())

    async def run(self) -> None:
        while True:
            keeper = KeeperOfProcess(self._swarm, self.name, self._dice)
            self.lead = lead = Leadership(keeper, self.name, self.name, virtual.clock)
            await lead.acquire(self.state)
            try:
                await lead.keep(self.state.dump)
            except LeaseLost:
                await asyncio.sleep(self._dice.uniform(0.1, 1.0))

    @property
    def acts(self) -> bool:
        return self.lead is not None and self.lead.remaining() > 0.0

    async def kill(self) -> None:
        self.lead = None
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def end(self) -> None:
        """End in order."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        assert self.lead is not None
        await self.lead.hand_over(self.state.dump)
        assert self.lead.remaining() == 0.0


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


@pytest.mark.parametrize("seed", range(12))
def test_never_do_two_lead_and_no_change_is_lost(seed: int) -> None:
    """Processes are killed, ended, started again and cut from the Swarm at random; answers are
    lost, and the state of the leader before cannot be loaded. The leader changes its state."""

    async def main() -> None:
        dice, swarm = random.Random(seed), LeaseInSwarm()
        processes = [Process(swarm, name, dice) for name in "abc"]
        tokens, stored = [], set[str]()
        for step in range(40):
            for _ in range(dice.randint(1, 8)):
                await watch(processes, dice.uniform(0.2, 1.0))
                if swarm.record is not None and swarm.record.records:
                    found = swarm.content()
                    assert stored <= found, f"lost in step {step}: {stored - found}"
                    stored = found
                for each in processes:
                    if each.acts:
                        each.state.changes.add(f"{step}{each.name}")
            tokens.append(swarm.record.token if swarm.record else 0)
            number = dice.randrange(3)
            process = processes[number]
            match dice.randrange(6):
                case 0:
                    await process.kill()
                    processes[number] = Process(swarm, process.name, dice, process.state)
                case 1:
                    await process.end()
                    processes[number] = Process(swarm, process.name, dice, process.state)
                case 2:
                    swarm.cut.add(process.name)
                case 3:
                    swarm.lost_answers += 1
                case 4:
                    swarm.failing_loads += 1
                case _:
                    swarm.cut.clear()
        swarm.cut.clear()
        await watch(processes, 12.0)
        assert any(each.acts for each in processes)
        assert tokens == sorted(tokens)
        assert stored <= swarm.content()
        for each in processes:
            await each.kill()

    run(main)


def test_another_process_takes_over_with_the_state_of_the_leader() -> None:
    async def main() -> None:
        dice, swarm = random.Random(1), LeaseInSwarm()
        first = Process(swarm, "a", dice)
        await watch([first], 2.0)
        second = Process(swarm, "b", dice)
        first.state.changes.add("shop")
        await watch([first, second], 3.0)
        assert first.acts
        assert second.lead is not None
        assert (second.lead.state, second.lead.leader) == (LeaseState.STANDBY, "a")
        await first.kill()
        assert await watch([second], 6.0) < 5.0
        assert second.state.taken == [{"shop"}]
        await second.kill()

    run(main)


def test_a_leader_that_is_started_again_has_the_newest_state() -> None:
    """It stored a change that it had no time to put next to the lease."""

    async def main() -> None:
        dice, swarm = random.Random(1), LeaseInSwarm()
        first = Process(swarm, "a", dice)
        await watch([first], 2.0)
        swarm.cut.add("a")
        await watch([first], 0.5)
        first.state.changes.add("shop")
        await first.kill()
        swarm.cut.clear()
        assert swarm.content() == set()
        token = swarm.record.token if swarm.record else 0
        again = Process(swarm, "a", dice, first.state)
        others = set()
        while not again.acts:
            others.add(again.lead.leader if again.lead else "")
            await asyncio.sleep(0.01)
        assert others == {""}, "no other process leads"
        await watch([again], 2.0)
        assert again.acts, "it need not wait"
        assert again.state.changes == {"shop"}
        assert swarm.content() == {"shop"}
        assert swarm.record is not None
        assert swarm.record.token == token, "it is the same leader"
        await again.kill()

    run(main)


async def leader_with_changes(swarm: LeaseInSwarm, dice: random.Random) -> None:
    """Let a leader store a change and end in order."""
    leader = Process(swarm, "a", dice)
    await watch([leader], 2.0)
    leader.state.changes.add("shop")
    await watch([leader], 2.0)
    await leader.end()
    assert swarm.content() == {"shop"}


@pytest.mark.parametrize("fault", ["load", "answer", "disk"])
def test_a_takeover_that_fails_is_repeated_with_the_state(fault: str) -> None:
    """The state cannot be loaded, the answer to the write of the lease is lost, or the state cannot
    be stored."""

    async def main() -> None:
        dice, swarm = random.Random(5), LeaseInSwarm()
        await leader_with_changes(swarm, dice)
        swarm.failing_loads, swarm.lost_answers = int(fault == "load"), int(fault == "answer")
        second = Process(swarm, "b", dice)
        second.state.changes.add("outdated")
        second.state.is_writable = fault != "disk"
        await watch([second], 1.2)
        second.state.is_writable = True
        await watch([second], 4.0)
        assert second.acts
        assert second.state.changes == swarm.content() == {"shop"}
        await second.kill()

    run(main)


def test_a_process_that_ends_between_the_lease_and_its_answer_takes_over_again() -> None:
    async def main() -> None:
        dice, swarm = random.Random(6), LeaseInSwarm()
        await leader_with_changes(swarm, dice)
        second = Process(swarm, "b", dice)
        second.state.changes.add("outdated")
        while swarm.record is None or swarm.record.holder != "b":
            await asyncio.sleep(0.01)
        assert not second.acts
        await second.kill()
        again = Process(swarm, "b", dice, second.state)
        await watch([again], 4.0)
        assert again.acts
        assert again.state.changes == swarm.content() == {"shop"}
        await again.kill()

    run(main)


def test_a_state_from_before_tokens_were_stored_is_not_taken_for_the_newest() -> None:
    """Its lease expires first: that it is of this process says nothing about its state."""

    async def main() -> None:
        dice, swarm = random.Random(7), LeaseInSwarm()
        swarm.stored["shop"] = b"shop"
        swarm.record = LeaseRecord("a", "a", 4, 9, "shop", 1)
        swarm.version = 1
        upgraded = Process(swarm, "a", dice)
        upgraded.state.changes.add("outdated")
        assert await watch([upgraded], 6.0) >= DURATION
        assert upgraded.acts
        assert upgraded.state.changes == swarm.content() == {"shop"}
        await upgraded.kill()

    run(main)


def test_an_older_version_leaves_the_lease_to_others() -> None:
    async def main() -> None:
        dice, swarm = random.Random(8), LeaseInSwarm()
        newer = Process(swarm, "a", dice)
        newer.state.later_version = True
        await watch([newer], 2.0)
        await newer.end()
        older = Process(swarm, "b", dice)
        await watch([older], 10.0)
        assert older.lead is not None
        assert older.lead.problem == "upgrade meshd on this host"
        assert swarm.record is not None
        assert (swarm.record.holder, swarm.record.token) == ("", 1)
        again = Process(swarm, "a", dice, newer.state)
        newer.state.take_over = lambda _content, token: None  # type: ignore[method-assign]
        await watch([older, again], 4.0)
        assert again.acts
        assert older.lead.problem == ""
        for each in (older, again):
            await each.kill()

    run(main)


def test_a_disk_that_is_full_keeps_no_leader_from_its_own_lease() -> None:
    async def main() -> None:
        dice, swarm = random.Random(9), LeaseInSwarm()
        state = StateOfProcess()
        state.is_writable = False
        first = Process(swarm, "a", dice, state)
        await watch([first], 2.0)
        assert first.acts, "there is no other state"
        await first.end()

    run(main)


def test_a_lease_that_is_handed_over_is_taken_at_once_with_the_last_changes() -> None:
    async def main() -> None:
        dice, swarm = random.Random(2), LeaseInSwarm()
        first = Process(swarm, "a", dice)
        await watch([first], 2.0)
        second = Process(swarm, "b", dice)
        await watch([first, second], 2.0)
        first.state.changes.add("shop")
        swarm.late_writes = 1
        await first.end()
        assert await watch([second], 4.0) < 2.0
        assert second.acts
        assert second.state.changes == {"shop"}
        assert first.lead is not None
        await first.lead.hand_over(first.state.dump)
        assert swarm.record is not None
        assert swarm.record.holder == "b"
        await second.kill()

    run(main)


def test_a_process_that_ends_while_it_takes_over_lets_others_lead_at_once() -> None:
    async def main() -> None:
        dice, swarm = random.Random(4), LeaseInSwarm()
        await leader_with_changes(swarm, dice)
        second = Process(swarm, "b", dice)
        while swarm.record is None or swarm.record.holder != "b":
            await asyncio.sleep(0.01)
        await second.end()
        assert swarm.record.holder == ""
        third = Process(swarm, "c", dice)
        assert await watch([third], 4.0) < 2.0
        assert third.state.changes == {"shop"}
        await third.kill()

    run(main)


def test_a_process_leads_once() -> None:
    async def main() -> None:
        dice, swarm = random.Random(4), LeaseInSwarm()
        first = Process(swarm, "a", dice)
        await watch([first], 2.0)
        await first.end()
        assert first.lead is not None
        with pytest.raises(LeaseLost, match="led before"):
            await first.lead.acquire(first.state)

    run(main)


def test_a_leader_without_a_manager_stops_in_time() -> None:
    async def main() -> None:
        dice, swarm = random.Random(3), LeaseInSwarm()
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
