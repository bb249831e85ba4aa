"""A cursor into the tree of a spec: reads one typed value, or says what is wrong with it.

A reader raises `Wrong` at the innermost value; `attempt` diagnostics it and goes on with the next
key, so that all problems are found in one reading.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NoReturn, TypeVar

from meshd.spec import units
from meshd.spec.errors import Diagnostics, Problem, suggest
from meshd.spec.source.yaml_tree import SourceNode

Read = TypeVar("Read")
MAX_LISTED_KEYS: Final = 12
_TRUTH: Final = {"true": True, "false": False}


class InvalidValue(Exception):
    """The value cannot be read; the problem says where and why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


@dataclass(frozen=True, slots=True)
class KeyTable:
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
        if len(self.read) > MAX_LISTED_KEYS:
            return "; expected a key of the Compose Specification"
        return f"; expected {join_words(list(self.read))}" if self.read else "; expected none"


@dataclass(frozen=True, slots=True)
class Cursor:
    """One value, the service and field it belongs to, and where its problems go."""

    node: SourceNode
    diagnostics: Diagnostics
    service: str = ""
    field: str = ""

    def child(self, node: SourceNode, name: str) -> "Cursor":
        """The cursor of a child of this value."""
        if name.startswith("[") or not self.field:
            return Cursor(node, self.diagnostics, self.service, self.field + name)
        return Cursor(node, self.diagnostics, self.service, f"{self.field}.{name}")

    def make_problem(self, text: str) -> Problem:
        """A problem at this place, not yet noted."""
        return Problem(self.node.location, self.service, self.field, text)

    def add_problem(self, text: str) -> None:
        """Note a problem and go on."""
        self.diagnostics.problems.append(self.make_problem(text))

    def add_warning(self, text: str) -> None:
        """Note a warning."""
        self.diagnostics.warnings.append(self.make_problem(text))

    def fail(self, text: str) -> NoReturn:
        """Raise Wrong at this place."""
        raise InvalidValue(self.make_problem(text))

    def attempt(self, reader: Callable[["Cursor"], Read]) -> Read | None:
        """What `reader` makes of this value; None, with the problem noted, when it cannot."""
        try:
            return reader(self)
        except InvalidValue as wrong:
            self.diagnostics.problems.append(wrong.problem)
            return None

    def read_keys(self, keys: KeyTable) -> None:
        """Read a mapping by its table of keys."""
        for name, child in self.items():
            if name in keys.read:
                child.attempt(keys.read[name])
            elif keys.extensions and name.startswith("x-"):
                continue
            elif name in keys.refused:
                child.add_problem(f"meshd does not support this key; {keys.refused[name]}")
            elif name in keys.warned:
                child.add_warning(f"this key has no effect; {keys.warned[name]}")
            else:
                child.add_problem(f"unknown key{suggest(name, keys.names()) or keys.expected()}")

    def items(self) -> Iterator[tuple[str, "Cursor"]]:
        """The children of a mapping."""
        if self.node.mapping is None:
            self.fail(f"{self.describe()} is no mapping; expected keys with values")
        for name, node in self.node.mapping.items():
            yield name, self.child(node, name)

    def elements(self) -> Iterator["Cursor"]:
        """The items of a list."""
        if self.node.sequence is None:
            self.fail(f"{self.describe()} is no list; expected a list")
        for index, node in enumerate(self.node.sequence):
            yield self.child(node, f"[{index}]")

    def read_items(self, reader: Callable[["Cursor"], Read]) -> list[Read]:
        """What `reader` makes of every item of a list; bad items are noted and left out."""
        return [found for item in self.elements() if (found := item.attempt(reader)) is not None]

    def read_string(self) -> str:
        """Text; numbers and truth values are taken as they were written."""
        if self.node.mapping is not None or self.node.sequence is not None:
            self.fail(f"{self.describe()} is no text; expected a string")
        if self.node.value is None:
            self.fail("the value is missing; expected a string")
        if "\0" in self.node.text:
            self.fail("there is a NUL character in it, which no program can be given")
        return self.node.text

    def read_strings(self) -> tuple[str, ...]:
        """A list of texts."""
        return tuple(self.read_items(Cursor.read_string))

    def read_string_or_strings(self) -> tuple[str, ...]:
        """One text, or a list of them."""
        return self.read_strings() if self.node.sequence is not None else (self.read_string(),)

    def read_boolean(self) -> bool:
        """`true` or `false`."""
        value = self.node.value
        if isinstance(value, str):
            value = _TRUTH.get(value.lower())
        if not isinstance(value, bool):
            self.fail(f"{self.describe()} is no truth value; expected true or false")
        return value

    def read_integer(self, low: int = 0, high: int = 1_000_000) -> int:
        """A whole number within bounds."""
        value = self.node.value
        if isinstance(value, str) and value.strip().lstrip("+-").isdecimal():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            self.fail(f"{self.describe()} is not a whole number; expected one from {low}")
        if not low <= value <= high:
            self.fail(f"{value} is out of range; expected {low} to {high}")
        return value

    def read_number(self, high: float = float("inf")) -> float:
        """A number from 0."""
        value = self.node.value
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                value = None
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.fail(f"{self.describe()} is not a number; expected one like 0.5")
        if not 0 <= value <= high or value == float("inf"):
            self.fail(f"{value} is out of range; expected 0 to {high}")
        return float(value)

    def read_duration(self) -> float:
        """Seconds."""
        return self._convert(units.parse_duration)

    def read_size(self) -> int:
        """Bytes."""
        return self._convert(units.parse_size)

    def read_one_of(self, *words: str) -> str:
        """One of the words."""
        text = self.read_string()
        if text not in words:
            self.fail(f"{text!r} is not known here; expected {join_words(words)}")
        return text

    def describe(self) -> str:
        """The value for a message, in short."""
        if self.node.mapping is not None:
            return "a mapping"
        if self.node.sequence is not None:
            return "a list"
        if self.node.value is None:
            return "nothing"
        return repr(self.node.value) if isinstance(self.node.value, str) else self.node.text

    def _convert(self, convert: Callable[[object], Read]) -> Read:
        try:
            return convert(self.node.value)
        except ValueError as error:
            self.fail(str(error))


def join_words(words: Sequence[str]) -> str:
    """`a, b or c`."""
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last
