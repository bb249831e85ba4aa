"""Documents that replicas share: one SQLite file on a shared volume.

Used by `orders` and `payments`. The calls block for a few milliseconds, so the services run them
in a thread.
"""

import os
import sqlite3
import tempfile
from pathlib import Path


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
        connection = sqlite3.connect(self._path, timeout=10, isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS {self._table} (id TEXT PRIMARY KEY, document TEXT)"
        )
        return connection

    def put(self, key: str, document: str) -> bool:
        """Store a document; return False if the id exists already."""
        connection = self._open()
        try:
            done = connection.execute(
                f"INSERT OR IGNORE INTO {self._table} VALUES (?, ?)",  # noqa: S608 - an identifier
                (key, document),
            )
            return done.rowcount == 1
        finally:
            connection.close()

    def get(self, key: str) -> str | None:
        """Return the document with that id; None if it does not exist."""
        connection = self._open()
        try:
            row = connection.execute(
                f"SELECT document FROM {self._table} WHERE id = ?",  # noqa: S608 - an identifier
                (key,),
            ).fetchone()
            return None if row is None else str(row[0])
        finally:
            connection.close()
