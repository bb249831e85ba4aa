"""The state file: held by one process, changed by whole transactions; its epoch, id and secret.
Base of `Store`."""

import contextlib
import secrets
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from meshd.model.errors import StoreWriteError
from meshd.store import presence
from meshd.store.lock import StateLock
from meshd.store.schema import migrate

RETRY_SECONDS: Final = 2.0
"""Seconds between two attempts to open a file that could not be written."""
_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - private folders in it, removed at once
"""The file system in memory that every Linux has."""


class StateFile:
    """The SQLite file `meshd.db` in the state directory.

    A file that can be read but not written, for example on a full disk, is opened as a copy in
    memory: the mesh heals with what it knows, and every change is refused until the file can be
    written again.

    - `problem`: why the last change could not be written; empty if it was.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / "meshd.db"
        self.problem = ""
        self._lock = StateLock(directory / presence.LOCK)
        self._database: sqlite3.Connection | None = None
        self._is_copy = False
        self._retry_at = 0.0

    def open(self) -> None:
        """Open the state. Raises StateLocked, SchemaTooNew, StoreWriteError,
        sqlite3.DatabaseError."""
        try:
            self._lock.acquire()
            self._database = self._connect()
        except (OSError, sqlite3.OperationalError) as error:
            copy = self._copy_to_memory()
            if copy is not None:
                self._database, self._is_copy = copy, True
                self.problem = f"the state in {self.path.parent} cannot be written: {error}"
                return
            self.close()
            reason = error.strerror if isinstance(error, OSError) else error
            raise StoreWriteError(
                f"the state in {self.path.parent} cannot be opened: {reason}; make sure its disk "
                "has free space and is writable, then start again"
            ) from error
        except BaseException:
            self.close()
            raise

    def _connect(self) -> sqlite3.Connection:
        """Open the file itself. Raises OSError, sqlite3.OperationalError, SchemaTooNew."""
        database = sqlite3.connect(self.path, isolation_level=None)
        try:
            self.path.chmod(0o600)
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            migrate(database)
        except BaseException:
            database.close()
            raise
        return database

    def _copy_to_memory(self) -> sqlite3.Connection | None:
        """Return a copy of the file in memory; None if it cannot be read either.

        SQLite needs to write even to read a file in WAL mode, so the files are copied to a file
        system in memory first. Raises SchemaTooNew.
        """
        if not self._lock.is_held or not self.path.exists():
            return None
        copy = sqlite3.connect(":memory:", isolation_level=None)
        try:
            with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
                for suffix in ("", "-wal"):
                    source = Path(f"{self.path}{suffix}")
                    if source.exists():
                        shutil.copyfile(source, Path(folder) / source.name)
                with contextlib.closing(sqlite3.connect(Path(folder) / self.path.name)) as read:
                    read.backup(copy)
            if not copy.execute("PRAGMA user_version").fetchone()[0]:
                copy.close()
                return None  # a new file, in which nothing was stored yet
            migrate(copy)
        except (OSError, sqlite3.Error):
            copy.close()
            return None
        except BaseException:
            copy.close()
            raise
        return copy

    def _replace_copy(self) -> None:
        """Continue with the file itself if it can be opened again. Raises StoreWriteError."""
        now = time.monotonic()
        if now >= self._retry_at:
            self._retry_at = now + RETRY_SECONDS
            try:
                opened = self._connect()
            except (OSError, sqlite3.OperationalError) as error:
                self.problem = f"the state in {self.path.parent} cannot be written: {error}"
            else:
                self.database.close()
                self._database, self._is_copy = opened, False
                return
        raise StoreWriteError(f"{self.problem}; nothing was changed")

    def close(self) -> None:
        """Close the state; no effect if it is not open."""
        if self._database is not None:
            self._database.close()
            self._database = None
        self._lock.release()

    @property
    def database(self) -> sqlite3.Connection:
        """The open database."""
        if self._database is None:
            raise RuntimeError("the store is not open")
        return self._database

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Run a transaction: all or nothing. Raises StoreWriteError."""
        if self._is_copy:
            self._replace_copy()
        try:
            self.database.execute("BEGIN IMMEDIATE")
            yield self.database
            self.database.execute("COMMIT")
            self.problem = ""
        except sqlite3.OperationalError as error:
            self.problem = f"the state in {self.path.parent} cannot be written: {error}"
            raise StoreWriteError(f"{self.problem}; nothing was changed") from error
        finally:
            if self.database.in_transaction:  # on a full disk SQLite may have ended it already
                self.database.execute("ROLLBACK")

    def next_epoch(self) -> int:
        """Return a number above every earlier one. If it cannot be stored, it may be that of an
        earlier process; the supervisor then asks for a higher one."""
        row = self.database.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()
        epoch = int(row[0]) + 1 if row else 1
        with contextlib.suppress(StoreWriteError), self.transaction() as database:
            database.execute("INSERT OR REPLACE INTO meta VALUES ('epoch', ?)", (epoch,))
        return epoch

    def instance(self) -> str:
        """Return the id of this state, which distinguishes meshes on one runtime; created on
        first use."""
        row = self.database.execute("SELECT value FROM meta WHERE key = 'instance'").fetchone()
        if row:
            return str(row[0])
        made = secrets.token_hex(6)
        with self.transaction() as database:
            database.execute("INSERT INTO meta VALUES ('instance', ?)", (made,))
        return made

    def secret(self) -> bytes:
        """Return the key from which the tokens of replicas are derived; created on first use."""
        row = self.database.execute("SELECT value FROM meta WHERE key = 'secret'").fetchone()
        if row:
            return bytes(row[0])
        made = secrets.token_bytes(32)
        with self.transaction() as database:
            database.execute("INSERT INTO meta VALUES ('secret', ?)", (made,))
        return made
