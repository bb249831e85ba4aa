"""The last failure of each version, with the last lines of output of the replica that failed.

Written by `execute.results` and `reconcile.event_recorder`, read by deployment progress through
the reconciler's view. Kept in memory only.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from meshd.model.replica import Version

KEPT: Final = 200
"""Versions whose last failure is kept; the oldest is dropped first."""


class FailureRecord(msgspec.Struct, frozen=True):
    """How a replica failed, and its last lines of output."""

    replica: str
    text: str
    lines: tuple[str, ...] = ()


class FailureLog:
    """The last failure of each version that failed."""

    def __init__(self) -> None:
        self._records: Mapping[Version, FailureRecord] = MappingProxyType({})
        self._outputs_kept: frozenset[str] = frozenset()

    @property
    def records(self) -> Mapping[Version, FailureRecord]:
        """All records: a value that is replaced with each change, never edited."""
        return self._records

    @property
    def outputs_kept(self) -> frozenset[str]:
        """The failed replicas that stay on the runtime and whose last lines were read."""
        return self._outputs_kept

    def note_output(self, replica: str) -> None:
        """Note that the last lines of a failed replica that stays were read."""
        names = self._outputs_kept if len(self._outputs_kept) < KEPT else frozenset()
        self._outputs_kept = names | {replica}

    def keep(self, version: Version, record: FailureRecord) -> None:
        """Replace the record of a version."""
        records = {v: r for v, r in self._records.items() if v != version}
        records[version] = record
        while len(records) > KEPT:
            del records[next(iter(records))]
        self._records = MappingProxyType(records)

    def forget(self, versions: Iterable[Version]) -> None:
        """Drop the records of these versions."""
        dropped = set(versions)
        self._records = MappingProxyType(
            {v: r for v, r in self._records.items() if v not in dropped}
        )
