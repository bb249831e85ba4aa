"""The user's terminal and standard streams, connected to a command elsewhere.

`meshd exec` uses it. `Session` is what it needs of that command;
`meshd.runtime.docker.exec_session` implements it.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from typing import Final, Protocol

BLOCK: Final = 65536
"""Bytes of input that are read at once: the size of a pipe."""
STDERR: Final = 2
"""The number of standard error in the output of a session."""


class Session(Protocol):
    """A command that runs elsewhere."""

    async def read(self) -> tuple[int, bytes] | None:
        """Return the next output with the number of its stream; None at the end."""

    async def write(self, data: bytes) -> None:
        """Send input."""

    def end_input(self) -> None:
        """Say that no more input comes."""

    async def resize(self, columns: int, lines: int) -> None:
        """Set the size of its terminal."""

    async def exit_code(self) -> int:
        """Return its exit code."""


def is_interactive() -> bool:
    """Return whether the user has a terminal for input and output."""
    return sys.stdin.isatty() and sys.stdout.isatty()


async def connect_streams(session: Session, terminal: bool) -> int:
    """Pass input and output between the user and a session until it ends; return its exit code.
    With a `terminal` every key goes to the session, Ctrl-C too."""
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as stack:
        if terminal:
            stack.enter_context(_raw_terminal())
            await _follow_size(session, loop)
        # A thread: the standard input may be a file, which an event loop cannot wait for. It may
        # block until the process ends, so that nothing may wait for it.
        threading.Thread(target=_send_input, args=(session, loop), daemon=True).start()
        stdout, stderr = sys.stdout.buffer, sys.stderr.buffer
        try:
            while (output := await session.read()) is not None:
                stream = stderr if output[0] == STDERR else stdout
                stream.write(output[1])
                stream.flush()
            return await session.exit_code()
        finally:
            if terminal:
                loop.remove_signal_handler(signal.SIGWINCH)


@contextlib.contextmanager
def _raw_terminal() -> Iterator[None]:
    """Pass every key on as it is pressed, until the end of the block."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor, termios.TCSADRAIN)  # keeps what was typed already
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


async def _follow_size(session: Session, loop: asyncio.AbstractEventLoop) -> None:
    """Give the session's terminal the size of the user's, now and after each change."""
    tasks: set[asyncio.Task[None]] = set()

    def changed() -> None:
        task = loop.create_task(session.resize(*shutil.get_terminal_size()))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    loop.add_signal_handler(signal.SIGWINCH, changed)
    await session.resize(*shutil.get_terminal_size())


def _send_input(session: Session, loop: asyncio.AbstractEventLoop) -> None:
    """Send the standard input to a session until either ends. It runs in a thread."""
    # RuntimeError: the session is over; OSError: the standard input is closed.
    with contextlib.suppress(OSError, RuntimeError):
        descriptor = sys.stdin.fileno()
        while data := os.read(descriptor, BLOCK):
            asyncio.run_coroutine_threadsafe(session.write(data), loop).result()
        loop.call_soon_threadsafe(session.end_input)
