"""Documents that replicas share: one SQLite file on a shared volume.

Used by `orders` and `payments`. The calls block for a few milliseconds, so the services run them
in a thread.
"""

import os
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

Result = TypeVar("Result")

BUSY_SECONDS: Final = 10.0
"""Seconds for which a locked file is tried again."""
RETRY_SECONDS: Final = 0.05
"""Seconds between two attempts."""


def data_folder() -> Path:
    """Return $DATA_DIR if it is a writable folder, otherwise a folder below the system's temporary
    folder, so that the demo also runs without a mounted volume."""
    given = Path(os.environ.get("DATA_DIR", "/data"))
    if given.is_dir() and os.access(given, os.W_OK):
        return given
    fallback = Path(tempfile.gettempdir()) / f"meshd-demo-{os.getuid()}"
    fallback.mkdir(mode=0o700, exist_ok=True)
    return fallback


class DocumentStore:
    """A table of JSON documents by id. Storing an id twice changes nothing, so a repeated request
    is harmless."""

    def __init__(self, table: str) -> None:
        if not table.isidentifier():
            raise ValueError(f"not a table name: {table!r}")
        self._table = table
        self._path = data_folder() / f"{table}.db"

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute(
                f"CREATE TABLE IF NOT EXISTS {self._table} (id TEXT PRIMARY KEY, document TEXT)"
            )
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _run(self, use: Callable[[sqlite3.Connection], Result]) -> Result:
        """Return what `use` returns for a connection. SQLite does not wait for a lock in one case:
        while another process, the last one, closes the file. So this tries again. Raises
        sqlite3.OperationalError if the file stays locked for `BUSY_SECONDS`."""
        end = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                connection = self._open()
                try:
                    return use(connection)
                finally:
                    connection.close()
            except sqlite3.OperationalError as error:
                busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                if not busy or time.monotonic() > end:
                    raise
            time.sleep(RETRY_SECONDS)

    def put(self, key: str, document: str) -> bool:
        """Store a document; return False if the id exists already."""

        def insert(connection: sqlite3.Connection) -> bool:
            done = connection.execute(
                f"INSERT OR IGNORE INTO {self._table} VALUES (?, ?)",  # noqa: S608 - an identifier
                (key, document),
            )
            return done.rowcount == 1

        return self._run(insert)

    def get(self, key: str) -> str | None:
        """Return the document with that id; None if it does not exist."""

        def find(connection: sqlite3.Connection) -> str | None:
            row = connection.execute(
                f"SELECT document FROM {self._table} WHERE id = ?",  # noqa: S608 - an identifier
                (key,),
            ).fetchone()
            return None if row is None else str(row[0])

        return self._run(find)
