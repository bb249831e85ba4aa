"""The tokens of the API. Only the SHA-256 of a secret is stored: it has 256 random bits, so that no
slow hash is needed. Made by `meshd.daemon.stores`, used by `meshd.control.access`."""

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from typing import Final

from meshd.model.access import NewToken, Role, Token
from meshd.model.errors import Rejected
from meshd.store.store import Store

PREFIX: Final = "meshd"
SECRET_BYTES: Final = 32
"""Random bytes of a secret: 256 bits, which cannot be guessed."""
ID_BYTES: Final = 4
"""Random bytes of an id: enough that two of `MAX_TOKENS` are rarely equal."""
MAX_TOKENS: Final = 1000
"""Tokens that are kept, so that a client cannot fill the disk."""


class TokenTable:
    """All tokens that were created and not revoked. A token is `meshd_ID_SECRET`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def create(self, new: NewToken, who: str, now: float) -> tuple[str, Token]:
        """Store a token; return its secret text and its record. Raises Rejected,
        StoreWriteError."""
        secret = secrets.token_urlsafe(SECRET_BYTES)
        token = Token(
            id=secrets.token_hex(ID_BYTES),
            name=new.name,
            role=new.role,
            project=new.project,
            created=now,
            expires=now + new.seconds if new.seconds else 0.0,
            who=who,
        )
        with self._store.transaction() as database:
            # An expired token is of no use, so it makes room.
            database.execute("DELETE FROM token WHERE expires > 0 AND expires < ?", (now,))
            (count,) = database.execute("SELECT count(*) FROM token").fetchone()
            if count >= MAX_TOKENS:
                raise Rejected(f"{count} tokens exist; revoke some with `meshd token revoke`")
            database.execute(
                "INSERT INTO token VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    token.id,
                    _hash(secret),
                    token.name,
                    token.role,
                    token.project,
                    token.created,
                    token.expires,
                    token.who,
                ),
            )
        return f"{PREFIX}_{token.id}_{secret}", token

    def find(self, text: str, now: float) -> Token | None:
        """Return the token that `text` is; None if it is unknown, revoked or expired."""
        prefix, _, rest = text.partition("_")
        id, _, secret = rest.partition("_")
        if prefix != PREFIX or not secret:
            return None
        row = self._store.database.execute("SELECT hash FROM token WHERE id = ?", (id,)).fetchone()
        if row is None or not hmac.compare_digest(bytes(row[0]), _hash(secret)):
            return None
        token = next(token for token in self.all() if token.id == id)
        return None if 0 < token.expires <= now else token

    def all(self) -> Sequence[Token]:
        """Return all tokens, oldest first."""
        rows = self._store.database.execute(
            "SELECT id, name, role, project, created, expires, who FROM token ORDER BY created, id"
        )
        return [Token(id, name, Role(role), *rest) for id, name, role, *rest in rows]

    def revoke(self, id: str) -> bool:
        """Delete a token; False if there is none. Raises StoreWriteError."""
        with self._store.transaction() as database:
            return database.execute("DELETE FROM token WHERE id = ?", (id,)).rowcount > 0


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
