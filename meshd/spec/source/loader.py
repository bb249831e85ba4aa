"""Files → one tree: read, interpolated, extended, `include` taken in, merged.

Every value keeps the file and line that it was written on, wherever that was.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from meshd.spec.errors import Diagnostics, Location, Problem, SpecError
from meshd.spec.source import env_file
from meshd.spec.source.cursor import Cursor, KeyTable
from meshd.spec.source.extends import ExtendsResolver
from meshd.spec.source.merge import merge
from meshd.spec.source.relative_paths import make_paths_absolute
from meshd.spec.source.substitution import substitute_variables
from meshd.spec.source.yaml_tree import SourceNode, parse_yaml

_SECTIONS: Final = ("services", "networks", "volumes", "secrets", "configs")


@dataclass(frozen=True, slots=True)
class FileContext:
    """Where a file's relative paths start, what its variables are, and which files led to it."""

    base: Path
    variables: Mapping[str, str]
    within: tuple[Path, ...] = ()


@dataclass(slots=True)
class SourceLoader:
    """Reads files; `read` holds each of them as it was written, interpolated."""

    diagnostics: Diagnostics
    read: list[SourceNode] = field(default_factory=list)

    def project(self, paths: Sequence[Path], place: FileContext) -> SourceNode | None:
        """The files merged, later ones on top; None, with the problems noted, where one cannot
        be read."""
        trees = [self._file(path, place) for path in paths]
        found = [tree for tree in trees if tree is not None]
        return merge(found) if len(found) == len(trees) else None

    def variables(
        self, files: Sequence[Path], above: Mapping[str, str], *, needed: bool = False
    ) -> Mapping[str, str]:
        """`above` over what stands in these `.env` files; one that is not there is passed over
        unless it is `needed`."""
        found: dict[str, str] = {}
        for path in files:
            if not needed and not path.is_file():
                continue
            text = self._text(path)
            if text is not None:
                found |= env_file.parse_env_file(
                    text, str(path), {**found, **above}, self.diagnostics
                )
        return {**found, **above}

    def _text(self, path: Path) -> str | None:
        try:
            return path.read_text(encoding="utf-8")
        except FileNotFoundError:
            self._add_problem(Location(str(path)), "there is no such file")
        except UnicodeDecodeError:
            self._add_problem(Location(str(path)), "cannot be read: it is no text in UTF-8")
        except OSError as error:
            self._add_problem(Location(str(path)), f"cannot be read: {error.strerror}")
        return None

    def _file(self, path: Path, place: FileContext) -> SourceNode | None:
        tree = self._written(path, place.variables)
        if tree is None:
            return None
        extension = ExtendsResolver(
            self.diagnostics, lambda other: self._written(other, place.variables)
        )
        return self._included(extension.applied(tree, path, place.base), path, place)

    def _written(self, path: Path, variables: Mapping[str, str]) -> SourceNode | None:
        text = self._text(path)
        if text is None:
            return None
        try:
            tree = substitute_variables(parse_yaml(text, str(path)), variables, self.diagnostics)
        except SpecError as error:
            self.diagnostics.problems += error.problems
            return None
        self.read.append(tree)
        return tree

    def _included(self, root: SourceNode, path: Path, place: FileContext) -> SourceNode:
        """The file together with those that it includes."""
        include = (root.mapping or {}).get("include")
        if root.mapping is None or include is None:
            return root
        found = {key: node for key, node in root.mapping.items() if key != "include"}
        place = replace(place, within=(*place.within, path.absolute()))
        at = Cursor(include, self.diagnostics, field="include")
        for entry in at.attempt(lambda c: list(c.elements())) or ():
            tree = self._include(entry, place)
            if tree is not None and tree.mapping is not None:
                for section in _SECTIONS:
                    self._add(found, section, tree.mapping.get(section))
        return replace(root, value=found)

    def _include(self, at: Cursor, place: FileContext) -> SourceNode | None:
        """One entry of `include`: an application with a directory and variables of its own."""
        files, folder, env_files = _parse_include(at, place.base)
        for file in files:
            if file.absolute() in place.within:
                at.add_problem(f"{file} includes itself, by way of others; expected an end")
                return None
        if not files:
            return None
        base = folder or files[0].absolute().parent
        variables = self.variables(
            env_files or [base / ".env"], place.variables, needed=bool(env_files)
        )
        tree = self.project(files, replace(place, base=base, variables=variables))
        return None if tree is None else make_paths_absolute(tree, base)

    def _add(self, root: dict[str, SourceNode], section: str, more: SourceNode | None) -> None:
        """Take a section in. What is in both must be the same in both."""
        if more is None or more.mapping is None:
            return
        had = root.get(section)
        both = dict(had.mapping or {}) if had is not None else {}
        for name, node in more.mapping.items():
            if name in both and both[name].to_plain() != node.to_plain():
                self._add_problem(
                    node.location,
                    f"{section}.{name} stands in {both[name].location} too, and differs; expected "
                    "another name, or a file that is merged over the other with -f",
                )
            both.setdefault(name, node)
        root[section] = replace(had or more, value=both)

    def _add_problem(self, location: Location, text: str) -> None:
        self.diagnostics.problems.append(Problem(location, "", "", text))


def _parse_include(at: Cursor, base: Path) -> tuple[list[Path], Path | None, list[Path]]:
    """The files, the directory and the `.env` files of one entry of `include`."""
    found: dict[str, list[str]] = {}
    if at.node.mapping is None:
        found["path"] = [at.attempt(Cursor.read_string) or ""]
    else:
        names = ("path", "project_directory", "env_file")
        at.read_keys(KeyTable(read={name: _collect_paths(found, name) for name in names}))
        if not found.get("path"):
            at.add_problem("path is missing; expected one file or a list of them")
    paths = {
        key: [base / Path(text).expanduser() for text in texts if text]
        for key, texts in found.items()
    }
    folder = paths.get("project_directory")
    return (
        paths.get("path", []),
        folder[0].absolute() if folder else None,
        paths.get("env_file", []),
    )


def _collect_paths(found: dict[str, list[str]], name: str) -> Callable[[Cursor], None]:
    return lambda at: found.update({name: list(at.read_string_or_strings())})
