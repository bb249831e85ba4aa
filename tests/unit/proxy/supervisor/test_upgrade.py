"""The last steps of an upgrade: signals that arrive meanwhile, and an exec that fails."""

import asyncio
import os
import signal
from typing import Never

import pytest

from proxy.ipc.config import SupervisorConfig
from proxy.ipc.signals import SIGNALS
from proxy.supervisor import upgrade
from proxy.supervisor.supervisor import Supervisor


def exec_fails(program: str, argv: list[str], environment: dict[str, str]) -> Never:
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) >= set(SIGNALS)
    raise FileNotFoundError(2, "No such file or directory", program)


async def test_an_exec_that_fails_leaves_the_old_version_serving(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "execve", exec_fails)
    supervisor = Supervisor(SupervisorConfig(), "config.json", None)
    assert "No such file or directory" in await supervisor._exec_installed_version()
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, []) & set(SIGNALS)


async def test_a_signal_before_the_exec_is_handled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upgrade, "exec_installed_version", None)
    supervisor = Supervisor(SupervisorConfig(), "config.json", None)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, supervisor._request_shutdown)
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        assert await supervisor._exec_installed_version() == "shutting down"
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
