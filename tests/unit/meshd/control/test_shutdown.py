"""The process that a shutdown ends."""

import os
import signal
from types import SimpleNamespace
from typing import Any

import pytest

from meshd.control import shutdown
from meshd.control.shutdown import Shutdown
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
    parts: Any = SimpleNamespace(connected=connected, supervisor=supervisor)
    down: Any = None
    each = Shutdown(parts, parts, parts, parts, down, lambda: seen.append("this process"), parent)
    await each.shutdown(stop_replicas=False)
    await wait_until(lambda: bool(seen), 5, "it ends something")
    assert seen == ended
