"""The keys of the mesh's certificate authority, the nodes that joined, and open join tokens.

Made by `meshd.daemon.node_channel` on the store, and used by `server`. Of a token only its id and
its end are stored, of an authority that is given in a file only the certificate. All of it is part
of backups and of what the next leader takes over (`meshd.store.records`).
"""

import contextlib
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from meshd.model.errors import BadAuthority, Rejected
from meshd.store.store import Store

MAX_JOIN_TOKENS: Final = 1000
"""Tokens that are open at once, so that a client cannot fill the disk."""
_KEY: Final = "authority_key"
_CERTIFICATE: Final = "authority_certificate"


def read_stored_authority(state: Path) -> tuple[str, str] | None:
    """Return key and certificate (PEM) of the authority in a state directory, whether its daemon
    runs or not; None if there is none yet. Raises BadAuthority if only the certificate is there,
    and sqlite3.Error."""
    file = state / "meshd.db"
    if not file.exists():
        return None
    with contextlib.closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as db:
        rows = dict(
            db.execute("SELECT key, value FROM meta WHERE key IN (?, ?)", (_KEY, _CERTIFICATE))
        )
    if not rows:
        return None
    if _KEY not in rows:
        raise BadAuthority("the key of the mesh's authority is in a file, not in the state")
    return str(rows[_KEY]), str(rows[_CERTIFICATE])


class NodeProxyTable:
    """The nodes whose proxies may connect."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def authority(
        self, make: Callable[[], tuple[str, str]], given: tuple[str, str] | None = None
    ) -> tuple[str, str]:
        """Return key and certificate (PEM) of the authority: `given`, of which only the certificate
        is stored; else the stored one, made by `make` on first use.

        Raises BadAuthority if nodes would not know it, and StoreWriteError.
        """
        rows = dict(
            self._store.database.execute(
                "SELECT key, value FROM meta WHERE key IN (?, ?)", (_KEY, _CERTIFICATE)
            )
        )
        if given is not None:
            if rows.get(_CERTIFICATE, given[1]) != given[1] and (joined := self.nodes()):
                raise BadAuthority(
                    f"{', '.join(joined)} joined with another authority than that of "
                    "--authority-file; give that one (`meshd node authority` prints it), or remove "
                    "these nodes first"
                )
        elif len(rows) == len((_KEY, _CERTIFICATE)):
            return str(rows[_KEY]), str(rows[_CERTIFICATE])
        elif _CERTIFICATE in rows:
            raise BadAuthority(
                "the key of the mesh's authority is not in the state, but in a file: start with "
                "--authority-file"
            )
        key, certificate = given or make()
        with self._store.transaction() as database:
            database.execute("DELETE FROM meta WHERE key = ?", (_KEY,))
            for name, value in ((_KEY, key), (_CERTIFICATE, certificate)):
                if given is None or name != _KEY:
                    database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))
        return key, certificate

    def nodes(self) -> Sequence[str]:
        """Return the names of all nodes that joined."""
        return list(self.joined())

    def joined(self) -> Mapping[str, float]:
        """Return when each node joined (Unix time), by name. A certificate that was issued before
        is that of a node of the same name that was removed."""
        return {
            str(name): float(at)
            for name, at in self._store.database.execute(
                "SELECT name, joined FROM node_proxy ORDER BY name"
            )
        }

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
