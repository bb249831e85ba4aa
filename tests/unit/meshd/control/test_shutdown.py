"""The process that a shutdown ends, and since when the daemon counts as ending."""

import asyncio
import os
import signal
from types import SimpleNamespace
from typing import Any

import pytest

from meshd.control import shutdown
from meshd.control.shutdown import Shutdown
from meshd.model.errors import StoreWriteError
from tests.support.waiting import wait_until

PARENT = os.getppid()


@pytest.mark.parametrize(
    ("connected", "supervisor", "parent", "ended"),
    [
        (True, 7, PARENT, [7]),
        (True, 7, 0, [7]),
        (True, 0, PARENT, ["this process"]),
        (False, 7, PARENT, [PARENT]),  # an upgrade: the feed is down
        (False, 0, PARENT, [PARENT]),  # not connected yet
        (False, 7, PARENT + 1, ["this process"]),  # the supervisor has ended
        (False, 7, 0, ["this process"]),  # none started this process
    ],
)
async def test_a_shutdown_ends_the_supervisor(
    connected: bool,
    supervisor: int,
    parent: int,
    ended: list[object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[object] = []

    def kill(pid: int, number: int) -> None:
        assert number == signal.SIGTERM
        seen.append(pid)

    monkeypatch.setattr(shutdown.os, "kill", kill)
    monkeypatch.setattr(shutdown, "ANSWER_TIME", 0.0)
    parts: Any = SimpleNamespace(connected=connected, supervisor=supervisor, ending=False)
    down: Any = None
    each = Shutdown(parts, parts, parts, parts, down, lambda: seen.append("this process"), parent)
    await each.shutdown(stop_replicas=False)
    await wait_until(lambda: bool(seen), 5, "it ends something")
    assert seen == ended


async def test_the_daemon_is_ending_from_the_request_on() -> None:
    parts: Any = SimpleNamespace(connected=True, supervisor=7, ending=False, projects=["shop"])
    proceed = asyncio.Event()

    async def down(project: str) -> None:
        await proceed.wait()
        raise StoreWriteError("the disk is full")

    each = Shutdown(parts, parts, parts, parts, down, lambda: None)
    assert not each.is_ending
    request = asyncio.ensure_future(each.shutdown(stop_replicas=True))
    await asyncio.sleep(0)
    assert each.is_ending
    proceed.set()
    with pytest.raises(StoreWriteError):
        await request
    assert not each.is_ending  # it continues
    parts.ending = True  # the supervisor was asked to end
    assert each.is_ending
