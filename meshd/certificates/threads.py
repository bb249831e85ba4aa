"""Blocking calls to a certificate authority in threads: a bounded number, which delays no exit.

Used by `manager`. The threads of asyncio's executor would keep a process from ending until the
authority has answered.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Final, TypeVar

from meshd.certificates.authority import ATTEMPT_SECONDS
from meshd.certificates.values import FailureCause, OrderFailed

MAX_THREADS: Final = 4
"""Calls at once: enough for hundreds of orders an hour."""
HANG_SECONDS: Final = ATTEMPT_SECONDS + 60.0
"""Seconds after which a call is not waited for: it checks its own deadline only between two
answers of the authority."""
T = TypeVar("T")


class CallThreads:
    """Runs each call in a thread. A thread that hangs keeps its place until it ends."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(MAX_THREADS)

    async def run(self, call: Callable[[], T]) -> T:
        """Return the result of a call, or raise what it raises. Raises OrderFailed if it hangs."""
        loop = asyncio.get_running_loop()
        result: asyncio.Future[T] = loop.create_future()

        def settle(value: T | None, error: BaseException | None) -> None:
            self._places.release()
            if result.done():
                return
            if error is not None:
                result.set_exception(error)
            else:
                result.set_result(value)  # type: ignore[arg-type]  # None may be a T

        def work() -> None:
            value, error = None, None
            try:
                value = call()
            except BaseException as raised:  # noqa: BLE001 - it is raised in `run`
                error = raised
            with contextlib.suppress(RuntimeError):  # the loop is closed: this process ends
                loop.call_soon_threadsafe(settle, value, error)

        try:
            async with asyncio.timeout(HANG_SECONDS):
                await self._places.acquire()
                threading.Thread(target=work, name="acme", daemon=True).start()
                return await result
        except TimeoutError as error:
            raise OrderFailed(
                FailureCause.UNREACHABLE, f"the authority did not answer within {HANG_SECONDS:g} s"
            ) from error
