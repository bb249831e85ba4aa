"""The silences of notifications. One value in the table `meta`, because the list is short.

Made by `meshd.daemon.stores`, used by `meshd.notify`.
"""

import secrets
from collections.abc import Sequence
from typing import Final

import msgspec

from meshd.model.errors import Rejected
from meshd.model.silence import NewSilence, Silence
from meshd.store.store import Store

KEY: Final = "silences"
"""Key in `meta`."""
ID_BYTES: Final = 4
"""Random bytes of an id: enough that two of `MAX_SILENCES` are rarely equal."""
MAX_SILENCES: Final = 200
"""Silences at a time, so that a client cannot fill the state."""


class SilenceTable:
    """All silences that have not ended."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def all(self, now: float) -> Sequence[Silence]:
        """Return the silences that hold, oldest first."""
        row = self._store.database.execute(
            "SELECT value FROM meta WHERE key = ?", (KEY,)
        ).fetchone()
        found = msgspec.json.decode(row[0], type=list[Silence]) if row else []
        return [each for each in found if now < each.until]

    def create(self, new: NewSilence, who: str, now: float) -> Silence:
        """Store a silence and return it. Raises Rejected, StoreWriteError."""
        found = list(self.all(now))
        if len(found) >= MAX_SILENCES:
            raise Rejected(f"{len(found)} silences exist; end some with `meshd silence rm`")
        made = Silence(
            id=secrets.token_hex(ID_BYTES),
            project=new.project,
            service=new.service,
            topic=new.topic,
            until=now + new.seconds,
            who=who,
            reason=new.reason,
        )
        self._keep([*found, made])
        return made

    def remove(self, id: str, now: float) -> bool:
        """End a silence; False if there is none. Raises StoreWriteError."""
        found = list(self.all(now))
        kept = [each for each in found if each.id != id]
        if len(kept) < len(found):
            self._keep(kept)
        return len(kept) < len(found)

    def _keep(self, silences: Sequence[Silence]) -> None:
        with self._store.transaction() as database:
            body = msgspec.json.encode(silences)
            database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (KEY, body))
