"""Files → one tree: read, interpolated, `extends` and `include` taken in, merged.

Every value keeps the file and line that it was written on, wherever that was.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from meshd.spec import env_file
from meshd.spec.cursor import Cursor, Keys
from meshd.spec.errors import Notes, Problem, SpecError, Where
from meshd.spec.interpolate import Uninterpolable, interpolate
from meshd.spec.merge import merge
from meshd.spec.paths import anchored, of_service
from meshd.spec.yaml_source import Node, parse

_SECTIONS: Final = ("services", "networks", "volumes", "secrets", "configs")
_NOWHERE: Final = Where("")


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
    read: list[Node] = field(default_factory=list)

    def project(self, paths: Sequence[Path], place: Place) -> Node | None:
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

    def _file(self, path: Path, place: Place) -> Node | None:
        tree = self._written(path, place.variables)
        if tree is None:
            return None
        tree = self._extended(tree, path, place)
        return self._included(tree, path, place)

    def _written(self, path: Path, variables: Mapping[str, str]) -> Node | None:
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

    def _extended(self, root: Node, path: Path, place: Place) -> Node:
        """The file where each service that extends another has that one's keys as well."""
        services = (root.mapping or {}).get("services")
        if services is None or services.mapping is None:
            return root
        known = services.mapping
        found = {name: self._service(name, known, (path,), place, ()) for name in known}
        return replace(
            root, value={**(root.mapping or {}), "services": replace(services, value=found)}
        )

    def _service(
        self,
        name: str,
        services: Mapping[str, Node],
        files: tuple[Path, ...],
        place: Place,
        chain: tuple[tuple[Path, str], ...],
    ) -> Node:
        node = services[name]
        extends = (node.mapping or {}).get("extends")
        if node.mapping is None or extends is None:
            return node
        own = replace(node, value={k: v for k, v in node.mapping.items() if k != "extends"})
        here = (files[-1].absolute(), name)
        at = Cursor(extends, self.notes, service=name, field="extends")
        if here in chain:
            at.note("it extends itself, by way of others; expected an end")
            return own
        wanted, file = _extends(at)
        base = self._base(at, wanted, file, services, files, place, (*chain, here))
        if base is None:
            return own
        both = (_only(name, base), _only(name, own))
        merged = merge(both).mapping or {}
        return (merged["services"].mapping or {})[name]

    def _base(
        self,
        at: Cursor,
        wanted: str,
        file: str,
        services: Mapping[str, Node],
        files: tuple[Path, ...],
        place: Place,
        chain: tuple[tuple[Path, str], ...],
    ) -> Node | None:
        """The service that another extends, with the paths of its own file."""
        if not wanted:
            return None
        if not file:
            if wanted in services:
                return self._service(wanted, services, files, place, chain)
            at.note(f"there is no service {wanted} in this file; expected one that it has")
            return None
        path = place.base / Path(file).expanduser()
        tree = self._written(path, place.variables)
        if tree is None:
            return None
        others = ((tree.mapping or {}).get("services") or Node({}, _NOWHERE)).mapping or {}
        if wanted not in others:
            at.note(f"there is no service {wanted} in {path}; expected one that it has")
            return None
        folder = path.absolute().parent
        there = replace(place, base=folder)
        found = self._service(wanted, others, (*files, path), there, chain)
        return of_service(found, folder)

    def _included(self, root: Node, path: Path, place: Place) -> Node:
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

    def _include(self, at: Cursor, place: Place) -> Node | None:
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

    def _add(self, root: dict[str, Node], section: str, more: Node | None) -> None:
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


def _extends(at: Cursor) -> tuple[str, str]:
    """The service and the file of `extends`; empty where they are not given."""
    found: dict[str, str] = {}
    if at.node.mapping is None:
        found["service"] = at.attempt(Cursor.string) or ""
    else:
        read = {
            "service": lambda c: found.update(service=c.string()),
            "file": lambda c: found.update(file=c.string()),
        }
        at.keys(Keys(read=read))
        if "service" not in found:
            at.note("service is missing; expected the name of one")
    return found.get("service", ""), found.get("file", "")


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


def _only(name: str, service: Node) -> Node:
    """A file of one service."""
    return Node({"services": Node({name: service}, service.where)}, service.where)


def interpolated(root: Node, variables: Mapping[str, str], notes: Notes) -> Node:
    """The file with variables replaced, except under its own `x-` keys at the top: what is
    used of them stands at its alias as well."""
    mapping = root.mapping
    if mapping is None:
        return root
    found = {
        key: node
        if key.startswith("x-") and key != "x-mesh"
        else _replaced(node, variables, notes, ("", key))
        for key, node in mapping.items()
    }
    return replace(root, value=found)


def _replaced(
    node: Node, variables: Mapping[str, str], notes: Notes, place: tuple[str, str]
) -> Node:
    """`node` with variables replaced; `place` is the service and field for messages."""
    if node.mapping is not None:
        return replace(
            node,
            value={
                key: _replaced(child, variables, notes, _deeper(place, key))
                for key, child in node.mapping.items()
            },
        )
    if node.sequence is not None:
        return replace(
            node, value=[_replaced(item, variables, notes, place) for item in node.sequence]
        )
    if not isinstance(node.value, str) or "$" not in node.value:
        return node
    missing: list[str] = []
    try:
        text = interpolate(node.value, variables, missing.append)
    except Uninterpolable as error:
        notes.problems.append(Problem(node.where, *place, str(error)))
        return node
    notes.warnings += [
        Problem(node.where, *place, f"the variable {name} is not set; {_meant(name)}")
        for name in missing
    ]
    return replace(node, value=text, text=text)


def _meant(name: str) -> str:
    """What becomes of an unset variable; a replica's own is only known where it runs."""
    if name == "PORT" or name.startswith("MESH_URL_"):
        return f"it becomes empty here; write sh -c '… $${name}' for what a replica is told"
    return "it becomes empty"


def _deeper(place: tuple[str, str], key: str) -> tuple[str, str]:
    """The service and field of a child; the children of `services` are services."""
    service_name, field = place
    if (service_name, field) == ("", "services"):
        return key, ""
    return service_name, f"{field}.{key}" if field else key
