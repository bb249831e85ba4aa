"""What the reading of every service of an application shares."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from meshd.spec.reader import storage


@dataclass(frozen=True, slots=True)
class ReadContext:
    """Where relative paths start, the variables, what the top of the file declares, all its
    services and those that are on."""

    base: Path
    environment: Mapping[str, str]
    declared: storage.Declarations
    networks: frozenset[str]
    services: frozenset[str]
    enabled: frozenset[str]
