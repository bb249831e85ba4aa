"""The minutes of the last day of each service, stored so that a restart keeps them. Written and
read by `meshd.telemetry.history_recorder`."""

import zlib
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from meshd.model.history import HistoryPoint
from meshd.store.store import Store

DAY: Final = 86400
"""Seconds that are kept."""
_LEVEL: Final = 1
"""Level of compression: the fastest, which already makes the numbers a quarter of their size."""


class HistoryLog:
    """One row per minute with the points of all services: about 5 kB for 200 services."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def keep(self, at: int, points: Mapping[str, HistoryPoint], oldest: float) -> None:
        """Store the points of the minute from `at` (Unix time); delete those before `oldest`.
        Raises StoreWriteError."""
        rows = {name: msgspec.structs.astuple(point)[2:] for name, point in points.items()}
        body = zlib.compress(msgspec.msgpack.encode(rows), _LEVEL)
        with self._store.transaction() as database:
            database.execute("INSERT OR REPLACE INTO history VALUES (?, ?)", (at, body))
            database.execute("DELETE FROM history WHERE at < ?", (oldest,))

    def read(self, now: float) -> Iterator[tuple[int, dict[str, HistoryPoint]]]:
        """Yield the minutes of the last day with their points, oldest first."""
        rows = self._store.database.execute(
            "SELECT at, body FROM history WHERE at >= ? AND at <= ? ORDER BY at", (now - DAY, now)
        )
        for at, body in rows:
            found = msgspec.msgpack.decode(zlib.decompress(body))
            yield at, {name: HistoryPoint(at, 60, *values) for name, values in found.items()}
