"""The schema of the state file and its migrations.

`meshd.store.file` applies them when it opens the file; `PRAGMA user_version` counts those applied.
"""

import sqlite3
from typing import Final


class SchemaTooNew(Exception):
    """A later version of meshd wrote the file."""


MIGRATIONS: Final = (
    """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE project (
        name TEXT PRIMARY KEY, spec TEXT NOT NULL, who TEXT NOT NULL, at REAL NOT NULL,
        leaving INTEGER NOT NULL DEFAULT 0, plan TEXT NOT NULL DEFAULT ''
    ) WITHOUT ROWID;
    CREATE TABLE revision (
        project TEXT NOT NULL, service TEXT NOT NULL, fingerprint TEXT NOT NULL,
        spec TEXT NOT NULL, who TEXT NOT NULL, at REAL NOT NULL,
        PRIMARY KEY (project, service, fingerprint)
    ) WITHOUT ROWID;
    CREATE TABLE rollout (
        project TEXT NOT NULL, service TEXT NOT NULL, revision TEXT NOT NULL,
        previous TEXT NOT NULL, state TEXT NOT NULL, since REAL NOT NULL, cause TEXT NOT NULL,
        PRIMARY KEY (project, service)
    ) WITHOUT ROWID;
    CREATE TABLE override (
        project TEXT NOT NULL, service TEXT NOT NULL, replicas INTEGER NOT NULL,
        until REAL NOT NULL, PRIMARY KEY (project, service)
    ) WITHOUT ROWID;
    CREATE TABLE scaling (
        project TEXT NOT NULL, service TEXT NOT NULL, desired INTEGER NOT NULL,
        state TEXT NOT NULL, at REAL NOT NULL, PRIMARY KEY (project, service)
    ) WITHOUT ROWID;
    CREATE TABLE event (
        id INTEGER PRIMARY KEY, at REAL NOT NULL, kind TEXT NOT NULL, project TEXT NOT NULL,
        service TEXT NOT NULL, replica TEXT NOT NULL, text TEXT NOT NULL, numbers TEXT NOT NULL
    );
    """,
    """
    CREATE TABLE decision (
        id INTEGER PRIMARY KEY, project TEXT NOT NULL, service TEXT NOT NULL, at REAL NOT NULL,
        body TEXT NOT NULL
    );
    CREATE INDEX decision_of ON decision (project, service, at);
    """,
    """
    CREATE TABLE traffic (
        project TEXT NOT NULL, service TEXT NOT NULL, seconds INTEGER NOT NULL,
        at INTEGER NOT NULL, arrivals INTEGER NOT NULL, service_time REAL NOT NULL,
        workers REAL NOT NULL, startup REAL NOT NULL,
        PRIMARY KEY (project, service, seconds, at)
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE job (
        id TEXT PRIMARY KEY, project TEXT NOT NULL, at REAL NOT NULL, body TEXT NOT NULL,
        lines TEXT NOT NULL DEFAULT ''
    ) WITHOUT ROWID;
    CREATE TABLE schedule (
        project TEXT NOT NULL, service TEXT NOT NULL, name TEXT NOT NULL, looked REAL NOT NULL,
        PRIMARY KEY (project, service, name)
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE call (
        project TEXT NOT NULL, service TEXT NOT NULL, caller TEXT NOT NULL,
        calls INTEGER NOT NULL, uncovered INTEGER NOT NULL, first REAL NOT NULL,
        last REAL NOT NULL, PRIMARY KEY (project, service, caller)
    ) WITHOUT ROWID;
    """,
    """
    ALTER TABLE rollout ADD COLUMN number INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE rollout ADD COLUMN stage INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE rollout ADD COLUMN stage_since REAL NOT NULL DEFAULT 0;
    ALTER TABLE rollout ADD COLUMN by_hand INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE rollout ADD COLUMN swift INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE release (
        project TEXT NOT NULL, service TEXT NOT NULL, number INTEGER NOT NULL,
        revision TEXT NOT NULL, previous TEXT NOT NULL, how TEXT NOT NULL, who TEXT NOT NULL,
        at REAL NOT NULL, changed TEXT NOT NULL, outcome TEXT NOT NULL DEFAULT 'rolling',
        cause TEXT NOT NULL DEFAULT '', ended REAL NOT NULL DEFAULT 0,
        tally TEXT NOT NULL DEFAULT '', PRIMARY KEY (project, service, number)
    ) WITHOUT ROWID;
    INSERT INTO release (project, service, number, revision, previous, how, who, at, changed,
        outcome, cause, ended)
        SELECT project, service, 1, revision, previous, 'deploy', '', since, '', state, cause, since
        FROM rollout;
    UPDATE rollout SET number = 1;
    """,
    """
    ALTER TABLE scaling ADD COLUMN warm INTEGER NOT NULL DEFAULT 0;
    """,
    """
    CREATE TABLE sizing (
        project TEXT NOT NULL, service TEXT NOT NULL, day INTEGER NOT NULL, body TEXT NOT NULL,
        PRIMARY KEY (project, service, day)
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE trial (
        project TEXT NOT NULL, service TEXT NOT NULL, number INTEGER NOT NULL, body TEXT NOT NULL,
        PRIMARY KEY (project, service)
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE rollout_new (
        project TEXT NOT NULL, service TEXT NOT NULL, revision TEXT NOT NULL,
        previous TEXT NOT NULL, state TEXT NOT NULL, since REAL NOT NULL, cause TEXT NOT NULL,
        release_number INTEGER NOT NULL, stage INTEGER NOT NULL, stage_since REAL NOT NULL,
        skips_stages INTEGER NOT NULL, PRIMARY KEY (project, service)
    ) WITHOUT ROWID;
    INSERT INTO rollout_new (project, service, revision, previous, state, since, cause,
        release_number, stage, stage_since, skips_stages)
        SELECT project, service, revision, previous,
            CASE WHEN state = 'paused' AND NOT by_hand THEN 'halted' ELSE state END, since, cause,
            number, stage, stage_since, swift
        FROM rollout;
    DROP TABLE rollout;
    ALTER TABLE rollout_new RENAME TO rollout;
    ALTER TABLE trial RENAME TO canary_analysis;
    """,
    """
    CREATE TABLE virtual_address (
        project TEXT NOT NULL, service TEXT NOT NULL, network TEXT NOT NULL, address TEXT NOT NULL,
        PRIMARY KEY (project, service, network)
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE replacement (
        replica TEXT NOT NULL PRIMARY KEY, cause TEXT NOT NULL
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE token (
        id TEXT PRIMARY KEY, hash BLOB NOT NULL, name TEXT NOT NULL, role TEXT NOT NULL,
        project TEXT NOT NULL, created REAL NOT NULL, expires REAL NOT NULL, who TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE audit (
        id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, who TEXT NOT NULL,
        role TEXT NOT NULL, source TEXT NOT NULL, method TEXT NOT NULL, path TEXT NOT NULL,
        status INTEGER NOT NULL, detail TEXT NOT NULL
    );
    """,
    """
    CREATE TABLE history (at INTEGER PRIMARY KEY, body BLOB NOT NULL);
    """,
    """
    CREATE TABLE node_proxy (name TEXT PRIMARY KEY, joined REAL NOT NULL) WITHOUT ROWID;
    CREATE TABLE join_token (id TEXT PRIMARY KEY, expires REAL NOT NULL) WITHOUT ROWID;
    """,
)
"""One script for each schema version. Never edit a released one: add another."""


def migrate(database: sqlite3.Connection, schema: int = len(MIGRATIONS)) -> None:
    """Bring the file to a schema, by default this version's, each migration in one transaction.

    Raises SchemaTooNew if a later version of meshd wrote the file.
    """
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise SchemaTooNew(
            f"the state has schema {version}, and this meshd knows up to {len(MIGRATIONS)}; "
            "use the later version that wrote it"
        )
    for number, script in enumerate(MIGRATIONS[version:schema], start=version + 1):
        database.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version = {number}; COMMIT;")
