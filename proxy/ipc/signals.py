"""The signals that a process of meshd handles, and those that arrive too early or too late.

They are held until the handlers of a process are installed, and again once it has done its work.
The supervisor holds its own, and those of the processes that it starts.
"""

import signal
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)
"""Signals that a process handles in its event loop."""

_Result = TypeVar("_Result")


def hold_signals() -> None:
    """Hold the signals that arrive from now on, in this thread and those that it starts."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def release_signals() -> None:
    """Deliver the signals that were held. Every process calls it once it has its handlers."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


async def hold_late_signals(main: Coroutine[Any, Any, _Result]) -> _Result:
    """Run the main coroutine of a process, and hold the signals that arrive once it has ended.

    A process may end by itself while it is asked to end, for example when its supervisor is
    replaced. An event loop that is being closed has no place for a signal any more: it would
    print a traceback, or the process would die of the signal after it had done all its work.
    """
    try:
        return await main
    finally:
        hold_signals()
