"""A signal that arrives when a process has done its work neither prints nor kills."""

import subprocess
import sys

import pytest

PROCESS = """
import asyncio, os, signal, sys
import uvloop
from asyncio.selector_events import BaseSelectorEventLoop
from proxy.ipc.signals import hold_late_signals

close = BaseSelectorEventLoop._close_self_pipe

def close_and_signal(loop):
    close(loop)
    os.kill(os.getpid(), signal.{name})

BaseSelectorEventLoop._close_self_pipe = close_and_signal

async def main():
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.{name}, ended.set)
    os.kill(os.getpid(), signal.{name})
    await ended.wait()

{runner}.run(hold_late_signals(main()))
os.kill(os.getpid(), signal.{name})
print("done")
"""
"""Gets the signal while it works, while its event loop is closed (asyncio's only: the other is
compiled), and afterwards."""


@pytest.mark.parametrize("runner", ["asyncio", "uvloop"])
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR2"])
def test_a_late_signal_changes_nothing(runner: str, name: str) -> None:
    program = PROCESS.format(runner=runner, name=name)
    ended = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")
