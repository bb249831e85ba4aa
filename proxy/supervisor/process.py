"""Start a process that ends with its parent, and get its exit status without polling.

Called by `worker_pool` and `child_processes`; knows nothing about what the process does.
"""

import asyncio
import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence

from proxy.ipc.signals import SIGNALS

_PR_SET_PDEATHSIG = 1
"""Option number of prctl(2), from linux/prctl.h."""
# Loaded before any fork, and called with the GIL held: between fork and exec the child must not
# wait for a lock that another thread of the parent may have held at the fork.
_prctl = ctypes.PyDLL(None).prctl


class Process:
    """A running process.

    `on_end` is called in the event loop with the exit status (as in `subprocess`: negative for
    a signal).
    """

    def __init__(self, pid: int, on_end: Callable[[int], None]) -> None:
        self.pid = pid
        self._on_end = on_end
        self._pidfd = -1

    def watch(self) -> None:
        """Start waiting for the end of the process, in the running event loop."""
        self._pidfd = os.pidfd_open(self.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._handle_end)

    def signal(self, number: int) -> None:
        """Send a signal. Do nothing if the process has ended."""
        if self._pidfd >= 0:
            signal.pidfd_send_signal(self._pidfd, number)

    def unwatch(self) -> None:
        """Stop waiting; the process itself keeps running."""
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def _handle_end(self) -> None:
        _, status = os.waitpid(self.pid, 0)
        self.unwatch()
        self._on_end(os.waitstatus_to_exitcode(status))


def describe_exit(status: int) -> str:
    """Return an exit status in words."""
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
    """Start a process in a new session, so that the terminal's Ctrl-C does not reach it.

    The kernel sends it `death_signal` when this process ends for any reason. `env` is added to
    this process's environment; `descriptors` are inherited. Signals that do not ask for its end
    are held until it calls `release_signals`: without its handlers, SIGHUP would end it. Raises
    OSError.
    """
    parent = os.getpid()

    def tie_to_parent() -> None:
        _prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
        # The parent may have ended before prctl took effect.
        if os.getppid() != parent:
            os._exit(1)

    before = signal.pthread_sigmask(signal.SIG_BLOCK, set(SIGNALS) - {signal.SIGTERM})
    try:
        started = subprocess.Popen(
            argv,
            env={**os.environ, **(env or {})},
            pass_fds=tuple(descriptors),
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            preexec_fn=tie_to_parent,  # noqa: PLW1509 - one system call, no lock
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    # `Process` waits for the pid from here on; Popen must neither warn about it nor wait.
    started.returncode = 0
    process = Process(started.pid, on_end)
    process.watch()
    return process
