"""How many file descriptors a worker has in use, and how many it keeps free for connections to
endpoints.

Owned by `proxy.request.data_plane`, which counts the connections to endpoints here.
`proxy.worker.acceptor` asks before it accepts more clients. Without a reserve, idle clients could
take all descriptors, and no request could be answered.
"""

import errno
import os
from typing import Final

RESERVED_SHARE: Final = 4
"""One of this many descriptors is kept free of clients, for connections to endpoints, log files and
connections that arrive at the same moment."""
SMALLEST_RESERVE: Final = 8
"""Descriptors that are kept free however low the limit is."""
BURST_SHARE: Final = 2
"""One of this many reserved descriptors may be taken by clients that arrive at the same moment."""
UNLIMITED: Final = 1 << 30
"""Descriptors: more than a process can have."""
LOW_LIMIT: Final = 4096
"""Descriptors. Up to this limit those that are not counted one by one matter, and counting them all
takes less than 2 ms."""
OFTEN: Final = 1.0
"""Seconds between two counts with a low limit."""
SELDOM: Final = 10.0
"""Seconds between two counts with a higher limit: counting 65,000 takes about 30 ms."""
_SHORTAGES: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


def is_shortage(error: OSError, *, answered: bool) -> bool:
    """Return whether a connection failed for lack of descriptors, memory or local ports here. The
    endpoint has nothing to do with it. `answered` says whether it has ever answered: if not, an
    address that is not available is not for lack of ports."""
    if error.errno == errno.EADDRNOTAVAIL:
        return answered
    return error.errno in _SHORTAGES


class Descriptors:
    """The descriptors of this process.

    - `limit`: how many there may be.
    - `reserve`: how many are kept free of clients.
    - `to_endpoints`: connections to endpoints, those being opened included.
    - `shortages`: connections to endpoints that failed for lack of a descriptor.
    - `pauses`: how often accepting was paused.
    """

    def __init__(self, limit: int = UNLIMITED) -> None:
        self.limit = limit
        self.reserve = max(limit // RESERVED_SHARE, SMALLEST_RESERVE)
        self.to_endpoints = 0
        self.shortages = 0
        self.pauses = 0
        self._others = 0
        self._next_count = 0.0

    @property
    def burst(self) -> int:
        """How many clients may arrive at the same moment."""
        return self.reserve // BURST_SHARE

    def count_to_endpoints(self, change: int) -> None:
        """Count connections to endpoints that are opened (positive) or closed (negative)."""
        self.to_endpoints += change

    def count_shortage(self) -> None:
        """Count a connection to an endpoint that failed for lack of a descriptor."""
        self.shortages += 1

    def count_pause(self) -> None:
        """Count that accepting was paused."""
        self.pauses += 1

    def measure(self, clients: int, now: float) -> None:
        """Find out how many descriptors are neither clients' nor connections to endpoints, if it is
        time to; `now` is in monotonic seconds."""
        if now < self._next_count:
            return
        self._next_count = now + (OFTEN if self.limit <= LOW_LIMIT else SELDOM)
        try:
            self._others = max(0, len(os.listdir("/proc/self/fd")) - clients - self.to_endpoints)
        except OSError:
            # No descriptor is left to look, or the kernel has no /proc: the last number stays.
            return

    def room(self, clients: int) -> int:
        """Return how many more clients may be accepted besides the given `clients`; 0 or
        less for none."""
        used = self._others + clients + self.to_endpoints
        return self.limit - self.reserve - used
