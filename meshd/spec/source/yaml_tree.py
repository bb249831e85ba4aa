"""YAML 1.2 text → a tree of nodes that know their line.

Anchors, aliases and merge keys (`<<`) are resolved here. Duplicate keys, several documents,
keys that are not strings, and trees that grow without end are problems.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode
from ruamel.yaml.nodes import Node as YamlNode

from meshd.spec.errors import Diagnostics, Location, Problem, SpecError

Scalar = str | int | float | bool | None
MAX_NODES: Final = 250_000
"""Most nodes that a file may come to, aliases expanded."""
_PREFIX: Final = "tag:yaml.org,2002:"
_MERGE_TAGS: Final = ("!reset", "!override")
_INTEGER: Final = re.compile(r"[-+]?\d+|0o[0-7]+|0x[0-9a-fA-F]+")


@dataclass(frozen=True, slots=True)
class SourceNode:
    """One value. `location` is the line of its key, location it has one. `text` is a scalar as it
    was written. `tag` is Compose's `!reset` or `!override`, or empty."""

    value: "Mapping[str, SourceNode] | Sequence[SourceNode] | Scalar"
    location: Location
    text: str = ""
    tag: str = ""

    @property
    def mapping(self) -> "Mapping[str, SourceNode] | None":
        """The children by key; None when this is not a mapping."""
        return self.value if isinstance(self.value, Mapping) else None

    @property
    def sequence(self) -> "Sequence[SourceNode] | None":
        """The items; None when this is not a list."""
        value = self.value
        return value if isinstance(value, Sequence) and not isinstance(value, str) else None

    def to_plain(self) -> object:
        """The value without lines, as dicts, lists and scalars."""
        if self.mapping is not None:
            return {key: child.to_plain() for key, child in self.mapping.items()}
        if self.sequence is not None:
            return [child.to_plain() for child in self.sequence]
        return self.value


def parse_yaml(text: str, file: str, expected: str = "services") -> SourceNode:
    """The document in `text`; `file` names it in errors, and `expected` what an empty one lacks.
    Raises SpecError."""
    try:
        root = YAML(typ="safe", pure=True).compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 0
        what = ", ".join(part for part in (error.context, error.problem) if part)
        raise SpecError([Problem(Location(file, line), "", "", f"broken YAML: {what}")]) from error
    except YAMLError as error:
        what = str(error).splitlines()[0]
        raise SpecError([Problem(Location(file), "", "", f"broken YAML: {what}")]) from error
    except RecursionError as error:
        raise SpecError([Problem(Location(file), "", "", "values are nested too deep")]) from error
    if root is None:
        raise SpecError(
            [Problem(Location(file), "", "", f"the file is empty; expected {expected}")]
        )
    builder = _TreeBuilder(file)
    node = builder.build(root, Location(file, root.start_mark.line + 1))
    builder.diagnostics.raise_if_any()
    return node


class _TreeBuilder:
    """Turns the parser's graph into a tree, noting every problem on the way."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.diagnostics = Diagnostics()
        self._open: set[int] = set()
        self._count = 0

    def build(self, source: YamlNode, location: Location) -> SourceNode:
        self._count += 1
        if self._count > MAX_NODES:
            self._stop(location, f"aliases make this file larger than {MAX_NODES} values")
        if isinstance(source, ScalarNode):
            return self._scalar(source, location)
        if id(source) in self._open:
            self._stop(location, "an alias refers to what it stands in")
        self._open.add(id(source))
        try:
            value: Mapping[str, SourceNode] | Sequence[SourceNode]
            if isinstance(source, MappingNode):
                value = self._mapping(source)
            else:
                value = [self.build(item, self._line(item)) for item in source.value]
        finally:
            self._open.discard(id(source))
        return SourceNode(value, location, tag=self._merge_tag(source, location))

    def _mapping(self, source: MappingNode) -> dict[str, SourceNode]:
        """The pairs; those merged in by `<<` give way to those written here."""
        own: dict[str, SourceNode] = {}
        merged: dict[str, SourceNode] = {}
        for key, value in source.value:
            line = self._line(key)
            if key.tag == _PREFIX + "merge":
                for name, node in self._merged(value, line).items():
                    merged.setdefault(name, node)
            elif not isinstance(key, ScalarNode):
                self._add_problem(line, "a key must be a string")
            elif key.value in own:
                first = own[key.value].location.line
                self._add_problem(
                    line, f"{key.value} stands here twice; it was given on line {first}"
                )
            else:
                own[key.value] = self.build(value, line)
        return {**merged, **own}

    def _merged(self, value: YamlNode, line: Location) -> dict[str, SourceNode]:
        sources = value.value if isinstance(value, SequenceNode) else [value]
        merged: dict[str, SourceNode] = {}
        for source in sources:
            if not isinstance(source, MappingNode):
                self._add_problem(line, "<<: expected an alias of a mapping, or a list of them")
                continue
            for name, node in (self.build(source, line).mapping or {}).items():
                merged.setdefault(name, node)
        return merged

    def _scalar(self, source: ScalarNode, location: Location) -> SourceNode:
        text: str = source.value
        tag = self._merge_tag(source, location)
        return SourceNode(
            _resolve_scalar(str(source.tag).removeprefix(_PREFIX), text), location, text, tag
        )

    def _merge_tag(self, source: YamlNode, location: Location) -> str:
        tag = str(source.tag)
        if tag.startswith("!") and tag not in _MERGE_TAGS:
            self._add_problem(
                location, f"the tag {tag} is unknown; expected !reset or !override, or none"
            )
        return tag if tag in _MERGE_TAGS else ""

    def _line(self, source: YamlNode) -> Location:
        return Location(self.file, source.start_mark.line + 1)

    def _add_problem(self, location: Location, text: str) -> None:
        self.diagnostics.problems.append(Problem(location, "", "", text))

    def _stop(self, location: Location, text: str) -> None:
        raise SpecError([*self.diagnostics.problems, Problem(location, "", "", text)])


def _resolve_scalar(kind: str, text: str) -> Scalar:
    """A scalar by the core schema of YAML 1.2; what it does not name stays a string."""
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if kind == "int" and _INTEGER.fullmatch(text):
        return int(text, 0) if text[:2] in {"0o", "0x"} else int(text)
    if kind == "float":
        try:
            return float(text)
        except ValueError:
            return text
    return text
