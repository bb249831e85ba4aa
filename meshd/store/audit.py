"""The audit log: who changed what, and when; bounded, kept over restarts. Made by
`meshd.daemon.stores`, used by `meshd.control.access`."""

from collections.abc import Sequence
from typing import Final

import msgspec

from meshd.model.access import AuditEntry, Role
from meshd.store.store import Store

KEPT: Final = 10_000
"""Entries kept on disk: months of work by hand, in a few MiB."""
MAX_TEXT: Final = 1000
"""Characters of a path or detail that are kept."""


class AuditLog:
    """Entries in the order in which the requests ended."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def record(self, entry: AuditEntry) -> None:
        """Add an entry; its id is chosen here. The oldest ones are deleted. Raises
        StoreWriteError."""
        values = msgspec.structs.astuple(entry)[1:]
        cut = [value[:MAX_TEXT] if isinstance(value, str) else value for value in values]
        with self._store.transaction() as database:
            database.execute(
                "INSERT INTO audit (at, who, role, source, method, path, status, detail) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                cut,
            )
            database.execute(
                "DELETE FROM audit WHERE id <= "
                "(SELECT id FROM audit ORDER BY id DESC LIMIT 1 OFFSET ?)",
                (KEPT,),
            )

    def before(self, id: int, limit: int) -> Sequence[AuditEntry]:
        """Return the newest entries with a smaller id (0: of all), newest first."""
        rows = self._store.database.execute(
            "SELECT id, at, who, role, source, method, path, status, detail FROM audit "
            "WHERE id < ? OR ? = 0 ORDER BY id DESC LIMIT ?",
            (id, id, limit),
        )
        return [
            AuditEntry(number, at, who, Role(role), *rest) for number, at, who, role, *rest in rows
        ]
