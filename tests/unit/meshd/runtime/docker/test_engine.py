"""A connection that is closed during a request counts as an engine that does not answer."""

import asyncio
from pathlib import Path

import pytest

from meshd.runtime.base import RuntimeUnavailable
from meshd.runtime.docker.engine import Engine


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
