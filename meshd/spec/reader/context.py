"""The context shared by the readers of all services of a project.

Created by `meshd.spec.compose`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from meshd.spec.reader import storage


@dataclass(frozen=True, slots=True)
class ReadContext:
    """The declarations at the top level of the file, and its directory and variables.

    - `base`: the directory that relative paths start at
    - `environment`: the variables of the shell and of `.env`
    - `declared`: the declared volumes, secrets and configs
    - `networks`: the names of the declared networks
    - `services`, `enabled`: the names of all services, and of those in an active profile
    """

    base: Path
    environment: Mapping[str, str]
    declared: storage.Declarations
    networks: frozenset[str]
    services: frozenset[str]
    enabled: frozenset[str]
