"""Starting a process that ends with us, and learning of its end without polling."""

import asyncio
import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence

_PR_SET_PDEATHSIG = 1
# Loaded before any fork, and called with the GIL kept: between fork and exec the child may
# wait for no lock that another thread of the parent could have held.
_prctl = ctypes.PyDLL(None).prctl


class Process:
    """A running process; `on_end` is called in the loop with its exit status (as in
    `subprocess`: negative for a signal)."""

    def __init__(self, pid: int, on_end: Callable[[int], None]) -> None:
        self.pid = pid
        self._on_end = on_end
        self._pidfd = -1

    def watch(self) -> None:
        """Begin to wait for the end, in the running loop."""
        self._pidfd = os.pidfd_open(self.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._ended)

    def signal(self, number: int) -> None:
        """Send a signal; nothing happens when the process has ended."""
        if self._pidfd >= 0:
            signal.pidfd_send_signal(self._pidfd, number)

    def forget(self) -> None:
        """Stop waiting, leaving the process as it is."""
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def _ended(self) -> None:
        _, status = os.waitpid(self.pid, 0)
        self.forget()
        self._on_end(os.waitstatus_to_exitcode(status))


def cause_of(status: int) -> str:
    """An exit status in words."""
    if status >= 0:
        return f"exit status {status}"
    return f"killed by {signal.Signals(-status).name}"


def spawn(
    argv: Sequence[str],
    on_end: Callable[[int], None],
    *,
    env: Mapping[str, str] | None = None,
    descriptors: Sequence[int] = (),
    death_signal: int = signal.SIGKILL,
) -> Process:
    """Start a process in a session of its own (the terminal's Ctrl-C is for us alone) that
    gets `death_signal` when we end, however we end. Raises OSError."""
    parent = os.getpid()

    def tie_to_parent() -> None:
        _prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    started = subprocess.Popen(
        argv,
        env={**os.environ, **(env or {})},
        pass_fds=tuple(descriptors),
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        preexec_fn=tie_to_parent,  # noqa: PLW1509 - one system call, no lock
    )
    # From here on the pid is ours to wait for; Popen must not warn about it, nor wait.
    started.returncode = 0
    process = Process(started.pid, on_end)
    process.watch()
    return process
