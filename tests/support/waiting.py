"""Waiting in tests: for a condition, for real time to pass, or to see that nothing happens.

Tests call no `sleep` themselves (an architecture test checks it). They wait for a condition with
`wait_until`, assert with `stays` that nothing happens, and where real time is part of the scenario
say why with `elapse`. Each has a `_blocking` twin for tests with threads. Logic that needs time but
no real process runs in virtual time instead: see `tests.fakes.virtual`.
"""

import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

T = TypeVar("T")

BUSY: Final = 4.0
"""Factor on each deadline: a busy machine may take this much longer than an idle one. A deadline
only says when to give up; a larger one costs nothing where all is well."""
INTERVAL: Final = 0.005
"""Seconds between two looks at a condition."""


async def wait_until(
    condition: Callable[[], object],
    seconds: float = 5.0,
    what: object = "the condition",
    interval: float = INTERVAL,
) -> float:
    """Wait until `condition()`, or what it returns to await, is true; return the seconds it took.

    `seconds` is the limit on an idle machine. Raises AssertionError with `what` after BUSY times
    that; `what` may be a function that is called then, to show what was seen last.
    """
    now = asyncio.get_running_loop().time
    started = now()
    while True:
        found = condition()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return now() - started
        if now() - started > BUSY * seconds:
            raise AssertionError(_late(what, seconds))
        await asyncio.sleep(interval)


def wait_until_blocking(
    condition: Callable[[], object],
    seconds: float = 5.0,
    what: object = "the condition",
    interval: float = INTERVAL,
) -> float:
    """Do the same as `wait_until`, in a thread."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > BUSY * seconds:
            raise AssertionError(_late(what, seconds))
        time.sleep(interval)
    return time.monotonic() - started


def _late(what: object, seconds: float) -> str:
    return f"after {BUSY * seconds} s still not: {what() if callable(what) else what}"


async def stays(condition: Callable[[], object], seconds: float, what: object) -> None:
    """Assert that `condition()` is true all the time for `seconds`: nothing happens."""
    now = asyncio.get_running_loop().time
    end = now() + seconds
    while now() < end:
        found = condition()
        if asyncio.iscoroutine(found):
            found = await found
        assert found, f"no longer: {what() if callable(what) else what}"
        await asyncio.sleep(INTERVAL)


async def settled(value: Callable[[], T], quiet: float) -> T:
    """Wait until `value()` has not changed for `quiet` seconds, and return it."""
    last = value()
    while True:
        await asyncio.sleep(quiet)
        if (now := value()) == last:
            return last
        last = now


def settled_blocking(value: Callable[[], T], quiet: float) -> T:
    """Do the same as `settled`, in a thread."""
    last = value()
    while True:
        time.sleep(quiet)
        if (now := value()) == last:
            return last
        last = now


async def elapse(seconds: float, why: str) -> None:
    """Let real time pass, as part of the scenario: a slow origin, a pause between two packets, a
    while under load. `why` says which; it is for the reader."""
    assert why
    await asyncio.sleep(seconds)


def elapse_blocking(seconds: float, why: str) -> None:
    """Do the same as `elapse`, in a thread."""
    assert why
    time.sleep(seconds)


def assert_prompt(delays: Sequence[float], bound: float) -> None:
    """Assert that something follows events within `bound` seconds on an idle machine: on a busy
    one, most of them within five times that, and each within 5 s."""
    assert statistics.median_low(delays) < 5 * bound, delays
    assert max(delays) < 5.0, delays
