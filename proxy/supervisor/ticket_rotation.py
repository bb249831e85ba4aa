"""The secrets of TLS session tickets, which all workers share, and their rotation.

Owned by `worker_pool`, which sends them to the workers. A stolen secret opens the recorded sessions
that were resumed with it, so each one is used for a limited time only.
"""

import os
from typing import Final

SECRET_BYTES: Final = 64
"""The block size of SHA-512 is larger, and the keys that are derived have 512 bits."""
KEPT: Final = 2
"""Secrets that are kept: the current one, and the one before it."""


class TicketRotation:
    """The current secrets. New tickets are made with one of them for `seconds`.

    - `secrets`: the current one first
    """

    def __init__(self, now: float, seconds: float) -> None:
        self.secrets: tuple[bytes, ...] = (os.urandom(SECRET_BYTES),)
        self._seconds = seconds
        self._next = now + seconds

    def adopt(self, secrets: tuple[bytes, ...]) -> None:
        """Continue with the secrets of the version before; without any, keep the own ones."""
        self.secrets = secrets or self.secrets

    def rotate(self, now: float) -> bool:
        """Make a new secret if it is time to. Return whether there is one."""
        if now < self._next:
            return False
        self._next = now + self._seconds
        self.secrets = (os.urandom(SECRET_BYTES), *self.secrets)[:KEPT]
        return True
