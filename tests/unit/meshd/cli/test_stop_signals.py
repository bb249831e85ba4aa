"""The signals that end `meshd up` in order."""

import asyncio
import signal
from collections.abc import Iterator

import pytest

from meshd.cli.stop_signals import StopRequested, StopSignals
from tests.support.waiting import elapse


@pytest.fixture
def hangup_ignored() -> Iterator[None]:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGHUP, before)


async def never() -> None:
    await asyncio.Event().wait()


async def test_work_ends_at_the_first_signal_and_the_second_is_noted() -> None:
    with StopSignals() as signals:
        signals.handle()
        assert await signals.until_stopped(asyncio.sleep(0, "done")) == "done"
        work = asyncio.ensure_future(signals.until_stopped(never()))
        await asyncio.sleep(0)
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(StopRequested):
            await work
        assert (signals.exit_code, signals.again.is_set()) == (143, False)
        signal.raise_signal(signal.SIGINT)
        await signals.again.wait()
        assert signals.exit_code == 143


@pytest.mark.usefixtures("hangup_ignored")
async def test_nohup_keeps_the_command_running() -> None:
    with StopSignals() as signals:
        signals.handle()
        signal.raise_signal(signal.SIGHUP)
        await signals.until_stopped(elapse(0.05, "a signal would be handled"))
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
