"""`extends`: a service takes over the keys of another one, of its own file or of another file."""

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
    """Extends services. `written` reads another file as it stands there, variables replaced, and
    gives None, with its problems noted, for one that cannot be read."""

    diagnostics: Diagnostics
    written: Callable[[Path], SourceNode | None]

    def applied(self, root: SourceNode, path: Path, base: Path) -> SourceNode:
        """The file at `path` where each service that extends another has that one's keys as
        well; relative paths start at `base`."""
        services = (root.mapping or {}).get("services")
        if services is None or services.mapping is None:
            return root
        known = services.mapping
        found = {name: self._service(name, known, path, base, ()) for name in known}
        return replace(
            root, value={**(root.mapping or {}), "services": replace(services, value=found)}
        )

    def _service(
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
            at.add_problem("it extends itself, by way of others; expected an end")
            return own
        wanted, file = _parse_extends(at)
        found = self._wanted(at, wanted, file, services, path, base, (*chain, here))
        if found is None:
            return own
        merged = merge((_wrap_service(name, found), _wrap_service(name, own))).mapping or {}
        return (merged["services"].mapping or {})[name]

    def _wanted(
        self,
        at: Cursor,
        wanted: str,
        file: str,
        services: Mapping[str, SourceNode],
        path: Path,
        base: Path,
        chain: tuple[tuple[Path, str], ...],
    ) -> SourceNode | None:
        """The service that another extends, with the paths of its own file."""
        if not wanted:
            return None
        if not file:
            if wanted in services:
                return self._service(wanted, services, path, base, chain)
            at.add_problem(f"there is no service {wanted} in this file; expected one that it has")
            return None
        other = base / Path(file).expanduser()
        tree = self.written(other)
        if tree is None:
            return None
        others = (
            (tree.mapping or {}).get("services") or SourceNode({}, _NO_LOCATION)
        ).mapping or {}
        if wanted not in others:
            at.add_problem(f"there is no service {wanted} in {other}; expected one that it has")
            return None
        folder = other.absolute().parent
        return make_service_paths_absolute(
            self._service(wanted, others, other, folder, chain), folder
        )


def _parse_extends(at: Cursor) -> tuple[str, str]:
    """The service and the file of `extends`; empty where they are not given."""
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
            at.add_problem("service is missing; expected the name of one")
    return found.get("service", ""), found.get("file", "")


def _wrap_service(name: str, service: SourceNode) -> SourceNode:
    """A file of one service."""
    return SourceNode({"services": SourceNode({name: service}, service.location)}, service.location)
