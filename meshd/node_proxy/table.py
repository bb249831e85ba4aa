"""The keys of the mesh's certificate authority, the nodes that joined, and open join tokens.

Made by `meshd.daemon.node_channel` on the store, and used by `server`. Of a token only its id and
its end are stored. All of it is part of backups and of what the next leader takes over
(`meshd.store.records`).
"""

from collections.abc import Callable, Sequence
from typing import Final

from meshd.model.errors import Rejected
from meshd.store.store import Store

MAX_JOIN_TOKENS: Final = 1000
"""Tokens that are open at once, so that a client cannot fill the disk."""
_KEY: Final = "authority_key"
_CERTIFICATE: Final = "authority_certificate"


class NodeProxyTable:
    """The nodes whose proxies may connect."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def authority(self, make: Callable[[], tuple[str, str]]) -> tuple[str, str]:
        """Return key and certificate (PEM) of the authority, made by `make` on first use. Raises
        StoreWriteError."""
        rows = dict(
            self._store.database.execute(
                "SELECT key, value FROM meta WHERE key IN (?, ?)", (_KEY, _CERTIFICATE)
            )
        )
        if len(rows) == len((_KEY, _CERTIFICATE)):
            return str(rows[_KEY]), str(rows[_CERTIFICATE])
        key, certificate = make()
        with self._store.transaction() as database:
            for name, value in ((_KEY, key), (_CERTIFICATE, certificate)):
                database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))
        return key, certificate

    def nodes(self) -> Sequence[str]:
        """Return the names of all nodes that joined."""
        return [
            str(name)
            for (name,) in self._store.database.execute("SELECT name FROM node_proxy ORDER BY name")
        ]

    def add_token(self, id: str, expires: float, now: float) -> None:
        """Store that a token is open. Raises Rejected, StoreWriteError."""
        with self._store.transaction() as database:
            database.execute("DELETE FROM join_token WHERE expires < ?", (now,))
            (count,) = database.execute("SELECT count(*) FROM join_token").fetchone()
            if count >= MAX_JOIN_TOKENS:
                raise Rejected(f"{count} join tokens are open; wait until some have expired")
            database.execute("INSERT INTO join_token VALUES (?, ?)", (id, expires))

    def join(self, token: str, node: str, now: float) -> None:
        """Use a token up for a node. Raises Rejected if the token was used or has expired, or if
        the node has joined already (the token then stays open), and StoreWriteError."""
        with self._store.transaction() as database:
            row = database.execute(
                "SELECT 1 FROM join_token WHERE id = ? AND expires >= ?", (token, now)
            ).fetchone()
            if row is None:
                raise Rejected(
                    "the join token was used or has expired; make another one with `meshd node "
                    "token`"
                )
            if database.execute("SELECT 1 FROM node_proxy WHERE name = ?", (node,)).fetchone():
                raise Rejected(
                    f"a node {node} has joined already; remove it with `meshd node remove {node}`, "
                    "or give another --name"
                )
            database.execute("DELETE FROM join_token WHERE id = ?", (token,))
            database.execute("INSERT INTO node_proxy VALUES (?, ?)", (node, now))

    def remove(self, node: str) -> bool:
        """Forget a node, which may not connect any more; False if there is none. Raises
        StoreWriteError."""
        with self._store.transaction() as database:
            return database.execute("DELETE FROM node_proxy WHERE name = ?", (node,)).rowcount > 0
