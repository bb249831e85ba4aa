"""Retries: whether a failed attempt may be repeated, and the budget that limits retries. Pure.

Called by `proxy.request.retry`; `proxy.state.service_state` owns the budgets. The table answers
one question: can the origin have acted on the request already? A retry is allowed only if it
cannot, or if acting twice has the same effect as acting once.
"""

from typing import Final, Literal

Cause = Literal[
    "connect",  # no connection: refused, unreachable, connect timeout
    "refused",  # the endpoint said that it did not process the request (RFC 9113, section 8.7)
    "given-up",  # the endpoint hangs, as probes found
    "closed",  # the connection was closed or reset before the first byte of the answer
    "timeout",  # no first byte in time
    "status",  # an answer with a status that the policy lists
    "protocol",  # an invalid or ambiguous answer
    "broken",  # the connection failed after the answer had begun
]
RetryDecision = Literal["no", "budget", "free"]
"""Never; if the budget allows; without charge to the budget."""
IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))
"""Idempotent methods of RFC 9110, section 9.2.2."""

# cause → decision if (nothing was written, written and idempotent, written and not idempotent)
_TABLE: Final[dict[str, tuple[RetryDecision, RetryDecision, RetryDecision]]] = {
    "connect": ("budget", "budget", "budget"),
    "refused": ("budget", "budget", "budget"),
    "given-up": ("free", "free", "no"),
    "closed": ("budget", "budget", "no"),
    "timeout": ("budget", "budget", "no"),
    "status": ("no", "budget", "no"),
    "protocol": ("no", "no", "no"),
    "broken": ("no", "no", "no"),
}


def decide_retry(
    cause: Cause, *, written: bool, reused: bool, idempotent: bool, replayable: bool
) -> RetryDecision:
    """Decide whether to retry after a failed attempt.

    - `written`: a byte of the request may have been sent
    - `reused`: the attempt used an idle connection of the pool. Its close says nothing about the
      endpoint, so that retry is free
    - `replayable`: the body that was sent is still buffered (or there is none)
    """
    column = 0 if not written else 1 if idempotent else 2
    decision = _TABLE[cause][column]
    if decision == "no" or not replayable:
        return "no"
    return "free" if cause == "closed" and reused else decision


class RetryBudget:
    """Finagle's retry budget: limits the extra load of retries when everything fails.

    Over a window of ten seconds, retries may be `ratio` of the requests, plus `reserve` per
    second.
    """

    SECONDS: Final = 10
    """Length of the window (Finagle's default TTL)."""

    __slots__ = ("_next", "_ratio", "_recent", "_requests", "_reserve", "_retries", "_slot")

    def __init__(self, ratio: float = 0.2, reserve: float = 10.0) -> None:
        self._ratio = ratio
        self._reserve = reserve * self.SECONDS
        self._requests = [0] * self.SECONDS
        # Requests of the current second: an attribute costs a quarter of an entry of a list.
        self._recent = 0
        self._retries = [0] * self.SECONDS
        self._slot = 0
        self._next = float("-inf")

    def deposit(self, now: float) -> None:
        """Count a first attempt at `now` (monotonic seconds)."""
        if now >= self._next:
            self._advance(now)
        self._recent += 1

    def withdraw(self, now: float) -> bool:
        """Return whether a retry is allowed now; count it if so."""
        if now >= self._next:
            self._advance(now)
        requests = sum(self._requests) + self._recent
        if sum(self._retries) + 1 > requests * self._ratio + self._reserve:
            return False
        self._retries[self._slot] += 1
        return True

    def _advance(self, now: float) -> None:
        """Clear the slots of the seconds that have left the window."""
        self._requests[self._slot] = self._recent
        self._recent = 0
        behind = now - self._next
        passed = self.SECONDS if behind >= self.SECONDS else int(behind) + 1
        for _ in range(passed):
            self._slot = (self._slot + 1) % self.SECONDS
            self._requests[self._slot] = self._retries[self._slot] = 0
        self._next = float(int(now)) + 1.0
