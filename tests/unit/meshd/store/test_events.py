"""The event log: a subscriber that is too far behind is dropped, and others continue."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from meshd.model.errors import ReaderTooSlow
from meshd.model.event import Event
from meshd.store import events as events_module
from meshd.store.events import EventLog
from meshd.store.store import Store


async def test_a_subscriber_that_is_too_far_behind_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_module, "BEHIND", 3)
    store = Store(tmp_path)
    store.open()
    try:
        log = EventLog(store)
        log.open()
        slow, quick = log.subscribe(), log.subscribe()
        waiting: list[asyncio.Future[Event]] = [_begin(slow), _begin(quick)]
        await asyncio.sleep(0)
        first = log.record(1.0, "deploy", "first").id
        assert [(await each).id for each in waiting] == [first, first]
        for number in range(1, 6):
            log.record(1.0, "deploy", "next")
            assert (await anext(quick)).id == first + number
        received = [(await anext(slow)).id for _ in range(3)]
        assert received == [first + 1, first + 2, first + 3]
        with pytest.raises(ReaderTooSlow):
            await anext(slow)
        closing = _begin(quick)
        closing.cancel()
        await asyncio.wait([closing])
    finally:
        store.close()


def _begin(events: AsyncIterator[Event]) -> asyncio.Future[Event]:
    return asyncio.ensure_future(anext(events))
