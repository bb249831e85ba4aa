"""The state file: held by one process, changed by whole transactions; its epoch, id and secret.
Base of `Store`."""

import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from meshd.model.errors import StoreWriteError
from meshd.store import presence
from meshd.store.lock import StateLock
from meshd.store.schema import migrate


class StateFile:
    """The SQLite file `meshd.db` in the state directory."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "meshd.db"
        self._lock = StateLock(directory / presence.LOCK)
        self._database: sqlite3.Connection | None = None

    def open(self) -> None:
        """Open the state. Raises StateLocked, SchemaTooNew, StoreWriteError,
        sqlite3.DatabaseError."""
        try:
            self._lock.acquire()
            self._database = sqlite3.connect(self.path, isolation_level=None)
            self.path.chmod(0o600)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            migrate(self._database)
        except (OSError, sqlite3.OperationalError) as error:
            self.close()
            reason = error.strerror if isinstance(error, OSError) else error
            raise StoreWriteError(
                f"the state in {self.path.parent} cannot be opened: {reason}; make sure its disk "
                "has free space and is writable, then start again"
            ) from error
        except BaseException:
            self.close()
            raise

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
        try:
            self.database.execute("BEGIN IMMEDIATE")
            yield self.database
            self.database.execute("COMMIT")
        except sqlite3.OperationalError as error:
            raise StoreWriteError(
                f"the state in {self.path.parent} cannot be written: {error}; nothing was changed"
            ) from error
        finally:
            if self.database.in_transaction:  # on a full disk SQLite may have ended it already
                self.database.execute("ROLLBACK")

    def next_epoch(self) -> int:
        """Return a number above every earlier one."""
        with self.transaction() as database:
            row = database.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()
            epoch = int(row[0]) + 1 if row else 1
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
