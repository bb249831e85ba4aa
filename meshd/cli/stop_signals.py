"""The signals that end `meshd up` in order: Ctrl-C, SIGTERM, and SIGHUP without nohup.

Used by `meshd.cli.commands.up` while the daemon starts, and by `meshd.cli.foreground` afterwards.
"""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, Final, Self, TypeVar

STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SIGNALLED: Final = 128
"""What the exit code of a command is above the number of the signal that ended it."""
T = TypeVar("T")


class StopRequested(Exception):
    """A signal asked the command to stop."""


class StopSignals:
    """Handles the stop signals from `handle` on until the context ends.

    - `again`: set once a second one arrived: the user does not want to wait.
    """

    def __init__(self) -> None:
        self._first: signal.Signals | None = None
        self.again = asyncio.Event()
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # A closed loop could not handle a signal: from here on it ends the command at once.
        if self._loop is not None:
            for number in STOP_SIGNALS:
                self._loop.remove_signal_handler(number)

    @property
    def exit_code(self) -> int:
        """The exit code of a command that did not finish because of a signal, as shells report
        it."""
        return SIGNALLED + (self._first or 0)

    def handle(self) -> None:
        """Handle the signals from now on. A second call has no effect."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            for number in STOP_SIGNALS:
                if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                    continue  # as by nohup
                self._loop.add_signal_handler(number, self._on_signal, number)

    def _on_signal(self, number: signal.Signals) -> None:
        if self._first is not None:
            self.again.set()
        self._first = self._first or number
        self._stop.set()

    async def until_stopped(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` and return its result. Raises StopRequested if a signal arrives first."""
        running = asyncio.ensure_future(work)
        stop = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait([running, stop], return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                raise StopRequested
            return running.result()
        finally:
            running.cancel()
            stop.cancel()
            await asyncio.wait([running, stop])
