"""A cursor into the tree of a spec: reads one typed value, or says what is wrong with it.

A reader raises `Wrong` at the innermost value; `attempt` notes it and goes on with the next
key, so that all problems are found in one reading.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NoReturn, TypeVar

from meshd.spec import units
from meshd.spec.errors import Notes, Problem, did_you_mean
from meshd.spec.source.yaml_tree import SourceNode

Read = TypeVar("Read")
MOST_LISTED: Final = 12
_TRUTH: Final = {"true": True, "false": False}


class Wrong(Exception):
    """The value cannot be read; the problem says where and why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys a mapping may have: how each is read, and those of the Compose Specification
    that meshd refuses (they would change what runs) or passes over with a warning, with what
    to do instead."""

    read: Mapping[str, Callable[["Cursor"], None]]
    refused: Mapping[str, str] = field(default_factory=dict)
    warned: Mapping[str, str] = field(default_factory=dict)
    extensions: bool = True

    def names(self) -> list[str]:
        """Every key that is known here."""
        return [*self.read, *self.refused, *self.warned]

    def expected(self) -> str:
        """What may stand here, where that is short enough to read."""
        if len(self.read) > MOST_LISTED:
            return "; expected a key of the Compose Specification"
        return f"; expected {listed(list(self.read))}" if self.read else "; expected none"


@dataclass(frozen=True, slots=True)
class Cursor:
    """One value, the service and field it belongs to, and where its problems go."""

    node: SourceNode
    notes: Notes
    service: str = ""
    field: str = ""

    def child(self, node: SourceNode, name: str) -> "Cursor":
        """The cursor of a child of this value."""
        if name.startswith("[") or not self.field:
            return Cursor(node, self.notes, self.service, self.field + name)
        return Cursor(node, self.notes, self.service, f"{self.field}.{name}")

    def problem(self, text: str) -> Problem:
        """A problem at this place, not yet noted."""
        return Problem(self.node.where, self.service, self.field, text)

    def note(self, text: str) -> None:
        """Note a problem and go on."""
        self.notes.problems.append(self.problem(text))

    def warn(self, text: str) -> None:
        """Note a warning."""
        self.notes.warnings.append(self.problem(text))

    def fail(self, text: str) -> NoReturn:
        """Raise Wrong at this place."""
        raise Wrong(self.problem(text))

    def attempt(self, reader: Callable[["Cursor"], Read]) -> Read | None:
        """What `reader` makes of this value; None, with the problem noted, when it cannot."""
        try:
            return reader(self)
        except Wrong as wrong:
            self.notes.problems.append(wrong.problem)
            return None

    def keys(self, keys: Keys) -> None:
        """Read a mapping by its table of keys."""
        for name, child in self.items():
            if name in keys.read:
                child.attempt(keys.read[name])
            elif keys.extensions and name.startswith("x-"):
                continue
            elif name in keys.refused:
                child.note(f"meshd does not support this key; {keys.refused[name]}")
            elif name in keys.warned:
                child.warn(f"this key has no effect; {keys.warned[name]}")
            else:
                child.note(f"unknown key{did_you_mean(name, keys.names()) or keys.expected()}")

    def items(self) -> Iterator[tuple[str, "Cursor"]]:
        """The children of a mapping."""
        if self.node.mapping is None:
            self.fail(f"{self.shown()} is no mapping; expected keys with values")
        for name, node in self.node.mapping.items():
            yield name, self.child(node, name)

    def elements(self) -> Iterator["Cursor"]:
        """The items of a list."""
        if self.node.sequence is None:
            self.fail(f"{self.shown()} is no list; expected a list")
        for index, node in enumerate(self.node.sequence):
            yield self.child(node, f"[{index}]")

    def each(self, reader: Callable[["Cursor"], Read]) -> list[Read]:
        """What `reader` makes of every item of a list; bad items are noted and left out."""
        return [found for item in self.elements() if (found := item.attempt(reader)) is not None]

    def string(self) -> str:
        """Text; numbers and truth values are taken as they were written."""
        if self.node.mapping is not None or self.node.sequence is not None:
            self.fail(f"{self.shown()} is no text; expected a string")
        if self.node.value is None:
            self.fail("the value is missing; expected a string")
        if "\0" in self.node.text:
            self.fail("there is a NUL character in it, which no program can be given")
        return self.node.text

    def strings(self) -> tuple[str, ...]:
        """A list of texts."""
        return tuple(self.each(Cursor.string))

    def string_or_strings(self) -> tuple[str, ...]:
        """One text, or a list of them."""
        return self.strings() if self.node.sequence is not None else (self.string(),)

    def boolean(self) -> bool:
        """`true` or `false`."""
        value = self.node.value
        if isinstance(value, str):
            value = _TRUTH.get(value.lower())
        if not isinstance(value, bool):
            self.fail(f"{self.shown()} is no truth value; expected true or false")
        return value

    def integer(self, low: int = 0, high: int = 1_000_000) -> int:
        """A whole number within bounds."""
        value = self.node.value
        if isinstance(value, str) and value.strip().lstrip("+-").isdecimal():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            self.fail(f"{self.shown()} is not a whole number; expected one from {low}")
        if not low <= value <= high:
            self.fail(f"{value} is out of range; expected {low} to {high}")
        return value

    def number(self, high: float = float("inf")) -> float:
        """A number from 0."""
        value = self.node.value
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                value = None
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.fail(f"{self.shown()} is not a number; expected one like 0.5")
        if not 0 <= value <= high or value == float("inf"):
            self.fail(f"{value} is out of range; expected 0 to {high}")
        return float(value)

    def duration(self) -> float:
        """Seconds."""
        return self._by(units.duration)

    def size(self) -> int:
        """Bytes."""
        return self._by(units.size)

    def one_of(self, *words: str) -> str:
        """One of the words."""
        text = self.string()
        if text not in words:
            self.fail(f"{text!r} is not known here; expected {listed(words)}")
        return text

    def shown(self) -> str:
        """The value for a message, in short."""
        if self.node.mapping is not None:
            return "a mapping"
        if self.node.sequence is not None:
            return "a list"
        if self.node.value is None:
            return "nothing"
        return repr(self.node.value) if isinstance(self.node.value, str) else self.node.text

    def _by(self, convert: Callable[[object], Read]) -> Read:
        try:
            return convert(self.node.value)
        except ValueError as error:
            self.fail(str(error))


def listed(words: Sequence[str]) -> str:
    """`a, b or c`."""
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last
