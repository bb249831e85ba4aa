"""Live requests of a worker, watched through the files of `meshd tap`."""

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from meshd.cli.commands.tap import format_request, timing
from meshd.control.recorder import MAX_WATCHERS, Recorder
from meshd.model.errors import Rejected
from meshd.telemetry.tap_watcher import DIRECTORY, Watcher
from proxy.observe.access_log import AccessLog
from proxy.observe.tap import TapFilter, TapLine, TapLog
from proxy.worker.taps import Taps
from tests.support.proxy_policies import close_after_request, route
from tests.support.proxy_scene import OK, Client, answers, get, on_uvloop, scene, service
from tests.support.waiting import wait_until


async def ask(client: Client, path: str) -> None:
    await client.send(get(path))
    await client.response()


async def next_line(watcher: Watcher) -> TapLine:
    return await asyncio.wait_for(anext(watcher.lines()), 30)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A directory with a short path: those of sockets are limited."""
    return tmp_path


@on_uvloop
async def test_requests_of_the_fast_path_are_seen_with_their_timing(state: Path) -> None:
    async with scene() as s:
        taps = Taps(str(state / DIRECTORY), None, s.plane.use_access_log)
        await s.serve(answers(OK))
        client = await s.client()
        for _ in range(3):
            await ask(client, "/before")
        taps.refresh()
        assert s.plane.access_log is None, "no one watches"
        with Watcher(state, TapFilter("shop", path="/wanted")) as watcher:
            taps.refresh()
            assert isinstance(s.plane.access_log, TapLog)
            for path in ("/other", "/wanted?x=1", "/wanted"):
                await ask(client, path)
            first, second = await next_line(watcher), await next_line(watcher)
        assert [first.request.target, second.request.target] == ["/wanted?x=1", "/wanted"]
        assert (first.request.status, first.request.endpoint) == (200, "shop-0")
        assert first.request.total > 0.0
        assert "GET shop.test/wanted?x=1  [" in format_request(first.request)
        taps.refresh()
        assert s.plane.access_log is None
        await ask(client, "/after")


@on_uvloop
async def test_failures_are_seen_and_the_access_log_stays_as_it_is(state: Path) -> None:
    log = AccessLog("json")
    async with scene({"access_log": log}) as s:
        taps = Taps(str(state / DIRECTORY), log, s.plane.use_access_log)
        good, bad = await s.origin(answers(OK)), await s.origin(close_after_request)
        routes = (route(), route("bad", path="/bad"))
        s.install(service(good), service(bad, name="bad"), routes=routes)
        client = await s.client()
        with Watcher(state, TapFilter(status="5xx")) as watcher:
            taps.refresh()
            for path in ("/", "/bad", "/"):
                await ask(client, path)
            line = await next_line(watcher)
        assert (line.request.status, line.request.failure) == (502, "closed")
        assert log.take().count(b"\n") == 3
        taps.refresh()
        assert s.plane.access_log is log


@on_uvloop
async def test_a_watcher_that_was_killed_is_forgotten(state: Path) -> None:
    async with scene() as s:
        taps = Taps(str(state / DIRECTORY), None, s.plane.use_access_log)
        await s.serve(answers(OK))
        client = await s.client()
        watcher = Watcher(state, TapFilter())
        watcher.__enter__()
        watcher._socket.close()  # its files stay
        taps.refresh()
        await ask(client, "/")
        taps.refresh()
        assert s.plane.access_log is None
        taps.refresh()
        old = time.time() - 3600
        for path in (state / DIRECTORY).glob("*.json"):
            os.utime(path, (old, old))
        with Watcher(state, TapFilter()):
            assert len(list((state / DIRECTORY).iterdir())) == 2, (
                "those of the dead one are removed"
            )
        assert not list((state / DIRECTORY).iterdir())


@on_uvloop
async def test_nonsense_in_the_directory_harms_nothing(state: Path) -> None:
    directory = state / DIRECTORY
    directory.mkdir()
    later = time.time() + 100
    for name, text in (
        ("a", b"{"),
        ("b", b"[]"),
        ("c", msgspec.json.encode(TapFilter(path="(", until=later))),
        ("d", msgspec.json.encode(TapFilter(until=later))),
        ("e", msgspec.json.encode(TapFilter(until=1.0))),
        ("f", b" " * 100_000),
    ):
        (directory / f"{name}.json").write_bytes(text)
    (directory / "g.json").mkdir()
    async with scene() as s:
        taps = Taps(str(directory), None, s.plane.use_access_log)
        taps.refresh()
        assert s.plane.access_log is None
        taps.close()


def test_lines_are_safe_for_a_terminal() -> None:
    line = msgspec.json.decode(
        msgspec.json.encode(
            {
                "request": {
                    "time": 1.0, "client": "1.2.3.4", "method": "GET", "target": "/\x1b[2J\x9b",
                    "version": "HTTP/1.1", "status": 504, "total": 2.0, "queue": 0.5,
                    "connect": 0.25, "first_byte": 0.75, "retries": 1,
                    "failure": "first-byte-timeout",
                },
                "lost": 3,
            }
        ),
        type=TapLine,
    )  # fmt: skip
    text = format_request(line.request)
    assert "/�[2J�" in text
    assert "retries 1  first-byte-timeout" in text
    assert timing(line.request) == "queue 500 ms, connect 250 ms, first byte 500 ms"


@on_uvloop
async def test_clients_of_the_api_watch_a_bounded_number_at_a_time(state: Path) -> None:
    unused: Any = None
    recorder = Recorder(state, unused, unused, unused, time.time)
    async with scene() as s:
        taps = Taps(str(state / DIRECTORY), None, s.plane.use_access_log)
        await s.serve(answers(OK))
        client = await s.client()
        watching = [recorder.tap(TapFilter("shop")) for _ in range(MAX_WATCHERS)]
        lines = [asyncio.ensure_future(anext(each)) for each in watching]
        await wait_until(lambda: len(list(state.glob(f"{DIRECTORY}/*.json"))) == MAX_WATCHERS)
        with pytest.raises(Rejected, match="8 clients watch requests already"):
            recorder.tap(TapFilter("shop"))
        taps.refresh()
        await ask(client, "/seen")
        for line in await asyncio.wait_for(asyncio.gather(*lines), 30):
            assert line.request.target == "/seen"
        for each in watching:
            await each.aclose()
        assert list(state.glob(f"{DIRECTORY}/*")) == []
        taps.refresh()
        await recorder.tap(TapFilter("shop")).aclose()
