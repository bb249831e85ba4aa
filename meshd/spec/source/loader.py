"""Load Compose files into one tree: parse, substitute variables, include, extend and merge.

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
from meshd.spec.source.interpolate import InterpolationError, interpolate
from meshd.spec.source.merge import merge, merge_included
from meshd.spec.source.relative_paths import make_paths_absolute
from meshd.spec.source.substitution import resolve_bare_names, substitute_variables
from meshd.spec.source.yaml_tree import SourceNode, describe_empty_file, parse_documents

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
    """Loads files. Errors are recorded in `diagnostics`."""

    diagnostics: Diagnostics
    _documents: dict[Path, list[SourceNode] | None] = field(default_factory=dict)
    """The documents of each file that was read, without substitution; None after an error."""

    def load_files(self, paths: Sequence[Path], context: FileContext) -> SourceNode | None:
        """Load and merge files; later ones take precedence, and empty ones change nothing. None if
        one of them cannot be read, or if all are empty."""
        trees: list[SourceNode] = []
        failed = False
        for path in paths:
            documents = self._load_documents(path, context.variables)
            failed = failed or documents is None
            trees += [self._resolve(tree, path, context) for tree in documents or ()]
        return None if failed or not trees else merge(trees)

    def find_project_name(self, paths: Sequence[Path], variables: Mapping[str, str]) -> str | None:
        """Return `name` of the last file that has one; None if none does or it is not valid."""
        found = None
        for path in paths:
            for tree in self._parse(path) or ():
                node = (tree.mapping or {}).get("name")
                if node is not None and node.text:
                    found = node.text
        if found is None:
            return None
        try:
            return interpolate(found, variables, lambda _name: None)
        except InterpolationError:
            return None  # recorded when the file is loaded

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

    def _resolve(self, tree: SourceNode, path: Path, context: FileContext) -> SourceNode:
        """Add what a document includes, then resolve `extends`: a service may extend an included
        one."""
        resolver = ExtendsResolver(
            self.diagnostics, lambda other: self._load_tree(other, context.variables)
        )
        return resolver.resolve(self._add_included(tree, path, context), path, context.base)

    def _load_tree(self, path: Path, variables: Mapping[str, str]) -> SourceNode | None:
        """Load a file by itself, with its documents merged; None after an error."""
        documents = self._load_documents(path, variables)
        if documents is not None and not documents:
            self.diagnostics.problems.append(describe_empty_file(str(path)))
        return merge(documents) if documents else None

    def _load_documents(self, path: Path, variables: Mapping[str, str]) -> list[SourceNode] | None:
        """Parse a file and substitute its variables."""
        documents = self._parse(path)
        if documents is None:
            return None
        return [substitute_variables(tree, variables, self.diagnostics) for tree in documents]

    def _parse(self, path: Path) -> list[SourceNode] | None:
        """Return the documents of a file; each file is read once."""
        if path not in self._documents:
            text = self._read_text(path)
            try:
                self._documents[path] = None if text is None else parse_documents(text, str(path))
            except SpecError as error:
                self.diagnostics.problems += error.problems
                self._documents[path] = None
        return self._documents[path]

    def _add_included(self, root: SourceNode, path: Path, context: FileContext) -> SourceNode:
        """Return the document merged over the contents of the files that it includes. Of two
        included files, the first takes precedence."""
        include = (root.mapping or {}).get("include")
        if root.mapping is None or include is None:
            return root
        found = {key: node for key, node in root.mapping.items() if key != "include"}
        context = replace(context, included_by=(*context.included_by, path.absolute()))
        at = Cursor(include, self.diagnostics, field="include")
        for entry in at.attempt(lambda c: list(c.elements())) or ():
            tree = self._load_included(entry, context)
            if tree is not None and tree.mapping is not None:
                found = merge_included(tree.mapping, found, _SECTIONS)
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
        if tree is None:
            return None
        return make_paths_absolute(resolve_bare_names(tree, variables), base)

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
