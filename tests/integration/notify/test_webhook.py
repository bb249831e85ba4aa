"""Notifications at a real HTTP receiver: one that fails, is slow, is away, and refuses."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog
from aiohttp import web

from meshd.model.errors import NotFound, Rejected
from meshd.model.event import Kind
from meshd.model.silence import NewSilence
from meshd.notify import webhook as webhook_module
from meshd.notify.grouping import Message
from meshd.notify.notifier import Notifier
from meshd.notify.topics import Alert
from meshd.notify.webhook import FIRST_PAUSE, GIVE_UP, MAX_QUEUED, Webhook
from meshd.spec.model import Project
from meshd.spec.model.notify import NotifyTarget
from meshd.store.events import EventLog
from meshd.store.silences import SilenceTable
from tests.support.ports import free_port
from tests.support.stores import open_store
from tests.support.waiting import wait_until

SECRET = "T0KEN-in-the-path"
LOOP = Alert("crash-loop", "shop/api", True, 100.0, "exit 1", "shop", "api", "api-1")


class Receiver:
    """A webhook that answers with the `statuses` in turn, then with 200."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.bodies: list[dict[str, Any]] = []
        self.requests = 0
        self.held: asyncio.Event | None = None
        self.port = free_port()
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post(f"/{SECRET}", self._take)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _take(self, request: web.Request) -> web.Response:
        self.requests += 1
        body = await request.json()
        if self.held is not None:
            await self.held.wait()
        status = self.statuses.pop(0) if self.statuses else 200
        if status == 200:
            self.bodies.append(body)
        location = {"Location": "https://elsewhere.test/"} if status == 302 else {}
        return web.Response(status=status, headers=location)

    def target(self, **more: Any) -> NotifyTarget:
        return NotifyTarget(url=f"http://127.0.0.1:{self.port}/{SECRET}", **more)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    await made.start()
    yield made
    await made.stop()


class Delivery:
    """A running webhook with counted outcomes; its pauses take no time and are noted."""

    def __init__(self, target: NotifyTarget) -> None:
        self.counts: Counter[str] = Counter()
        self.pauses: list[float] = []
        self.webhook = Webhook(target, "host-1", self.count, self.pause)

    def count(self, outcome: str) -> None:
        self.counts[outcome] += 1

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)


@contextlib.asynccontextmanager
async def delivery(target: NotifyTarget) -> AsyncIterator[Delivery]:
    made = Delivery(target)
    task = asyncio.create_task(made.webhook.run())
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_receiver_that_fails_gets_the_message_again(receiver: Receiver) -> None:
    receiver.statuses = [500, 429, 503]
    async with delivery(receiver.target()) as running:
        running.webhook.offer(Message((LOOP,)))
        await wait_until(lambda: receiver.bodies, 10, "the message")
        await wait_until(lambda: running.counts["sent"], 10, "its count")
    assert running.counts == {"retried": 3, "sent": 1}
    assert running.pauses == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
    assert receiver.bodies[0]["alerts"][0]["text"] == "exit 1"


@pytest.mark.parametrize("status", [302, 400, 404, 410])
async def test_a_refused_message_is_dropped_and_the_next_one_sent(
    receiver: Receiver, status: int
) -> None:
    receiver.statuses = [status]
    async with delivery(receiver.target(format="slack")) as running:
        running.webhook.offer(Message((LOOP,)))
        running.webhook.offer(Message((LOOP,)))
        await wait_until(lambda: running.counts["sent"], 10, "the second message")
    assert running.counts == {"dropped": 1, "sent": 1}
    assert "crash-loop shop/api" in receiver.bodies[0]["text"]


async def test_a_receiver_that_comes_back_gets_what_waited(receiver: Receiver) -> None:
    await receiver.stop()
    async with delivery(receiver.target()) as running:
        running.webhook.offer(Message((LOOP,)))
        await wait_until(lambda: running.counts["retried"] >= 2, 10, "retries")
        await receiver.start()
        await wait_until(lambda: running.counts["sent"], 10, "the message")


async def test_a_receiver_that_stays_away_loses_the_message(receiver: Receiver) -> None:
    await receiver.stop()
    async with delivery(receiver.target()) as running:
        running.webhook.offer(Message((LOOP,)))
        await wait_until(lambda: running.counts["dropped"], 10, "the end of the attempts")
    assert sum(running.pauses) >= GIVE_UP
    assert max(running.pauses) <= 300.0


