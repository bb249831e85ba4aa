"""What failed replicas left: how each revision failed last, and its last lines of output."""

from collections.abc import Iterable
from typing import Final

import msgspec

from meshd.reconcile.memory import Version

KEPT: Final = 200
"""Versions of which something is kept; the oldest goes first."""


class Evidence(msgspec.Struct, frozen=True):
    """What a failed replica left: how it failed and its last lines of output."""

    replica: str
    text: str
    lines: tuple[str, ...] = ()


class Remains:
    """The last evidence of each version that failed."""

    def __init__(self) -> None:
        self._kept: dict[Version, Evidence] = {}

    def of(self, version: Version) -> Evidence | None:
        """What is kept of a version."""
        return self._kept.get(version)

    def keep(self, version: Version, evidence: Evidence) -> None:
        """Keep it in place of what was there."""
        self._kept.pop(version, None)
        self._kept[version] = evidence
        while len(self._kept) > KEPT:
            del self._kept[next(iter(self._kept))]

    def forget(self, versions: Iterable[Version]) -> None:
        """Keep nothing of these."""
        for version in versions:
            self._kept.pop(version, None)
