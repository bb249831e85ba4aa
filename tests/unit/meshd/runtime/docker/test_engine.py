"""A connection that is closed during a request counts as an engine that does not answer."""

import asyncio
import struct
from contextlib import aclosing
from pathlib import Path

import pytest
from aiohttp import web

from meshd.model.output import ALL_LINES, OutputQuery
from meshd.runtime.base import RuntimeUnavailable
from meshd.runtime.docker import logs
from meshd.runtime.docker.engine import Engine
from tests.support.waiting import wait_until


class ClosedSession:
    closed = True


class ClosedDocker:
    session = ClosedSession()


async def test_a_session_closed_meanwhile_is_an_unavailable_engine() -> None:
    engine = Engine()
    engine._docker = ClosedDocker()  # type: ignore[assignment]
    with pytest.raises(RuntimeUnavailable):
        async with engine.request():
            raise RuntimeError("Session is closed")


async def test_other_runtime_errors_are_raised() -> None:
    class Open(ClosedDocker):
        session = type("Session", (), {"closed": False})()

    engine = Engine()
    engine._docker = Open()  # type: ignore[assignment]
    with pytest.raises(RuntimeError, match="a bug"):
        async with engine.request():
            raise RuntimeError("a bug")


async def test_no_request_uses_a_connection_that_is_still_opening(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An engine that never answers `/version`: concurrent callers get the error at once."""
    path = tmp_path / "engine.sock"
    asked = asyncio.Event()
    ended = asyncio.Event()

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await ended.wait()
        writer.close()

    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    server = await asyncio.start_unix_server(silent, path)
    engine = Engine()
    opening = asyncio.create_task(engine.open())
    await asked.wait()
    with pytest.raises(RuntimeUnavailable, match="not connected"):
        async with engine.request():
            pass
    ended.set()
    with pytest.raises(RuntimeUnavailable, match="closed the connection"):
        await opening
    server.close()
    await server.wait_closed()


async def test_a_stream_that_is_left_gives_its_connection_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The engine sees at once that the output is no longer read."""
    line = b"2026-05-01T14:30:00.000000000Z a line\n"
    left = asyncio.Event()

    async def output(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(struct.pack(">BxxxL", 1, len(line)) + line)
        await wait_until(lambda: request.transport is None, what="the stream is left")
        left.set()
        return response

    async def version(_: web.Request) -> web.Response:
        return web.json_response({"ApiVersion": "1.41", "MinAPIVersion": "1.12"})

    async def inspect(_: web.Request) -> web.Response:
        return web.json_response({"Id": "web-1", "Config": {"Tty": False}})

    app = web.Application()
    app.router.add_get("/version", version)
    app.router.add_get("/v1.41/containers/web-1/json", inspect)
    app.router.add_get("/v1.41/containers/web-1/logs", output)
    runner = web.AppRunner(app)
    await runner.setup()
    path = tmp_path / "engine.sock"
    await web.UnixSite(runner, str(path)).start()
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    engine = Engine()
    await engine.open()
    try:
        async with aclosing(logs.follow(engine, "web-1", OutputQuery(ALL_LINES))) as lines:  # type: ignore[type-var]
            assert (await anext(lines)).text == "a line"
        await wait_until(left.is_set, what="the engine sees that the stream was left")
    finally:
        await engine.close()
        await runner.cleanup()
