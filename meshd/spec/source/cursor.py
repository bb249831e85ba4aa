"""A cursor into the tree of a spec: reads typed values, and records errors with their location.

Used by the readers in `meshd.spec.reader`. A reader raises InvalidValue at the innermost value;
`Cursor.attempt` records the error and continues with the next key, so that one pass finds all
errors.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NoReturn, TypeVar

from meshd.spec import units
from meshd.spec.errors import Diagnostics, Problem, suggest
from meshd.spec.source.yaml_tree import SourceNode

Read = TypeVar("Read")
MAX_LISTED_KEYS: Final = 12
"""Most keys that a message lists; more would fill several lines of a terminal."""
MAX_INTEGER: Final = 1_000_000
"""The default upper bound of whole numbers: above any sensible count of processes or retries."""
_BOOLEANS: Final = {"true": True, "false": False}
_OLD_BOOLEANS: Final = {"y": True, "yes": True, "on": True, "n": False, "no": False, "off": False}
"""Booleans of YAML 1.1, which Compose accepts with a warning."""


class InvalidValue(Exception):
    """A value is invalid; `problem` has the location and the reason."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


@dataclass(frozen=True, slots=True)
class KeyTable:
    """The keys of a mapping.

    - `read`: the reader of each supported key
    - `refused`: keys of the Compose Specification that are errors because they would change what
      runs, with what to do instead
    - `warned`: keys of the Compose Specification that are ignored with a warning, with what to do
      instead
    - `extensions`: whether keys that begin with `x-` are allowed
    """

    read: Mapping[str, Callable[["Cursor"], None]]
    refused: Mapping[str, str] = field(default_factory=dict)
    warned: Mapping[str, str] = field(default_factory=dict)
    extensions: bool = True

    def names(self) -> list[str]:
        """Return all known keys."""
        return [*self.read, *self.refused, *self.warned]

    def describe_expected(self) -> str:
        """Return `; expected` with the supported keys, if they are few enough to list."""
        if len(self.read) > MAX_LISTED_KEYS:
            return "; expected a key of the Compose Specification"
        return f"; expected {join_words(list(self.read))}" if self.read else "; expected none"


