"""Load Compose files into one tree: parse, substitute variables, extend, include and merge.

Called by `meshd.spec.compose`, which hands the tree to the readers in `meshd.spec.reader`. Every
value keeps the file and line it was written on.
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
    """What applies to a file.

    - `base`: the directory that its relative paths start at
    - `variables`: the variables that it may use
    - `included_by`: the files that include it, outermost first
    """

    base: Path
    variables: Mapping[str, str]
    included_by: tuple[Path, ...] = ()


@dataclass(slots=True)
class SourceLoader:
    """Loads files. Errors are recorded in `diagnostics`.

    - `trees`: every file that was parsed, with variables substituted, but not merged
    """

    diagnostics: Diagnostics
    trees: list[SourceNode] = field(default_factory=list)

    def load_files(self, paths: Sequence[Path], context: FileContext) -> SourceNode | None:
        """Load and merge files; later ones take precedence. None if one of them cannot be read."""
        trees = [self._load_file(path, context) for path in paths]
        found = [tree for tree in trees if tree is not None]
        return merge(found) if len(found) == len(trees) else None

    def load_variables(
        self, files: Sequence[Path], environment: Mapping[str, str], *, required: bool = False
    ) -> Mapping[str, str]:
        """Return the variables of `.env` files, with `environment` taking precedence over them.

        A missing file is an error if `required`, and skipped otherwise.
        """
        found: dict[str, str] = {}
        for path in files:
            if not required and not path.is_file():
                continue
            text = self._read_text(path)
            if text is not None:
                found |= env_file.parse_env_file(
                    text, str(path), {**found, **environment}, self.diagnostics
                )
        return {**found, **environment}

    def _read_text(self, path: Path) -> str | None:
        try:
            return env_file.decode_env_file(path.read_bytes())
        except FileNotFoundError:
            self._add_problem(Location(str(path)), "no such file")
        except UnicodeDecodeError:
            self._add_problem(Location(str(path)), "cannot be read: it is not valid UTF-8")
        except OSError as error:
            self._add_problem(Location(str(path)), f"cannot be read: {error.strerror}")
        return None

    def _load_file(self, path: Path, context: FileContext) -> SourceNode | None:
        tree = self._load_tree(path, context.variables)
        if tree is None:
            return None
        resolver = ExtendsResolver(
            self.diagnostics, lambda other: self._load_tree(other, context.variables)
        )
        return self._add_included(resolver.resolve(tree, path, context.base), path, context)

    def _load_tree(self, path: Path, variables: Mapping[str, str]) -> SourceNode | None:
        """Parse a file and substitute its variables."""
        text = self._read_text(path)
        if text is None:
            return None
        try:
            tree = substitute_variables(parse_yaml(text, str(path)), variables, self.diagnostics)
        except SpecError as error:
            self.diagnostics.problems += error.problems
            return None
        self.trees.append(tree)
        return tree

    def _add_included(self, root: SourceNode, path: Path, context: FileContext) -> SourceNode:
        """Return the file with the contents of the files that it includes."""
        include = (root.mapping or {}).get("include")
        if root.mapping is None or include is None:
            return root
        found = {key: node for key, node in root.mapping.items() if key != "include"}
        context = replace(context, included_by=(*context.included_by, path.absolute()))
        at = Cursor(include, self.diagnostics, field="include")
        for entry in at.attempt(lambda c: list(c.elements())) or ():
            tree = self._load_included(entry, context)
            if tree is not None and tree.mapping is not None:
                for section in _SECTIONS:
                    self._merge_section(found, section, tree.mapping.get(section))
        return replace(root, value=found)

    def _load_included(self, at: Cursor, context: FileContext) -> SourceNode | None:
        """Load one entry of `include`: an application with its own directory and variables."""
        files, folder, env_files = _parse_include(at, context.base)
        for file in files:
            if file.absolute() in context.included_by:
                at.add_problem(
                    f"{file} includes itself, directly or through other files; remove the cycle"
                )
                return None
        if not files:
            return None
        base = folder or files[0].absolute().parent
        variables = self.load_variables(
            env_files or [base / ".env"], context.variables, required=bool(env_files)
        )
        tree = self.load_files(files, replace(context, base=base, variables=variables))
        return None if tree is None else make_paths_absolute(tree, base)

    def _merge_section(
        self, root: dict[str, SourceNode], section: str, included: SourceNode | None
    ) -> None:
        """Add an included section. An entry that already exists must be equal."""
        if included is None or included.mapping is None:
            return
        existing = root.get(section)
        both = dict(existing.mapping or {}) if existing is not None else {}
        for name, node in included.mapping.items():
            if name in both and both[name].to_plain() != node.to_plain():
                self._add_problem(
                    node.location,
                    f"{section}.{name} is also defined in {both[name].location}, with different "
                    "contents; expected a different name, or a file merged over the other with -f",
                )
            both.setdefault(name, node)
        root[section] = replace(existing or included, value=both)

    def _add_problem(self, location: Location, text: str) -> None:
        self.diagnostics.problems.append(Problem(location, "", "", text))


def _parse_include(at: Cursor, base: Path) -> tuple[list[Path], Path | None, list[Path]]:
    """Return the files, the directory and the `.env` files of one entry of `include`."""
    found: dict[str, list[str]] = {}
    if at.node.mapping is None:
        found["path"] = [at.attempt(Cursor.read_string) or ""]
    else:
        names = ("path", "project_directory", "env_file")
        at.read_keys(KeyTable(read={name: _collect_paths(found, name) for name in names}))
        if not found.get("path"):
            at.add_problem("path is missing; expected a file or a list of files")
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
