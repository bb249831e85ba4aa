"""The release history of services: who began each release, what it changed, how it ended.

Releases are numbered within their service, from 1. `meshd.store.store` begins and ends a row in
the transaction that changes the rollout. `Releases` reads them for the API and stores the counts
of `meshd.telemetry.release_counts`.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from meshd.model.release import Release, ReleaseCounts, ReleaseOutcome
from meshd.model.service_key import ServiceKey, split_key

if TYPE_CHECKING:
    from meshd.store.store import Store

KEPT: Final = 100
"""Releases that are kept for each service."""


class Releases:
    """The stored releases, by service key."""

    def __init__(self, store: "Store") -> None:
        self._store = store

    def of(self, key: ServiceKey, limit: int) -> Sequence[Release]:
        """Return the last `limit` releases of a service, newest first."""
        rows = self._store.database.execute(
            "SELECT project, service, number, revision, previous, how, who, at, changed, outcome, "
            "cause, ended, tally FROM release WHERE project = ? AND service = ? "
            "ORDER BY number DESC LIMIT ?",
            (*split_key(key), limit),
        )
        return [_release_of(row) for row in rows]

    def counts(self, key: ServiceKey, number: int) -> ReleaseCounts | None:
        """Return the stored counts of one release; None if there are none."""
        row = self._store.database.execute(
            "SELECT tally FROM release WHERE project = ? AND service = ? AND number = ?",
            (*split_key(key), number),
        ).fetchone()
        return msgspec.json.decode(row[0], type=ReleaseCounts) if row and row[0] else None

    def in_progress(self) -> Mapping[ServiceKey, int]:
        """Return the number of each service's release that is in progress."""
        return {
            key: rollout.release_number
            for key, rollout in self._store.rollouts.items()
            if rollout.in_progress
        }

    def keep(self, counts: Mapping[tuple[ServiceKey, int], ReleaseCounts]) -> None:
        """Store the counts of releases, by service key and release number."""
        if not counts:
            return
        with self._store.transaction() as database:
            database.executemany(
                "UPDATE release SET tally = ? WHERE project = ? AND service = ? AND number = ?",
                [
                    (msgspec.json.encode(each).decode(), *split_key(key), number)
                    for (key, number), each in counts.items()
                ],
            )


def _release_of(row: tuple[Any, ...]) -> Release:
    project, service, number, revision, previous, how, who, at, changed, *rest = row
    outcome, cause, ended, counts = rest
    return Release(
        project=project,
        service=service,
        number=number,
        revision=revision,
        previous=previous,
        how=how,
        who=who,
        at=at,
        changed=changed,
        outcome=ReleaseOutcome(outcome),
        cause=cause,
        ended=ended,
        counts=msgspec.json.decode(counts, type=ReleaseCounts) if counts else None,
    )


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
    """Add a release of the service `where` (project, name) and return its number.

    A release that is still in progress is overtaken by it.
    """
    row = database.execute(
        "SELECT max(number) FROM release WHERE project = ? AND service = ?", where
    ).fetchone()
    number = int(row[0] or 0) + 1
    database.execute(
        "UPDATE release SET outcome = ?, ended = ? "
        "WHERE project = ? AND service = ? AND outcome IN (?, ?)",
        (
            ReleaseOutcome.OVERTAKEN.value,
            at,
            *where,
            ReleaseOutcome.ROLLING.value,
            ReleaseOutcome.PAUSED.value,
        ),
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
    outcome: ReleaseOutcome,
    cause: str,
    at: float,
) -> None:
    """Store how a release ended (`at`: Unix time, 0: it did not end)."""
    database.execute(
        "UPDATE release SET outcome = ?, cause = ?, ended = ? "
        "WHERE project = ? AND service = ? AND number = ?",
        (outcome.value, cause, at, *where, number),
    )
