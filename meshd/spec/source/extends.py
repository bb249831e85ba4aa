"""Resolve `extends`: a service inherits the keys of another service, of the same or another file.

Called by `meshd.spec.source.loader` for each file, before files are merged.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from meshd.spec.errors import Diagnostics, Location
from meshd.spec.source.cursor import Cursor, KeyTable
from meshd.spec.source.merge import merge
from meshd.spec.source.relative_paths import make_service_paths_absolute
from meshd.spec.source.yaml_tree import SourceNode

_NO_LOCATION: Final = Location("")


@dataclass(frozen=True, slots=True)
class ExtendsResolver:
    """Resolves the `extends` keys of a file.

    - `load_tree`: parses another file and substitutes its variables; returns None, with the errors
      recorded, if it cannot be read
    """

    diagnostics: Diagnostics
    load_tree: Callable[[Path], SourceNode | None]

    def resolve(self, root: SourceNode, path: Path, base: Path) -> SourceNode:
        """Return the tree of the file at `path` with the inherited keys in each service. Relative
        paths start at `base`."""
        services = (root.mapping or {}).get("services")
        if services is None or services.mapping is None:
            return root
        known = services.mapping
        found = {name: self._resolve_service(name, known, path, base, ()) for name in known}
        return replace(
            root, value={**(root.mapping or {}), "services": replace(services, value=found)}
        )

    def _resolve_service(
        self,
        name: str,
        services: Mapping[str, SourceNode],
        path: Path,
        base: Path,
        chain: tuple[tuple[Path, str], ...],
    ) -> SourceNode:
        node = services[name]
        extends = (node.mapping or {}).get("extends")
        if node.mapping is None or extends is None:
            return node
        own = replace(node, value={k: v for k, v in node.mapping.items() if k != "extends"})
        here = (path.absolute(), name)
        at = Cursor(extends, self.diagnostics, service=name, field="extends")
        if here in chain:
            at.add_problem(
                "the service extends itself, directly or through other services; remove the cycle"
            )
            return own
        parent, file = _parse_extends(at)
        found = self._find_parent(at, parent, file, services, path, base, (*chain, here))
        if found is None:
            return own
        merged = merge((_wrap_service(name, found), _wrap_service(name, own))).mapping or {}
        return (merged["services"].mapping or {})[name]

    def _find_parent(
        self,
        at: Cursor,
        parent: str,
        file: str,
        services: Mapping[str, SourceNode],
        path: Path,
        base: Path,
        chain: tuple[tuple[Path, str], ...],
    ) -> SourceNode | None:
        """Return the parent service with paths relative to its own file; None, with the error
        recorded, if it does not exist."""
        if not parent:
            return None
        if not file:
            if parent in services:
                return self._resolve_service(parent, services, path, base, chain)
            at.add_problem(f"this file has no service {parent}; expected a service of the file")
            return None
        other = base / Path(file).expanduser()
        tree = self.load_tree(other)
        if tree is None:
            return None
        others = (
            (tree.mapping or {}).get("services") or SourceNode({}, _NO_LOCATION)
        ).mapping or {}
        if parent not in others:
            at.add_problem(f"{other} has no service {parent}; expected a service of that file")
            return None
        folder = other.absolute().parent
        return make_service_paths_absolute(
            self._resolve_service(parent, others, other, folder, chain), folder
        )


def _parse_extends(at: Cursor) -> tuple[str, str]:
    """Return the service and the file of `extends`; empty if not given."""
    found: dict[str, str] = {}
    if at.node.mapping is None:
        found["service"] = at.attempt(Cursor.read_string) or ""
    else:
        read = {
            "service": lambda c: found.update(service=c.read_string()),
            "file": lambda c: found.update(file=c.read_string()),
        }
        at.read_keys(KeyTable(read=read))
        if "service" not in found:
            at.add_problem("service is missing; expected the name of a service")
    return found.get("service", ""), found.get("file", "")


def _wrap_service(name: str, service: SourceNode) -> SourceNode:
    """Return the tree of a file with one service."""
    return SourceNode({"services": SourceNode({name: service}, service.location)}, service.location)
