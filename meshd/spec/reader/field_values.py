"""The field values of a service while it is read, by dotted name.

Filled by `meshd.spec.reader.service` and `meshd.spec.reader.deploy`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from meshd.spec.errors import Location
from meshd.spec.source.cursor import Cursor


@dataclass(slots=True)
class FieldValues:
    """The values for `meshd.spec.model.Service`; `resources.cpus` names a nested field."""

    values: dict[str, object] = field(default_factory=dict)
    _given: dict[str, tuple[object, Location, str]] = field(default_factory=dict)
    _yielding: set[str] = field(default_factory=set)

    def set_value(
        self, name: str, at: Cursor, *, read: Callable[[Cursor], object], yields: bool = False
    ) -> None:
        """Read `at` into the field `name`.

        Some fields have two keys in Compose. Both may be set only if their values are equal, unless
        one of them `yields`: then the other one counts, with a warning.
        """
        value = read(at)
        if name in self._given and self._given[name][0] != value:
            _, location, other = self._given[name]
            if yields:
                at.add_warning(f"{other} on line {location.line} takes precedence")
                return
            if other not in self._yielding:
                at.fail(
                    f"{at.describe()} differs from {other} on line {location.line}; expected one "
                    "of them"
                )
            at.add_warning(f"takes precedence over {other} on line {location.line}")
        if yields:
            self._yielding.add(at.field)
        self._given[name] = (value, at.node.location, at.field)
        *sections, last = name.split(".")
        values = self.values
        for section in sections:
            nested = values.setdefault(section, {})
            assert isinstance(nested, dict)
            values = nested
        values[last] = value

    def is_set(self, name: str) -> bool:
        """Whether the field has a value."""
        return name in self._given
