"""Counts of handshakes, their deadlines, and the limit for each client address.

`proxy.request.data_plane` owns one `HandshakeCounters`, and has it look at the deadlines now and
then: a timer for each handshake costs more. Each `Handshake` reports to it.
"""

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


class Unfinished:
    """Something that has a deadline: a handshake."""

    __slots__ = ()

    def expire(self) -> None:
        """End it: the deadline has passed."""
        raise NotImplementedError


class HandshakeCounters:
    """The handshakes of one worker. `on_problem(text)` gets a line for each failure that a person
    may want to know; the caller limits them. `clock` returns the time in seconds."""

    def __init__(self, on_problem: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._on_problem = on_problem
        self._clock = clock
        self._outcomes: dict[str, int] = {}
        self._by_address: dict[str, int] = {}
        self._deadlines: dict[Unfinished, float] = {}

    @property
    def pending(self) -> int:
        """Number of unfinished handshakes."""
        return len(self._deadlines)

    def begin(self, handshake: Unfinished, address: str, limit: int, seconds: float) -> bool:
        """Count the start of a handshake that has some seconds; return False if the address has
        `limit` unfinished ones already. A limit of 0, and an unknown address, are not limited."""
        count = self._by_address.get(address, 0)
        if limit and address and count >= limit:
            self._count(LIMITED)
            return False
        self._by_address[address] = count + 1
        self._deadlines[handshake] = self._clock() + seconds
        return True

    def end(self, handshake: Unfinished, address: str, outcome: str, detail: str = "") -> None:
        """Count the end of a handshake."""
        del self._deadlines[handshake]
        left = self._by_address[address] - 1
        if left > 0:
            self._by_address[address] = left
        else:
            del self._by_address[address]
        self._count(outcome)
        if outcome in (CERTIFICATE, INVALID):
            self._on_problem(f"TLS handshake with {address or 'a client'} failed: {detail}")

    def expire(self, now: float) -> None:
        """End the handshakes whose deadline has passed."""
        for each in [each for each, deadline in self._deadlines.items() if deadline <= now]:
            each.expire()

    def take(self) -> dict[str, int]:
        """Return the number of handshakes by outcome since the last call."""
        outcomes, self._outcomes = self._outcomes, {}
        return outcomes

    def _count(self, outcome: str) -> None:
        self._outcomes[outcome] = self._outcomes.get(outcome, 0) + 1
