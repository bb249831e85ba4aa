"""Whether a failed attempt may be made again, and the budget that keeps retries few.

The table answers one question: can the origin have acted on the request already? Only where it
cannot, or where acting twice is the same as acting once, is there a second attempt.
"""

from typing import Final, Literal

Cause = Literal[
    "connect",  # no connection came about: refused, unreachable, connect timeout
    "closed",  # the connection ended or was reset before any byte of the answer
    "timeout",  # no first byte in time
    "status",  # an answer with a status that the policy lists
    "protocol",  # an answer that cannot be read in one way
    "broken",  # the answer had begun
]
RetryDecision = Literal["no", "budget", "free"]
IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))

# cause → verdict for (nothing written, written but idempotent, written and not idempotent)
_TABLE: Final[dict[str, tuple[RetryDecision, RetryDecision, RetryDecision]]] = {
    "connect": ("budget", "budget", "budget"),
    "closed": ("budget", "budget", "no"),
    "timeout": ("budget", "budget", "no"),
    "status": ("no", "budget", "no"),
    "protocol": ("no", "no", "no"),
    "broken": ("no", "no", "no"),
}


def decide_retry(
    cause: Cause, *, written: bool, reused: bool, idempotent: bool, replayable: bool
) -> RetryDecision:
    """Whether to try again: never, if the budget allows, or at no cost.

    `written`: a byte of the request may have left. `reused`: the attempt was made on an idle
    connection of the pool; its closing says nothing about the endpoint, so that retry is free.
    `replayable`: what was sent of the body is still at hand (or there is none).
    """
    column = 0 if not written else 1 if idempotent else 2
    verdict = _TABLE[cause][column]
    if verdict == "no" or not replayable:
        return "no"
    return "free" if cause == "closed" and reused else verdict


class RetryBudget:
    """Finagle's retry budget over a window of ten seconds: retries may be `ratio` of the
    requests in it, plus `reserve` a second. Bounds what retries add when everything fails."""

    SECONDS: Final = 10

    __slots__ = ("_limit_base", "_next", "_ratio", "_requests", "_retries", "_slot")

    def __init__(self, ratio: float = 0.2, reserve: float = 10.0) -> None:
        self._ratio = ratio
        self._limit_base = reserve * self.SECONDS
        self._requests = [0] * self.SECONDS
        self._retries = [0] * self.SECONDS
        self._slot = 0
        self._next = float("-inf")

    def deposit(self, now: float) -> None:
        """Counts a first attempt at `now` (monotonic seconds)."""
        if now >= self._next:
            self._turn(now)
        self._requests[self._slot] += 1

    def withdraw(self, now: float) -> bool:
        """Whether a retry is allowed now; counts it if so."""
        if now >= self._next:
            self._turn(now)
        if sum(self._retries) + 1 > sum(self._requests) * self._ratio + self._limit_base:
            return False
        self._retries[self._slot] += 1
        return True

    def _turn(self, now: float) -> None:
        """Empties the slots of the seconds that have passed out of the window."""
        behind = now - self._next
        passed = self.SECONDS if behind >= self.SECONDS else int(behind) + 1
        for _ in range(passed):
            self._slot = (self._slot + 1) % self.SECONDS
            self._requests[self._slot] = self._retries[self._slot] = 0
        self._next = float(int(now)) + 1.0
