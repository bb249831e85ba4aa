"""Rows that replicas share: one SQLite file on a shared volume.

Calls block for a moment; services run them in a thread.
"""

import os
import sqlite3
import tempfile
from pathlib import Path


def folder() -> Path:
    """$DATA_DIR where it is a folder, else one below the system's temporary folder, so that
    the demo also runs where no volume is mounted."""
    wanted = Path(os.environ.get("DATA_DIR", "/data"))
    if wanted.is_dir() and os.access(wanted, os.W_OK):
        return wanted
    fallback = Path(tempfile.gettempdir()) / f"meshd-demo-{os.getuid()}"
    fallback.mkdir(mode=0o700, exist_ok=True)
    return fallback


class Ledger:
    """A table of JSON documents by id. `put` of an id that exists changes nothing, which is
    what makes a repeated request harmless."""

    def __init__(self, table: str) -> None:
        if not table.isidentifier():
            raise ValueError(f"not a table name: {table!r}")
        self._table = table
        self._path = folder() / f"{table}.db"

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=10, isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS {self._table} (id TEXT PRIMARY KEY, document TEXT)"
        )
        return connection

    def put(self, key: str, document: str) -> bool:
        """Store a document; False when the id was there already."""
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
        """The document of that id, if there is one."""
        connection = self._open()
        try:
            row = connection.execute(
                f"SELECT document FROM {self._table} WHERE id = ?",  # noqa: S608 - an identifier
                (key,),
            ).fetchone()
            return None if row is None else str(row[0])
        finally:
            connection.close()
