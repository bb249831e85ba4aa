"""Counts and deadlines of handshakes."""

from proxy.tls import counters
from proxy.tls.counters import HandshakeCounters, Unfinished


class Pending(Unfinished):
    """A handshake that notes its end."""

    __slots__ = ("_counters", "expired")

    def __init__(self, made: HandshakeCounters) -> None:
        self._counters = made
        self.expired = False

    def expire(self) -> None:
        self.expired = True
        self._counters.end(self, "a", counters.TIMEOUT)


def test_deadlines_and_limits() -> None:
    now = 100.0
    problems: list[str] = []
    made = HandshakeCounters(problems.append, lambda: now)
    first, second, third = (Pending(made) for _ in range(3))
    assert made.begin(first, "a", 2, 10.0)
    assert made.begin(second, "a", 2, 20.0)
    assert not made.begin(third, "a", 2, 10.0)
    assert made.begin(third, "", 2, 10.0)
    assert made.pending == 3
    made.end(third, "", counters.INVALID, "no version")
    made.expire(109.9)
    assert not first.expired
    made.expire(110.0)
    assert first.expired
    assert not second.expired
    assert made.pending == 1
    assert made.begin(third, "a", 2, 10.0)
    made.end(third, "a", counters.COMPLETE)
    assert made.take() == {"limited": 1, "invalid": 1, "timeout": 1, "complete": 1}
    assert made.take() == {}
    assert problems == ["TLS handshake with a client failed: no version"]
