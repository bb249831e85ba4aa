"""Whether a daemon runs on a state directory, told from outside of it; and what one that was
killed left there."""

import fcntl
import os
from pathlib import Path

from meshd.store.lock import StateLock, StateLocked

LOCK = "meshd.lock"
API_SOCKET = "admin.sock"
PID_FILE = "daemon.pid"
CONFIG_FILE = "supervisor.json"


def supervisor(state: Path) -> int | None:
    """The process id of the daemon that `meshd up` started there; None when none runs. It
    holds also while its control process is just being replaced."""
    try:
        pid = int((state / PID_FILE).read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    return pid if os.fsencode(state / CONFIG_FILE) in command else None


def process_of(state: Path) -> int | None:
    """The process id of whatever runs on that state directory: its supervisor, or the control
    process that holds its lock (0 where the lock does not say). None when nothing does."""
    return supervisor(state) or _lock_holder(state / LOCK)


def sweep(state: Path) -> None:
    """Take away the API's socket file that a control process left which was killed on its way
    out; nothing is done while anything runs there."""
    if supervisor(state) is not None:
        return
    lock = StateLock(state / LOCK)
    try:
        lock.acquire()
        (state / API_SOCKET).unlink(missing_ok=True)
    except (StateLocked, OSError):
        return  # another one starts there, or nothing can be written: it is in nobody's way
    finally:
        lock.release()


def _lock_holder(path: Path) -> int | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.read(descriptor, 32).decode("ascii", "replace").strip()
        return int(text) if text.isdecimal() else 0
    finally:
        os.close(descriptor)
    return None
