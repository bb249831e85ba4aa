"""The stored list of replicas that a backup has quiesced, so that each is resumed in any case.

`meshd.control.quiescer` adds a replica before its `quiesce` command runs, and removes it after
`resume`. One value in the table `meta`, because the list is short and usually empty.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from meshd.model.volume import QuiescedReplica
from meshd.store.store import Store

KEY: Final = "quiesced"


class QuiescedLog:
    """Replicas to resume, by name."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def read(self) -> Sequence[QuiescedReplica]:
        """Return all that are stored."""
        row = self._store.database.execute(
            "SELECT value FROM meta WHERE key = ?", (KEY,)
        ).fetchone()
        return msgspec.json.decode(row[0], type=list[QuiescedReplica]) if row else []

    def keep(self, replica: QuiescedReplica) -> None:
        """Store one, in place of an earlier one of that name. Raises StoreWriteError."""
        self._write([*self._others(replica.replica), replica])

    def remove(self, name: str) -> None:
        """Delete one. Raises StoreWriteError."""
        self._write(self._others(name))

    def _others(self, name: str) -> list[QuiescedReplica]:
        return [each for each in self.read() if each.replica != name]

    def _write(self, replicas: Iterable[QuiescedReplica]) -> None:
        body = msgspec.json.encode(list(replicas))
        with self._store.transaction() as database:
            database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (KEY, body))
