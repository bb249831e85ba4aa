"""One daemon per state directory: a lock file that the kernel releases when its process ends.

Held by `meshd.store.file` while the store is open, and by `meshd.store.backup` during a restore.
`meshd.store.presence` reads from it whether a daemon runs.
"""

import contextlib
import fcntl
import os
from pathlib import Path


class StateLocked(Exception):
    """Another process holds the state; the text says which."""


class StateLock:
    """An advisory lock on `PATH`; the file holds the owner's process id."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = -1

    def acquire(self) -> None:
        """Take the lock. Raises StateLocked with the owner's process id, and OSError."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise StateLocked(
                f"the state in {self.path.parent} is held by the daemon with process id {owner}; "
                "stop it, or give this one another --state"
            ) from error
        self._descriptor = descriptor
        # On a full disk the text of the owner before stays; the lock itself holds.
        with contextlib.suppress(OSError):
            text = f"{os.getpid()}\n".encode()
            os.pwrite(descriptor, text, 0)
            os.ftruncate(descriptor, len(text))

    @property
    def is_held(self) -> bool:
        """Whether this process holds the lock."""
        return self._descriptor >= 0

    def release(self) -> None:
        """Release the lock; no effect if it is not held."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
