"""A connection that is let go of under a question is an engine that does not answer."""

import asyncio
from pathlib import Path

import pytest

from meshd.runtime.base import RuntimeUnavailable
from meshd.runtime.docker.engine import Engine


class ClosedSession:
    closed = True


class ClosedDocker:
    session = ClosedSession()


async def test_a_session_closed_meanwhile_is_no_crash() -> None:
    engine = Engine()
    engine._docker = ClosedDocker()  # type: ignore[assignment]
    with pytest.raises(RuntimeUnavailable):
        async with engine.request():
            raise RuntimeError("Session is closed")


async def test_any_other_error_of_that_kind_is_a_bug_and_shown() -> None:
    class Open(ClosedDocker):
        session = type("Session", (), {"closed": False})()

    engine = Engine()
    engine._docker = Open()  # type: ignore[assignment]
    with pytest.raises(RuntimeError, match="a bug"):
        async with engine.request():
            raise RuntimeError("a bug")


async def test_nobody_asks_over_a_connection_that_is_still_being_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An engine that never answers `/version`: others are told at once, and do not wait."""
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
