"""The history of a service's revisions: who brought in which, what it changed, what came of it.

A release is numbered within its service, from 1. Its row begins and ends in the same
transactions as the rollout itself; `Releases` reads, and keeps the counts up to date.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from meshd.model.release import Release, Tally

if TYPE_CHECKING:
    from meshd.store.store import Store

KEPT: Final = 100
"""Releases of a service that are remembered."""


class Releases:
    """Reads the history of services (`PROJECT/SERVICE`)."""

    def __init__(self, store: "Store") -> None:
        self._store = store

    def of(self, key: str, limit: int) -> Sequence[Release]:
        """The newest releases of a service, the newest first."""
        rows = self._store.database.execute(
            "SELECT project, service, number, revision, previous, how, who, at, changed, outcome, "
            "cause, ended, tally FROM release WHERE project = ? AND service = ? "
            "ORDER BY number DESC LIMIT ?",
            (*key.split("/", 1), limit),
        )
        return [_release(row) for row in rows]

    def tally(self, key: str, number: int) -> Tally | None:
        """The counts that are stored of one release."""
        row = self._store.database.execute(
            "SELECT tally FROM release WHERE project = ? AND service = ? AND number = ?",
            (*key.split("/", 1), number),
        ).fetchone()
        return msgspec.json.decode(row[0], type=Tally) if row and row[0] else None

    def under_way(self) -> Mapping[str, int]:
        """The releases that are being brought in, by service."""
        return {
            key: rollout.number
            for key, rollout in self._store.rollouts.items()
            if rollout.state == "rolling" or rollout.by_hand
        }

    def keep(self, tallies: Mapping[tuple[str, int], Tally]) -> None:
        """Store the counts of releases, by service and number."""
        if not tallies:
            return
        with self._store.transaction() as database:
            database.executemany(
                "UPDATE release SET tally = ? WHERE project = ? AND service = ? AND number = ?",
                [
                    (msgspec.json.encode(tally).decode(), *key.split("/", 1), number)
                    for (key, number), tally in tallies.items()
                ],
            )


def _release(row: tuple[object, ...]) -> Release:
    values = dict(zip(Release.__struct_fields__, row, strict=True))
    tally = str(values["tally"])
    kept = msgspec.json.decode(tally, type=Tally) if tally else None
    return msgspec.convert({**values, "tally": None}, Release).counted(kept)


def begin(
    database: sqlite3.Connection,
    where: tuple[str, str],
    revision: str,
    previous: str,
    how: str,
    who: str,
    at: float,
    changed: str,
) -> int:
    """Add a release; what was under way until now is overtaken by it. Its number."""
    row = database.execute(
        "SELECT max(number) FROM release WHERE project = ? AND service = ?", where
    ).fetchone()
    number = int(row[0] or 0) + 1
    database.execute(
        "UPDATE release SET outcome = 'overtaken', ended = ? "
        "WHERE project = ? AND service = ? AND outcome IN ('rolling', 'paused')",
        (at, *where),
    )
    database.execute(
        "INSERT INTO release (project, service, number, revision, previous, how, who, at, changed) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*where, number, revision, previous, how, who, at, changed),
    )
    database.execute(
        "DELETE FROM release WHERE project = ? AND service = ? AND number <= ?",
        (*where, number - KEPT),
    )
    return number


def end(
    database: sqlite3.Connection,
    where: tuple[str, str],
    number: int,
    outcome: str,
    cause: str,
    at: float,
) -> None:
    """What came of a release."""
    database.execute(
        "UPDATE release SET outcome = ?, cause = ?, ended = ? "
        "WHERE project = ? AND service = ? AND number = ?",
        (outcome, cause, at, *where, number),
    )
