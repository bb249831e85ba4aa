"""A source of numbers for tests of plans."""


class FixedRandom:
    """A source of numbers that makes names come out in order."""

    def __init__(self) -> None:
        self._calls = 0

    def random(self) -> float:
        self._calls += 1
        return self._calls / 29_000_000