@dataclass(frozen=True, slots=True)
class Cursor:
    """One value of the tree.

    - `node`: the value and its location
    - `diagnostics`: where errors and warnings are recorded
    - `service`, `field`: the service and the dotted field, for messages; empty at the top level
    """

    node: SourceNode
    diagnostics: Diagnostics
    service: str = ""
    field: str = ""

    def child(self, node: SourceNode, name: str) -> "Cursor":
        """Return the cursor of a child of this value."""
        if name.startswith("[") or not self.field:
            return Cursor(node, self.diagnostics, self.service, self.field + name)
        return Cursor(node, self.diagnostics, self.service, f"{self.field}.{name}")

    def make_problem(self, text: str) -> Problem:
        """Return a problem at this location, without recording it."""
        return Problem(self.node.location, self.service, self.field, text)

    def add_problem(self, text: str) -> None:
        """Record an error at this location."""
        self.diagnostics.problems.append(self.make_problem(text))

    def add_warning(self, text: str) -> None:
        """Record a warning at this location."""
        self.diagnostics.warnings.append(self.make_problem(text))

    def fail(self, text: str) -> NoReturn:
        """Raise InvalidValue at this location."""
        raise InvalidValue(self.make_problem(text))

    def attempt(self, reader: Callable[["Cursor"], Read]) -> Read | None:
        """Return what `reader` returns; if it raises InvalidValue, record the error and return
        None."""
        try:
            return reader(self)
        except InvalidValue as error:
            if error.problem not in self.diagnostics.problems:  # a declaration may be used twice
                self.diagnostics.problems.append(error.problem)
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
                child.add_problem(
                    f"unknown key{suggest(name, keys.names()) or keys.describe_expected()}"
                )

    def items(self) -> Iterator[tuple[str, "Cursor"]]:
        """Yield the keys of a mapping with a cursor for each value."""
        if self.node.mapping is None:
            self.fail(f"{self.describe()} is not a mapping; expected keys with values")
        for name, node in self.node.mapping.items():
            yield name, self.child(node, name)

    def elements(self) -> Iterator["Cursor"]:
        """Yield a cursor for each item of a list."""
        if self.node.sequence is None:
            self.fail(f"{self.describe()} is not a list; expected a list")
        for index, node in enumerate(self.node.sequence):
            yield self.child(node, f"[{index}]")

    def read_items(self, reader: Callable[["Cursor"], Read]) -> list[Read]:
        """Read every item of a list with `reader`; record errors and leave their items out."""
        return [found for item in self.elements() if (found := item.attempt(reader)) is not None]

    def read_string(self) -> str:
        """Read text; numbers and booleans are read as they are written in the file."""
        if self.node.mapping is not None or self.node.sequence is not None:
            self.fail(f"{self.describe()} is not text; expected a string")
        if self.node.value is None:
            self.fail("the value is missing; expected a string")
        if "\0" in self.node.text:
            self.fail("the value has a NUL character, which cannot be passed to a program")
        return self.node.text

    def read_strings(self) -> tuple[str, ...]:
        """Read a list of strings."""
        return tuple(self.read_items(Cursor.read_string))

    def read_string_or_strings(self) -> tuple[str, ...]:
        """Read a string or a list of strings."""
        return self.read_strings() if self.node.sequence is not None else (self.read_string(),)

    def read_boolean(self) -> bool:
        """Read `true` or `false`, or with a warning an older word such as `yes`."""
        value = self.node.value
        if isinstance(value, str):
            word = value.lower()
            value = _BOOLEANS.get(word, _OLD_BOOLEANS.get(word))
            if word in _OLD_BOOLEANS:
                self.add_warning(f"{self.describe()} is an old form; write {str(value).lower()}")
        if not isinstance(value, bool):
            self.fail(f"{self.describe()} is not a boolean; expected true or false")
        return value

    def read_integer(self, low: int = 0, high: int = MAX_INTEGER) -> int:
        """Read a whole number from `low` to `high`."""
        value = self.node.value
        if isinstance(value, str) and value.strip().lstrip("+-").isdecimal():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            self.fail(f"{self.describe()} is not a whole number; expected {low} or more")
        if not low <= value <= high:
            self.fail(f"{value} is out of range; expected {low} to {high}")
        return value

    def read_number(self, high: float = float("inf")) -> float:
        """Read a number from 0 to `high`."""
        value = self.node.value
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                value = None
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.fail(f"{self.describe()} is not a number; expected e.g. 0.5")
        if not 0 <= value <= high or value == float("inf"):
            self.fail(f"{value} is out of range; expected 0 to {high}")
        return float(value)

    def read_duration(self) -> float:
        """Read a duration; return seconds."""
        return self._convert(units.parse_duration)

    def read_size(self) -> int:
        """Read a size; return bytes."""
        return self._convert(units.parse_size)

    def read_one_of(self, *words: str) -> str:
        """Read one of the given words."""
        text = self.read_string()
        if text not in words:
            self.fail(f"{text!r} is not valid; expected {join_words(words)}")
        return text

    def describe(self) -> str:
        """Return the value in short form for a message."""
        if self.node.mapping is not None:
            return "a mapping"
        if self.node.sequence is not None:
            return "a list"
        if self.node.value is None:
            return "an empty value"
        return repr(self.node.value) if isinstance(self.node.value, str) else self.node.text

    def _convert(self, convert: Callable[[object], Read]) -> Read:
        try:
            return convert(self.node.value)
        except ValueError as error:
            self.fail(str(error))


def join_words(words: Sequence[str]) -> str:
    """Return the words as `a, b or c`."""
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last
