"""The documents that replicas of the demo share."""

import sqlite3
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from demo_services import document_store


@pytest.mark.parametrize(
    ("code", "tried_again"), [(sqlite3.SQLITE_BUSY, True), (sqlite3.SQLITE_FULL, False)]
)
def test_a_file_that_is_locked_without_waiting_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, tried_again: bool
) -> None:
    """SQLite reports a lock at once while the last other process closes the file."""
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    monkeypatch.setattr(document_store, "RETRY_SECONDS", 0.0)
    real, attempts = sqlite3.connect, []

    def connect(*given: Any, **named: Any) -> sqlite3.Connection:
        attempts.append(given)
        if len(attempts) <= 2:
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorcode = code
            raise error
        return real(*given, **named)

    monkeypatch.setattr(sqlite3, "connect", connect)
    store = document_store.DocumentStore("payments")
    with nullcontext() if tried_again else pytest.raises(sqlite3.OperationalError):
        assert store.put("1", "one")
    assert len(attempts) == (3 if tried_again else 1)
