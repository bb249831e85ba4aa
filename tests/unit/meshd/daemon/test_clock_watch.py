"""A clock that is set ends the control process, and an event says so."""

from pathlib import Path

import pytest

from meshd.daemon import clock_watch
from meshd.daemon.clock_watch import ClockWatch, find_step
from meshd.store.events import EventLog
from meshd.store.store import Store
from tests.fakes import virtual


@pytest.mark.parametrize(
    ("wall", "steady", "step"),
    [
        (1.0, 1.0, None),
        (1.4, 1.0, None),
        # A late tick is not a step.
        (600.0, 600.0, None),
        (-3599.0, 1.0, -3600.0),
        (3601.0, 1.0, 3600.0),
        (-28.0, 1.0, None),
    ],
)
def test_find_step(wall: float, steady: float, step: float | None) -> None:
    assert find_step(wall, steady) == step


async def _set_back(directory: Path) -> None:
    store = Store(directory)
    store.open()
    events = EventLog(store)
    events.open()
    steps = iter([0.0, 0.0, 0.0, -7200.0])
    ahead = 0.0

    def clock() -> float:
        nonlocal ahead
        ahead += next(steps)
        return virtual.clock() + ahead

    started = virtual.clock()
    await ClockWatch(events, clock, virtual.clock).run()
    assert virtual.clock() - started == 3 * clock_watch.INTERVAL
    (event,) = events.since(0, 9)
    assert event.kind == "clock.set"
    assert event.text.startswith("the clock was set back by 7200 s; the control process starts")
    store.close()


def test_a_clock_that_is_set_back_ends_the_watch(tmp_path: Path) -> None:
    virtual.run(_set_back(tmp_path))
