"""A connection that is let go of under a question is an engine that does not answer."""

import pytest

from meshd.runtime.base import RuntimeUnavailable
from meshd.runtime.docker_engine import Engine


class ClosedSession:
    closed = True


class ClosedDocker:
    session = ClosedSession()


async def test_a_session_closed_meanwhile_is_no_crash() -> None:
    engine = Engine()
    engine._docker = ClosedDocker()  # type: ignore[assignment]
    with pytest.raises(RuntimeUnavailable):
        async with engine.asked():
            raise RuntimeError("Session is closed")


async def test_any_other_error_of_that_kind_is_a_bug_and_shown() -> None:
    class Open(ClosedDocker):
        session = type("Session", (), {"closed": False})()

    engine = Engine()
    engine._docker = Open()  # type: ignore[assignment]
    with pytest.raises(RuntimeError, match="a bug"):
        async with engine.asked():
            raise RuntimeError("a bug")
