"""Errors and warnings of a spec, with their locations. Pure.

Used by all of `meshd.spec` and by `meshd.standalone`. Reading continues after an error, so that a
SpecError carries all problems and not only the first.
"""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, order=True)
class Location:
    """A file and a line in it (from 1); or any other named source, with `line` 0."""

    file: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """An error or a warning. As text: `FILE:LINE: service NAME: FIELD: TEXT`."""

    location: Location
    service: str
    field: str
    text: str

    def __str__(self) -> str:
        service = f"service {self.service}" if self.service else ""
        return ": ".join(
            part for part in (str(self.location), service, self.field, self.text) if part
        )


class SpecError(Exception):
    """The spec is invalid. `problems` holds all errors, ordered by file and line."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


@dataclass(slots=True)
class Diagnostics:
    """Collects errors (`problems`) and warnings while a spec is read."""

    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    def raise_if_any(self) -> None:
        """Raise SpecError if there is an error."""
        if self.problems:
            raise SpecError(sort_problems(self.problems))


def sort_problems(problems: Iterable[Problem]) -> list[Problem]:
    """Remove duplicates and sort by line within each file. Files keep the order they appear in."""
    unique = list(dict.fromkeys(problems))
    files = list(dict.fromkeys(each.location.file for each in unique))
    return sorted(unique, key=lambda each: (files.index(each.location.file), each.location.line))


def suggest(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean X?` with the closest known word; empty if none is close."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""
