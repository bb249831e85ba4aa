"""Virtual time: an event loop whose clock jumps to the next timer."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
EPOCH = 1_700_000_000.0


class VirtualLoop(asyncio.SelectorEventLoop):
    """Never waits: when nothing is ready, the clock jumps to the earliest timer."""

    def __init__(self) -> None:
        super().__init__()
        self._virtual = 0.0

    def time(self) -> float:
        return self._virtual

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            due = self._scheduled[0].when()  # type: ignore[attr-defined]  # (a heap)
            self._virtual = max(self._virtual, due)
        super()._run_once()  # type: ignore[misc]


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` to its end in virtual time, and return its result."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(main)
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.wait(left, timeout=60.0) if left else asyncio.sleep(0))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def clock() -> float:
    """Return the virtual loop's time as Unix time."""
    return EPOCH + asyncio.get_running_loop().time()


async def elapse(seconds: float) -> None:
    """Let virtual time pass; no real time does. Raises AssertionError on any other loop."""
    assert isinstance(asyncio.get_running_loop(), VirtualLoop), "would wait in real time"
    await asyncio.sleep(seconds)
