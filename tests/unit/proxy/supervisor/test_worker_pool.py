"""Slots of workers when processes cannot be had."""

import asyncio
import signal
from collections.abc import Callable
from typing import Any

import pytest

from proxy.ipc.config import SupervisorConfig
from proxy.ipc.sockets import open_address
from proxy.supervisor import worker_pool
from proxy.wire.report import Accepting, Ack
from proxy.wire.snapshot import Generation, Listener, Snapshot


class NoProcess:
    """A fake process that starts and does nothing."""

    pid = 1

    def __init__(self) -> None:
        self.signals: list[int] = []

    def signal(self, number: int) -> None:
        """Record a signal."""
        self.signals.append(number)


def pool(
    monkeypatch: pytest.MonkeyPatch, on_serving: Callable[[], None] = lambda: None
) -> tuple[worker_pool.WorkerPool, NoProcess]:
    """Return a pool of one worker, and the process of that worker."""
    process = NoProcess()
    monkeypatch.setattr(worker_pool, "spawn", lambda argv, on_end, **more: process)
    made = worker_pool.WorkerPool(SupervisorConfig(), lambda _: None, lambda: None, on_serving)
    made.start()
    return made, process


async def test_a_worker_serves_once_the_address_it_missed_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    complete: list[bool] = []
    made, _ = pool(monkeypatch, lambda: complete.append(made.is_complete))
    snapshot = Snapshot(Generation(1, 1))
    addresses = {name: (Listener(name), open_address("127.0.0.1:0", 1)) for name in "ab"}
    made.publish(snapshot, addresses)
    made._handle_message(1, Ack(1, snapshot.generation), -1)
    made._handle_message(1, Accepting(1, ("a",)), -1)
    assert not made.has_served
    made.publish(snapshot, {"a": addresses["a"]})
    assert (made.has_served, complete[-1]) == (True, True)
    made.close()
    for _, listening in addresses.values():
        listening.close()


async def test_a_worker_has_time_to_end_after_the_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    made, process = pool(monkeypatch)
    made.drain(0.0)
    made.tick(paused=False)
    assert process.signals == []
    monkeypatch.setattr(made, "_now", lambda: asyncio.get_running_loop().time() + 3.0)
    made.tick(paused=False)
    assert process.signals == [signal.SIGKILL]
    made.close()


@pytest.mark.parametrize("refusals", [1, 3])
async def test_a_worker_that_cannot_be_started_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, refusals: int
) -> None:
    tried: list[list[str]] = []

    def spawn(argv: list[str], on_end: Callable[[int], None], **more: Any) -> NoProcess:
        tried.append(argv)
        if len(tried) <= refusals:
            raise OSError(11, "Resource temporarily unavailable")
        return NoProcess()

    monkeypatch.setattr(worker_pool, "spawn", spawn)
    started = asyncio.Event()
    made = worker_pool.WorkerPool(SupervisorConfig(), lambda _: None, started.set, lambda: None)
    made.start()
    await asyncio.wait_for(started.wait(), 5)
    assert len(tried) == refusals + 1
    assert made.live == (refusals + 1,)
    made.close()
