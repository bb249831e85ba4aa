"""The stored marks of replicas that `meshd restart` is to replace, so that a control process that
takes over continues with them.

`meshd.reconcile.loop` stores the marks with the request, and reads them once when it starts.
"""

from collections.abc import Collection, Mapping

from meshd.store.store import Store


class ReplacementLog:
    """Why replicas are to be replaced although they match their revision, by name."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def read(self) -> Mapping[str, str]:
        """Return all that are stored."""
        return dict(self._store.database.execute("SELECT replica, cause FROM replacement"))

    def add(self, replicas: Collection[str], cause: str, existing: Collection[str]) -> None:
        """Store the cause for each of `replicas`, and delete those that are not `existing` any
        more. Raises StoreWriteError."""
        gone = [(name,) for name in self.read() if name not in existing]
        with self._store.transaction() as database:
            database.executemany("DELETE FROM replacement WHERE replica = ?", gone)
            database.executemany(
                "INSERT OR REPLACE INTO replacement VALUES (?, ?)",
                [(name, cause) for name in replicas],
            )
