"""Notices that the host's clock was set, forward or back.

Made by `meshd.daemon.wiring`. Backoffs, timeouts and cooldowns in the memory of the control process
are wall-clock times; after a step they would end too early, or never. So the process ends, and the
next one starts from what is stored and what runs. Workers and replicas do not notice.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from meshd.model.event import Kind
from meshd.store.events import EventLog

_log = structlog.stdlib.get_logger(__name__)
INTERVAL: Final = 1.0
"""Seconds between two comparisons; a correction by NTP that slews the clock stays far below
`STEP` in that time."""
STEP: Final = 30.0
"""Seconds of a step that counts. A smaller one delays or shortens something by less than that."""


def find_step(wall: float, steady: float) -> float | None:
    """Return by how many seconds the clock was set forward (negative: back), if the wall clock
    advanced by `wall` while `steady` seconds passed; None if it was not set. Pure."""
    step = wall - steady
    return step if abs(step) >= STEP else None


class ClockWatch:
    """Compares the wall clock with a steady one. `clock` gives Unix time, `steady` seconds."""

    def __init__(
        self, events: EventLog, clock: Callable[[], float], steady: Callable[[], float]
    ) -> None:
        self._events = events
        self._clock = clock
        self._steady = steady

    async def run(self) -> None:
        """Return once the clock was set, after an event says so."""
        wall, steady = self._clock(), self._steady()
        while True:
            await asyncio.sleep(INTERVAL)
            last_wall, last_steady = wall, steady
            wall, steady = self._clock(), self._steady()
            step = find_step(wall - last_wall, steady - last_steady)
            if step is not None:
                direction = "forward" if step > 0 else "back"
                text = (
                    f"the clock was set {direction} by {abs(step):.0f} s; the control process "
                    "starts again with the new time"
                )
                _log.warning("clock set", seconds=round(step))
                self._events.record(wall, Kind.CLOCK_SET, text)
                return