async def test_a_slow_receiver_fills_the_queue_and_blocks_nothing(receiver: Receiver) -> None:
    receiver.held = asyncio.Event()
    async with delivery(receiver.target()) as running:
        running.webhook.offer(Message((LOOP,)))
        await wait_until(lambda: receiver.requests, 10, "the first request")
        for _ in range(MAX_QUEUED + 5):
            running.webhook.offer(Message((LOOP,)))
        assert running.counts == {"dropped": 5}
        receiver.held.set()
        await wait_until(lambda: running.counts["sent"] == MAX_QUEUED + 1, 10, "the rest")


async def test_a_receiver_that_does_not_answer_times_out(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_module, "TIMEOUT", aiohttp.ClientTimeout(total=0.05))
    receiver.held = asyncio.Event()
    async with delivery(receiver.target()) as running:
        running.webhook.offer(Message((LOOP,)))
        await wait_until(lambda: running.counts["retried"], 10, "a retry")
        receiver.held.set()
        await wait_until(lambda: running.counts["sent"], 10, "the message")


async def test_logs_do_not_show_the_secret(receiver: Receiver) -> None:
    receiver.statuses = [500, 302, 404]
    with structlog.testing.capture_logs() as logs:
        async with delivery(receiver.target()) as running:
            for _ in range(2):
                running.webhook.offer(Message((LOOP,)))
            await wait_until(lambda: running.counts["dropped"] == 2, 10, "both are dropped")
            await receiver.stop()
            running.webhook.offer(Message((LOOP,)))
            await wait_until(lambda: running.counts["dropped"] == 3, 10, "the third is dropped")
    assert len(logs) >= 4
    assert SECRET not in json.dumps(logs)
    assert SECRET not in repr(receiver.target())


async def test_the_notifier_sends_what_projects_ask_for(receiver: Receiver, tmp_path: Path) -> None:
    store = open_store(tmp_path / "state")
    events = EventLog(store)
    events.open()
    target = receiver.target(wait=0, interval=1)
    projects = [Project(name="shop", services=(), notify=(target,))]
    counts: Counter[str] = Counter()
    clock = [1000.0]
    notifier = Notifier(
        events,
        SilenceTable(store),
        lambda: projects,
        lambda o: counts.update([o]),
        lambda: clock[0],
    )
    running = asyncio.create_task(notifier.run())
    try:
        await wait_until(lambda: events._queues, 10, "a subscription")
        loop = Kind.REPLICA_CRASH_LOOP
        events.record(1.0, loop, "exit 1", project="shop", service="api", replica="api-1")
        events.record(1.0, loop, "exit 2", project="other", service="api", replica="api-1")
        events.record(1.0, Kind.NODE_LOST, "node n does not answer", replica="n")
        events.record(1.0, Kind.SCALE_UP, "2 → 3", project="shop", service="api")
        await wait_until(lambda: receiver.bodies, 10, "a message")
        (body,) = receiver.bodies
        assert [each["text"] for each in body["alerts"]] == ["exit 1", "node n does not answer"]

        made = notifier.create_silence(NewSilence(3600.0, "shop", "web"), "me")
        assert [each.id for each in notifier.silences()] == [made.id]
        clock[0] += 10.0
        events.record(1.0, loop, "exit 3", project="shop", service="web", replica="web-1")
        events.record(1.0, loop, "exit 4", project="shop", service="db", replica="db-1")
        await wait_until(lambda: len(receiver.bodies) > 1, 10, "a second message")
        assert [each["text"] for each in receiver.bodies[1]["alerts"]] == ["exit 4"]
        notifier.remove_silence(made.id)
        assert notifier.silences() == []
        with pytest.raises(NotFound):
            notifier.remove_silence(made.id)
        for wrong in (
            NewSilence(0.0),
            NewSilence(1e9),
            NewSilence(60.0, topic="nonsense"),
            NewSilence(60.0, service="web"),
            NewSilence(60.0, reason="x" * 1000),
        ):
            with pytest.raises(Rejected):
                notifier.create_silence(wrong, "me")

        await wait_until(lambda: counts["sent"] == 2, 10, "both are counted")
        projects.clear()
        clock[0] += 10.0
        events.record(1.0, Kind.RUNTIME_LOST, "the engine does not answer")
        await wait_until(lambda: not notifier._channels, 10, "no target")
        assert counts == {"sent": 2}
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        store.close()
