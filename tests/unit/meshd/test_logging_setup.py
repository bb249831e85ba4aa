"""Log lines: human on a terminal, one JSON object a line otherwise."""

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from meshd.logging_setup import set_up_logging
from meshd.model.event import Kind
from meshd.telemetry.events import BAD


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_a_pipe_gets_json() -> None:
    out = io.StringIO()
    set_up_logging("info", out)
    structlog.get_logger("meshd.test").info("replica ready", service="orders", seconds=0.5)
    logging.getLogger("aiohttp.server").warning("odd %s", "thing")
    structlog.get_logger("meshd.test").debug("too fine")
    first, second = (json.loads(line) for line in out.getvalue().splitlines())
    assert first["event"] == "replica ready"
    assert (first["service"], first["seconds"], first["level"]) == ("orders", 0.5, "info")
    assert (second["event"], second["logger"]) == ("odd thing", "aiohttp.server")
    assert second["timestamp"].endswith("Z")


def test_a_pipe_gets_the_traceback_inside_the_object() -> None:
    out = io.StringIO()
    set_up_logging("info", out)
    try:
        raise ValueError("broken")
    except ValueError:
        structlog.get_logger("meshd.test").exception("it broke")
    (line,) = out.getvalue().splitlines()
    assert "ValueError: broken" in json.loads(line)["exception"]


def test_a_terminal_gets_lines_for_people() -> None:
    out = Terminal()
    set_up_logging("debug", out)
    structlog.get_logger("meshd.test").debug("replica ready", service="orders")
    assert "replica ready" in out.getvalue()
    assert "{" not in out.getvalue()


def test_a_level_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="LOUD"):
        set_up_logging("loud", io.StringIO())


def test_kinds_are_words_with_dots() -> None:
    assert Kind("replica.ready") is Kind.REPLICA_READY
    assert {kind for kind in Kind if kind.startswith("scale.")}.isdisjoint(BAD)


def test_a_log_file_cannot_fill_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshd.logging_setup.LOG_LIMIT", 2000)
    path = tmp_path / "daemon.log"
    with path.open("a") as out:
        set_up_logging("info", out)
        for number in range(100):
            structlog.get_logger("meshd.test").info("again", number=number)
            assert path.stat().st_size <= 2000
    assert (tmp_path / "daemon.log.1").stat().st_size <= 2000 + 200
    lines = (tmp_path / "daemon.log.1").read_text() + path.read_text()
    assert json.loads(lines.splitlines()[-1])["number"] == 99
