"""Files → one tree: read, interpolated, extended, `include` taken in, merged.

Every value keeps the file and line that it was written on, wherever that was.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from meshd.spec.errors import Notes, Problem, SpecError, Where
from meshd.spec.source import env_file
from meshd.spec.source.cursor import Cursor, Keys
from meshd.spec.source.extends import Extension
from meshd.spec.source.merge import merge
from meshd.spec.source.relative_paths import anchored
from meshd.spec.source.substitution import interpolated
from meshd.spec.source.yaml_tree import SourceNode, parse

_SECTIONS: Final = ("services", "networks", "volumes", "secrets", "configs")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a file's relative paths start, what its variables are, and which files led to it."""

    base: Path
    variables: Mapping[str, str]
    within: tuple[Path, ...] = ()


@dataclass(slots=True)
class Sources:
    """Reads files; `read` holds each of them as it was written, interpolated."""

    notes: Notes
    read: list[SourceNode] = field(default_factory=list)

    def project(self, paths: Sequence[Path], place: Place) -> SourceNode | None:
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
                found |= env_file.parse(text, str(path), {**found, **above}, self.notes)
        return {**found, **above}

    def _text(self, path: Path) -> str | None:
        try:
            return path.read_text(encoding="utf-8")
        except FileNotFoundError:
            self._note(Where(str(path)), "there is no such file")
        except UnicodeDecodeError:
            self._note(Where(str(path)), "cannot be read: it is no text in UTF-8")
        except OSError as error:
            self._note(Where(str(path)), f"cannot be read: {error.strerror}")
        return None

    def _file(self, path: Path, place: Place) -> SourceNode | None:
        tree = self._written(path, place.variables)
        if tree is None:
            return None
        extension = Extension(self.notes, lambda other: self._written(other, place.variables))
        return self._included(extension.applied(tree, path, place.base), path, place)

    def _written(self, path: Path, variables: Mapping[str, str]) -> SourceNode | None:
        text = self._text(path)
        if text is None:
            return None
        try:
            tree = interpolated(parse(text, str(path)), variables, self.notes)
        except SpecError as error:
            self.notes.problems += error.problems
            return None
        self.read.append(tree)
        return tree

    def _included(self, root: SourceNode, path: Path, place: Place) -> SourceNode:
        """The file together with those that it includes."""
        include = (root.mapping or {}).get("include")
        if root.mapping is None or include is None:
            return root
        found = {key: node for key, node in root.mapping.items() if key != "include"}
        place = replace(place, within=(*place.within, path.absolute()))
        at = Cursor(include, self.notes, field="include")
        for entry in at.attempt(lambda c: list(c.elements())) or ():
            tree = self._include(entry, place)
            if tree is not None and tree.mapping is not None:
                for section in _SECTIONS:
                    self._add(found, section, tree.mapping.get(section))
        return replace(root, value=found)

    def _include(self, at: Cursor, place: Place) -> SourceNode | None:
        """One entry of `include`: an application with a directory and variables of its own."""
        files, folder, env_files = _include_of(at, place.base)
        for file in files:
            if file.absolute() in place.within:
                at.note(f"{file} includes itself, by way of others; expected an end")
                return None
        if not files:
            return None
        base = folder or files[0].absolute().parent
        variables = self.variables(
            env_files or [base / ".env"], place.variables, needed=bool(env_files)
        )
        tree = self.project(files, replace(place, base=base, variables=variables))
        return None if tree is None else anchored(tree, base)

    def _add(self, root: dict[str, SourceNode], section: str, more: SourceNode | None) -> None:
        """Take a section in. What is in both must be the same in both."""
        if more is None or more.mapping is None:
            return
        had = root.get(section)
        both = dict(had.mapping or {}) if had is not None else {}
        for name, node in more.mapping.items():
            if name in both and both[name].plain() != node.plain():
                self._note(
                    node.where,
                    f"{section}.{name} stands in {both[name].where} too, and differs; expected "
                    "another name, or a file that is merged over the other with -f",
                )
            both.setdefault(name, node)
        root[section] = replace(had or more, value=both)

    def _note(self, where: Where, text: str) -> None:
        self.notes.problems.append(Problem(where, "", "", text))


def _include_of(at: Cursor, base: Path) -> tuple[list[Path], Path | None, list[Path]]:
    """The files, the directory and the `.env` files of one entry of `include`."""
    found: dict[str, list[str]] = {}
    if at.node.mapping is None:
        found["path"] = [at.attempt(Cursor.string) or ""]
    else:
        names = ("path", "project_directory", "env_file")
        at.keys(Keys(read={name: _many_of(found, name) for name in names}))
        if not found.get("path"):
            at.note("path is missing; expected one file or a list of them")
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


def _many_of(found: dict[str, list[str]], name: str) -> Callable[[Cursor], None]:
    return lambda at: found.update({name: list(at.string_or_strings())})
