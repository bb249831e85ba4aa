"""Parse YAML 1.2 into a tree of nodes that know their line.

Used by `meshd.spec.source.loader` for Compose files and by `meshd.standalone.settings`. Anchors,
aliases and merge keys (`<<`) are resolved. Duplicate keys, keys that are not strings, and aliases
that expand without bound are errors.
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
"""Most nodes of a file after alias expansion. It bounds the memory that a hostile file takes; large
real files have a few thousand."""
_PREFIX: Final = "tag:yaml.org,2002:"
_MERGE_TAGS: Final = ("!reset", "!override")
_INTEGER: Final = re.compile(r"[-+]?\d+|0o[0-7]+|0x[0-9a-fA-F]+")


@dataclass(frozen=True, slots=True)
class SourceNode:
    """A value in a file.

    - `value`: a mapping, a list or a scalar
    - `location`: the line of its key if it has one, or of the value
    - `text`: a scalar as written in the file
    - `tag`: `!reset` or `!override` of Compose; empty if it has none
    """

    value: "Mapping[str, SourceNode] | Sequence[SourceNode] | Scalar"
    location: Location
    text: str = ""
    tag: str = ""

    @property
    def mapping(self) -> "Mapping[str, SourceNode] | None":
        """The children by key; None if this is not a mapping."""
        return self.value if isinstance(self.value, Mapping) else None

    @property
    def sequence(self) -> "Sequence[SourceNode] | None":
        """The items; None if this is not a list."""
        value = self.value
        return value if isinstance(value, Sequence) and not isinstance(value, str) else None

    def to_plain(self) -> object:
        """Return the value as dicts, lists and scalars, without locations."""
        if self.mapping is not None:
            return {key: child.to_plain() for key, child in self.mapping.items()}
        if self.sequence is not None:
            return [child.to_plain() for child in self.sequence]
        return self.value


def parse_yaml(text: str, file: str, expected: str = "services") -> SourceNode:
    """Parse the document in `text`; several documents are an error.

    `file` is its name in errors. The error for an empty file asks for `expected`. Raises SpecError.
    """
    documents = parse_documents(text, file)
    if not documents:
        raise SpecError([describe_empty_file(file, expected)])
    if len(documents) > 1:
        problem = "the file has several documents; expected a single one"
        raise SpecError([Problem(documents[1].location, "", "", problem)])
    return documents[0]


def describe_empty_file(file: str, expected: str = "services") -> Problem:
    """Return the error for a file without content."""
    return Problem(Location(file), "", "", f"the file is empty; expected {expected}")


def parse_documents(text: str, file: str) -> list[SourceNode]:
    """Parse all documents in `text`, without the empty ones. `file` is its name in errors. Raises
    SpecError."""
    try:
        roots = list(YAML(typ="safe", pure=True).compose_all(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 0
        reason = ", ".join(part for part in (error.context, error.problem) if part)
        problem = Problem(Location(file, line), "", "", f"invalid YAML: {reason}")
        raise SpecError([problem]) from error
    except YAMLError as error:
        reason = str(error).splitlines()[0]
        raise SpecError([Problem(Location(file), "", "", f"invalid YAML: {reason}")]) from error
    except RecursionError as error:
        problem = Problem(Location(file), "", "", "values are nested too deeply")
        raise SpecError([problem]) from error
    builder = _TreeBuilder(file)
    nodes = [
        builder.build(root, Location(file, root.start_mark.line + 1))
        for root in roots
        if root is not None
    ]
    builder.diagnostics.raise_if_any()
    return [node for node in nodes if node.value is not None]


class _TreeBuilder:
    """Turns the parser's graph into a tree, and records errors."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.diagnostics = Diagnostics()
        self._open: set[int] = set()
        self._count = 0

    def build(self, source: YamlNode, location: Location) -> SourceNode:
        self._count += 1
        if self._count > MAX_NODES:
            self._abort(
                location, f"the file has more than {MAX_NODES} values after alias expansion"
            )
        if isinstance(source, ScalarNode):
            return self._build_scalar(source, location)
        if id(source) in self._open:
            self._abort(location, "an alias refers to a value that contains it")
        self._open.add(id(source))
        try:
            value: Mapping[str, SourceNode] | Sequence[SourceNode]
            if isinstance(source, MappingNode):
                value = self._build_mapping(source)
            else:
                value = [self.build(item, self._locate(item)) for item in source.value]
        finally:
            self._open.discard(id(source))
        return SourceNode(value, location, tag=self._check_tag(source, location))

    def _build_mapping(self, source: MappingNode) -> dict[str, SourceNode]:
        """Return the pairs; those written here take precedence over those merged in by `<<`."""
        own: dict[str, SourceNode] = {}
        merged: dict[str, SourceNode] = {}
        for key, value in source.value:
            line = self._locate(key)
            if key.tag == _PREFIX + "merge":
                for name, node in self._resolve_merge_key(value, line).items():
                    merged.setdefault(name, node)
            elif not isinstance(key, ScalarNode):
                self._add_problem(line, "a key must be a string")
            elif key.value in own:
                first = own[key.value].location.line
                self._add_problem(line, f"duplicate key {key.value}; it is already on line {first}")
            else:
                own[key.value] = self.build(value, line)
        return {**merged, **own}

    def _resolve_merge_key(self, value: YamlNode, line: Location) -> dict[str, SourceNode]:
        sources = value.value if isinstance(value, SequenceNode) else [value]
        merged: dict[str, SourceNode] = {}
        for source in sources:
            if not isinstance(source, MappingNode):
                self._add_problem(line, "<<: expected an alias of a mapping, or a list of them")
                continue
            for name, node in (self.build(source, line).mapping or {}).items():
                merged.setdefault(name, node)
        return merged

    def _build_scalar(self, source: ScalarNode, location: Location) -> SourceNode:
        text: str = source.value
        tag = self._check_tag(source, location)
        return SourceNode(
            _resolve_scalar(str(source.tag).removeprefix(_PREFIX), text), location, text, tag
        )

    def _check_tag(self, source: YamlNode, location: Location) -> str:
        tag = str(source.tag)
        if tag.startswith("!") and tag not in _MERGE_TAGS:
            self._add_problem(location, f"unknown tag {tag}; expected !reset, !override or no tag")
        return tag if tag in _MERGE_TAGS else ""

    def _locate(self, source: YamlNode) -> Location:
        return Location(self.file, source.start_mark.line + 1)

    def _add_problem(self, location: Location, text: str) -> None:
        self.diagnostics.problems.append(Problem(location, "", "", text))

    def _abort(self, location: Location, text: str) -> None:
        raise SpecError([*self.diagnostics.problems, Problem(location, "", "", text)])


def _resolve_scalar(kind: str, text: str) -> Scalar:
    """Return the value of a scalar by the core schema of YAML 1.2; other kinds stay strings."""
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
