"""What is wrong with a spec, and where: all of it at once, never the first only."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, order=True)
class Location:
    """A place: a file and its line (from 1), or a named thing without lines (`line` 0)."""

    file: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One error or warning. As text: `FILE:LINE: service NAME: FIELD: what is wrong`."""

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
    """The spec cannot be used. `problems` holds everything found, in file order."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


@dataclass(slots=True)
class Diagnostics:
    """Collects problems and warnings while a spec is read."""

    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    def raise_if_any(self) -> None:
        """Raise SpecError when there is a problem."""
        if self.problems:
            raise SpecError(sort_problems(self.problems))


def sort_problems(problems: Iterable[Problem]) -> list[Problem]:
    """Without repetitions, and by line within a file; files stay in the order first seen."""
    unique = list(dict.fromkeys(problems))
    files = list(dict.fromkeys(each.location.file for each in unique))
    return sorted(unique, key=lambda each: (files.index(each.location.file), each.location.line))


def suggest(word: str, known: Iterable[str]) -> str:
    """`; did you mean X?` for the nearest known word, or nothing when none is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""
