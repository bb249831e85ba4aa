"""What another control process needs to continue where this one stopped, as bytes.

`meshd.daemon.leadership` stores it with the lease of a Swarm, and restores it when another process
takes over: projects, revisions, rollouts, overrides, numbers of the autoscaler, releases, tokens,
joined nodes, the authority of the mesh and its identity. Events, decisions, traffic and jobs stay
where they are.
"""

import contextlib
import json
import sqlite3
import zlib
from typing import Any, Final

from meshd.store.schema import MIGRATIONS, SchemaTooNew, migrate
from meshd.store.store import Store

TABLES: Final = (
    "project",
    "revision",
    "rollout",
    "override",
    "scaling",
    "canary_analysis",
    "replacement",
    "release",
    "schedule",
    "token",
    "node_proxy",
    "join_token",
)
_CURRENT: Final = "current_lease"
"""The row of `meta` that says up to which lease the state is current. A host that led before has a
state, but not what later leaders changed."""
_IDENTITY: Final = ("instance", "secret", "authority_key", "authority_certificate")
"""The rows of `meta` that are shared; the others are about one host."""


def dump(store: Store) -> bytes:
    """Return the shared part of the state; equal for equal states."""
    database = store.database
    tables = _read_tables(database)
    identity = {
        key: _encode(value)
        for key, value in database.execute("SELECT key, value FROM meta")
        if key in _IDENTITY
    }
    content = {"schema": len(MIGRATIONS), "tables": tables, "identity": identity}
    return zlib.compress(json.dumps(content, separators=(",", ":")).encode())


def restore(store: Store, content: bytes, token: int) -> None:
    """Replace the shared part of the state, and note that it is current up to the lease with
    `token`, both or nothing; a state of an earlier version of meshd is migrated. The store must be
    opened again afterwards. Raises SchemaTooNew if a later version wrote it, StoreWriteError."""
    found = json.loads(zlib.decompress(content))
    if found["schema"] > len(MIGRATIONS):
        raise SchemaTooNew(
            f"the leader before had schema {found['schema']}, and this meshd knows up to "
            f"{len(MIGRATIONS)}; upgrade meshd on this host"
        )
    tables = found["tables"]
    if found["schema"] < len(MIGRATIONS):
        tables = _migrate(tables, found["schema"])
    with store.transaction() as database:
        for name in TABLES:
            database.execute(f"DELETE FROM {name}")  # noqa: S608 (of TABLES)
            _insert(database, name, tables[name])
        for key, value in found["identity"].items():
            database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, _decode(value)))
        _write_token(database, token)


def note_token(store: Store, token: int) -> None:
    """Note that the state as it is is current up to the lease with `token`. Raises
    StoreWriteError."""
    with store.transaction() as database:
        _write_token(database, token)


def read_token(store: Store) -> int:
    """Return the token of the last lease up to which the state is current; 0: of none."""
    row = store.database.execute("SELECT value FROM meta WHERE key = ?", (_CURRENT,)).fetchone()
    return int(row[0]) if row else 0


def _write_token(database: sqlite3.Connection, token: int) -> None:
    database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_CURRENT, token))


def _migrate(tables: dict[str, Any], schema: int) -> dict[str, Any]:
    """Return the tables of an earlier schema as this version's schema has them."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        migrate(database, schema)
        for name, rows in tables.items():
            _insert(database, name, rows)
        migrate(database)
        return _read_tables(database)


def read_authority(content: bytes) -> tuple[str, str] | None:
    """Return key and certificate (PEM) of the mesh's authority in a state; None if it has none."""
    identity = json.loads(zlib.decompress(content))["identity"]
    if "authority_key" not in identity:
        return None
    return str(identity["authority_key"]), str(identity["authority_certificate"])


class StoredState:
    """The shared part of a store's state, for `meshd.daemon.leadership`. The store must be opened
    again after a takeover."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def token(self) -> int:
        """See `read_token`."""
        return read_token(self._store)

    def dump(self) -> bytes:
        """See `dump`."""
        return dump(self._store)

    def take_over(self, content: bytes | None, token: int) -> None:
        """Replace the state (None: keep it) and note the token. Raises as `restore` does."""
        if content is None:
            note_token(self._store, token)
        else:
            restore(self._store, content, token)


def _read_tables(database: sqlite3.Connection) -> dict[str, Any]:
    return {
        name: [
            [_encode(value) for value in row]
            for row in database.execute(f"SELECT * FROM {name}")  # noqa: S608 (of TABLES)
        ]
        for name in TABLES
    }


def _insert(database: sqlite3.Connection, name: str, rows: list[list[Any]]) -> None:
    if rows:
        places = ", ".join("?" * len(rows[0]))
        values = [[_decode(value) for value in row] for row in rows]
        database.executemany(f"INSERT INTO {name} VALUES ({places})", values)  # noqa: S608


def _encode(value: Any) -> Any:
    return {"hex": value.hex()} if isinstance(value, bytes) else value


def _decode(value: Any) -> Any:
    return bytes.fromhex(value["hex"]) if isinstance(value, dict) else value
