"""Whether a daemon runs on a state directory, seen from outside, and cleanup after a killed one.
Used by the CLI."""

import fcntl
import os
from pathlib import Path

from meshd.store.lock import StateLock, StateLocked

LOCK = "meshd.lock"
API_SOCKET = "admin.sock"
PID_FILE = "daemon.pid"
CONFIG_FILE = "supervisor.json"
CERTIFICATES = "certificates"


def supervisor_pid(state: Path) -> int | None:
    """Return the process id of the daemon that `meshd up` started there; None if none runs.
    Valid also while its control process is being replaced."""
    try:
        pid = int((state / PID_FILE).read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    return pid if os.fsencode(state / CONFIG_FILE) in command else None


def owner_pid(state: Path) -> int | None:
    """Return the process id that uses the state directory: its supervisor, or the control
    process that holds the lock (0 if the lock does not say). None if there is none."""
    return supervisor_pid(state) or _lock_holder(state / LOCK)


def remove_stale_socket(state: Path) -> None:
    """Remove the API socket file that a killed control process left. Does nothing while a daemon
    runs there."""
    if supervisor_pid(state) is not None:
        return
    lock = StateLock(state / LOCK)
    try:
        lock.acquire()
        (state / API_SOCKET).unlink(missing_ok=True)
    except (StateLocked, OSError):
        return  # another daemon starts there, or the directory is read-only: the file does no harm
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
