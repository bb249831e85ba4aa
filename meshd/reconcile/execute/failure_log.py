"""What failed replicas left: how each revision failed last, and its last lines of output."""

from collections.abc import Iterable
from typing import Final

import msgspec

from meshd.model.replica import Version

KEPT: Final = 200
"""Versions of which something is kept; the oldest goes first."""


class FailureRecord(msgspec.Struct, frozen=True):
    """What a failed replica left: how it failed and its last lines of output."""

    replica: str
    text: str
    lines: tuple[str, ...] = ()


class FailureLog:
    """The last evidence of each version that failed."""

    def __init__(self) -> None:
        self._kept: dict[Version, FailureRecord] = {}

    def of(self, version: Version) -> FailureRecord | None:
        """What is kept of a version."""
        return self._kept.get(version)

    def keep(self, version: Version, evidence: FailureRecord) -> None:
        """Keep it in place of what was there."""
        self._kept.pop(version, None)
        self._kept[version] = evidence
        while len(self._kept) > KEPT:
            del self._kept[next(iter(self._kept))]

    def forget(self, versions: Iterable[Version]) -> None:
        """Keep nothing of these."""
        for version in versions:
            self._kept.pop(version, None)
