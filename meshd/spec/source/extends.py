"""`extends`: a service takes over the keys of another one, of its own file or of another file."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from meshd.spec.errors import Notes, Where
from meshd.spec.source.cursor import Cursor, Keys
from meshd.spec.source.merge import merge
from meshd.spec.source.relative_paths import of_service
from meshd.spec.source.yaml_tree import SourceNode

_NOWHERE: Final = Where("")


@dataclass(frozen=True, slots=True)
class Extension:
    """Extends services. `written` reads another file as it stands there, variables replaced, and
    gives None, with its problems noted, for one that cannot be read."""

    notes: Notes
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
        at = Cursor(extends, self.notes, service=name, field="extends")
        if here in chain:
            at.note("it extends itself, by way of others; expected an end")
            return own
        wanted, file = _extends(at)
        found = self._wanted(at, wanted, file, services, path, base, (*chain, here))
        if found is None:
            return own
        merged = merge((_only(name, found), _only(name, own))).mapping or {}
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
            at.note(f"there is no service {wanted} in this file; expected one that it has")
            return None
        other = base / Path(file).expanduser()
        tree = self.written(other)
        if tree is None:
            return None
        others = ((tree.mapping or {}).get("services") or SourceNode({}, _NOWHERE)).mapping or {}
        if wanted not in others:
            at.note(f"there is no service {wanted} in {other}; expected one that it has")
            return None
        folder = other.absolute().parent
        return of_service(self._service(wanted, others, other, folder, chain), folder)


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


def _only(name: str, service: SourceNode) -> SourceNode:
    """A file of one service."""
    return SourceNode({"services": SourceNode({name: service}, service.where)}, service.where)
