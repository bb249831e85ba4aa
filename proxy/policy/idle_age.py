"""For how long an idle connection of an endpoint may be used for a request that must not be sent
twice. Pure.

`proxy.state.endpoint_state` owns one `IdleAge` per endpoint; `proxy.request` reports what it sees
of idle connections and asks before it sends. An endpoint closes idle connections after a time that
it rarely announces. A request that is sent at that moment is lost: the endpoint may have acted on
it, so that it cannot be repeated. Half of the time that connections are known to stay open is safe.
"""

from typing import Final

UNKNOWN: Final = 0.5
"""Seconds while nothing is known: half of the shortest keep-alive time in use, 1 s (gunicorn's
documentation suggests 1 to 5 s; its default is 2 s)."""
LONGEST: Final = 1.5
"""Seconds at most. A longer time would save few connections, and an endpoint that restarts closes
connections of any age."""
SHARE: Final = 0.5
"""Share of the time that connections are known to stay open."""
SHORTEST_LIMIT: Final = 0.1
"""Seconds. Connections that are closed earlier end with their process, and not by an idle limit."""
MEMORY: Final = 60.0
"""Seconds after which a close is forgotten, unless another one is seen."""
REFUTED_FACTOR: Final = 2.0
"""A connection that is still open after this many times the learned limit, and the margin below,
shows that it is not the limit. Servers that look once a second close some late."""
REFUTED_MARGIN: Final = 0.5
"""Seconds in addition."""
_NEVER: Final = float("inf")


class IdleAge:
    """What is known of an endpoint's idle limit.

    - `fresh`: seconds for which a connection may have been idle.
    """

    __slots__ = ("_closed", "_closed_at", "_open", "fresh")

    def __init__(self) -> None:
        self.fresh = UNKNOWN
        self._open = 0.0
        self._closed = _NEVER
        self._closed_at = 0.0

    def saw_open(self, age: float, now: float) -> None:
        """Take note of a connection that is still open after `age` seconds without a request."""
        if age > self._open:
            self._open = age
        refuted = age > self._closed * REFUTED_FACTOR + REFUTED_MARGIN
        if refuted or now - self._closed_at > MEMORY:
            self._closed = _NEVER
        self._update()

    def saw_close(self, age: float, now: float) -> None:
        """Take note of a connection that its endpoint closed after `age` seconds without a
        request."""
        if age < SHORTEST_LIMIT:
            return
        self._closed = min(self._closed, age)
        self._closed_at = now
        self._open = min(self._open, age)
        self._update()

    def _update(self) -> None:
        known = max(UNKNOWN, self._open * SHARE)
        self.fresh = min(LONGEST, known, self._closed * SHARE)
