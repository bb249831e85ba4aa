"""Slots of workers when processes cannot be had."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from proxy.ipc.config import SupervisorConfig
from proxy.supervisor import worker_pool


class NoProcess:
    """A fake process that starts and does nothing."""

    pid = 1

    def signal(self, number: int) -> None:
        """Nothing to tell it to."""


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
