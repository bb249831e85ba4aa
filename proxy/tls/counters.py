"""Counts of handshakes, and the limit for each client address.

`proxy.request.data_plane` owns one `HandshakeCounters`; each `Handshake` reports to it.
"""

from collections import Counter
from collections.abc import Callable
from typing import Final

COMPLETE: Final = "complete"
RESUMED: Final = "resumed"
"""Outcomes of handshakes that succeeded; a resumed one continued an earlier session."""
LIMITED: Final = "limited"
"""The client's address had too many unfinished handshakes."""
TIMEOUT: Final = "timeout"
CLOSED: Final = "closed"
"""The client ended the connection before the handshake was complete."""
CERTIFICATE: Final = "client_certificate"
"""The client sent no certificate where one is required, or one that could not be verified."""
INVALID: Final = "invalid"
"""The bytes are not a handshake, or both sides have no version or cipher in common."""


class HandshakeCounters:
    """The handshakes of one worker. `on_problem(text)` gets a line for each failure that a person
    may want to know; the caller limits them.

    - `pending`: number of unfinished handshakes
    """

    def __init__(self, on_problem: Callable[[str], None]) -> None:
        self._on_problem = on_problem
        self._outcomes: Counter[str] = Counter()
        self._by_address: Counter[str] = Counter()
        self.pending = 0

    def begin(self, address: str, limit: int) -> bool:
        """Count the start of a handshake; return False if the address has `limit` unfinished ones
        already. A limit of 0, and an unknown address, are not limited."""
        if limit and address and self._by_address[address] >= limit:
            self._outcomes[LIMITED] += 1
            return False
        self._by_address[address] += 1
        self.pending += 1
        return True

    def end(self, address: str, outcome: str, detail: str = "") -> None:
        """Count the end of a handshake."""
        self.pending -= 1
        left = self._by_address[address] - 1
        if left > 0:
            self._by_address[address] = left
        else:
            del self._by_address[address]
        self._outcomes[outcome] += 1
        if outcome in (CERTIFICATE, INVALID):
            self._on_problem(f"TLS handshake with {address or 'a client'} failed: {detail}")

    def take(self) -> dict[str, int]:
        """Return the number of handshakes by outcome since the last call."""
        outcomes, self._outcomes = self._outcomes, Counter()
        return dict(outcomes)
