"""A service while it is read: the model's fields, by dotted name, each given once."""

from collections.abc import Callable
from dataclasses import dataclass, field

from meshd.spec.errors import Location
from meshd.spec.source.cursor import Cursor


@dataclass(slots=True)
class FieldValues:
    """Values for `model.Service`; `resources.cpus` is the field of a field."""

    values: dict[str, object] = field(default_factory=dict)
    _given: dict[str, tuple[object, Location, str]] = field(default_factory=dict)

    def set_value(self, name: str, at: Cursor, *, read: Callable[[Cursor], object]) -> None:
        """Read `at` into the field `name`. Where Compose has two keys for one thing, they
        may both stand there only if they agree."""
        value = read(at)
        if name in self._given and self._given[name][0] != value:
            _, where, other = self._given[name]
            at.fail(
                f"{at.describe()} differs from {other} on line {where.line}; expected one of them"
            )
        self._given[name] = (value, at.node.location, at.field)
        *sections, last = name.split(".")
        values = self.values
        for section in sections:
            nested = values.setdefault(section, {})
            assert isinstance(nested, dict)
            values = nested
        values[last] = value

    def is_set(self, name: str) -> bool:
        """Whether the field was given."""
        return name in self._given
