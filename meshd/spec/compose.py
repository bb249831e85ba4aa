"""Compose files → a checked project: the way in to this package.

read the files into one tree (`sources`) → read each key → check what stands between services. A
step that finds problems still lets the ones after it find theirs where that makes sense.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from meshd.spec.errors import Diagnostics, Problem, sort_problems
from meshd.spec.model import Network, Project, Quota, Service
from meshd.spec.model.proxy_settings import ProxySettings, TopLevelSettings
from meshd.spec.reader import mesh, project_checks, service, storage, unsupported_keys
from meshd.spec.reader.context import ReadContext
from meshd.spec.source import compose_schema
from meshd.spec.source.cursor import Cursor, KeyTable
from meshd.spec.source.loader import FileContext, SourceLoader

Read = TypeVar("Read")
_VOLUME_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class LoadedProject:
    """A project that can be run, what its reader should know all the same, and what is said
    of the proxy as a whole."""

    project: Project
    warnings: tuple[Problem, ...] = ()
    proxy_settings: ProxySettings = field(default_factory=ProxySettings)


def load(
    paths: Sequence[Path],
    *,
    project: str | None = None,
    environment: Mapping[str, str],
    profiles: Sequence[str] = (),
) -> LoadedProject:
    """The project that the files at `paths` describe, later ones merged over earlier ones.

    `environment` are the variables for `${…}`; they win over a `.env` beside the first file.
    The name is `project`, else COMPOSE_PROJECT_NAME, else `name:`, else the directory's.
    COMPOSE_PROFILES adds to `profiles`. Relative paths start at the first file's directory, as
    in Compose. Raises SpecError with every problem found; nothing is started or changed.
    """
    diagnostics = Diagnostics()
    base = paths[0].absolute().parent
    sources = SourceLoader(diagnostics)
    variables = sources.variables([paths[0].parent / ".env"], environment)
    root = sources.project(paths, FileContext(base, variables))
    if root is None:
        diagnostics.raise_if_any()
    assert root is not None
    reading = _ProjectReader(Cursor(root, diagnostics), base, variables, diagnostics)
    active = {*profiles, *filter(None, variables.get("COMPOSE_PROFILES", "").split(","))}
    found = reading.project(project, paths[0], active)
    compose_schema.check_against_schema(sources.read, diagnostics)
    diagnostics.raise_if_any()
    assert found is not None
    return LoadedProject(found, tuple(sort_problems(diagnostics.warnings)), reading.proxy_settings)


@dataclass(slots=True)
class _ProjectReader:
    """Reads the merged tree; lives as long as that takes."""

    root: Cursor
    base: Path
    variables: Mapping[str, str]
    diagnostics: Diagnostics
    proxy_settings: ProxySettings = field(default_factory=ProxySettings)
    quota: Quota | None = None

    def project(self, name: str | None, first: Path, active: set[str]) -> Project | None:
        """The project; None, with its problems noted, when there is any."""
        if self.root.node.mapping is None:
            self.root.add_problem(f"{self.root.describe()} is no Compose file; expected services")
            return None
        sections: dict[str, Cursor] = {}
        read = ("name", "services", "networks", "volumes", "secrets", "configs", "x-mesh")
        keys = {key: partial(sections.__setitem__, key) for key in (*read, "include")}
        self.root.read_keys(
            KeyTable(
                read=keys,
                refused=unsupported_keys.TOP_REFUSED,
                warned=unsupported_keys.TOP_WARNED,
            )
        )
        title = self._name(name, sections.get("name"))
        networks = _read_section(sections.get("networks"), _read_network)
        volumes = _read_section(sections.get("volumes"), _read_volume)
        files: dict[storage.FileKind, Mapping[str, Path]] = {
            "secrets": _read_section(sections.get("secrets"), self._file),
            "configs": _read_section(sections.get("configs"), self._file),
        }
        declared = storage.Declarations(frozenset(volumes), files)
        if "x-mesh" in sections:
            top = mesh.read_top_level(sections["x-mesh"]) or TopLevelSettings()
            self.proxy_settings, self.quota = top.proxy_settings, top.quota
        services = self._services(sections.get("services"), declared, networks, active)
        if self.diagnostics.problems:
            return None
        if "default" in networks:
            services = [
                each if each.networks else each.model_copy(update={"networks": ("default",)})
                for each in services
            ]
        elif any("default" in each.networks for each in services):
            networks["default"] = Network(name="default")
        return Project(
            name=title,
            services=tuple(services),
            networks=tuple(networks.values()),
            volumes=tuple(volumes),
            source=str(first.absolute()),
            quota=self.quota,
        )

    def _services(
        self,
        at: Cursor | None,
        declared: storage.Declarations,
        networks: Mapping[str, Network],
        active: set[str],
    ) -> list[Service]:
        if at is None or not at.node.mapping:
            (at or self.root).add_problem(
                "there are no services; expected one or more under services"
            )
            return []
        places = {
            name: Cursor(node, self.diagnostics, service=name)
            for name, node in at.node.mapping.items()
        }
        enabled = {
            name: place
            for name, place in places.items()
            if not (wanted := service.read_profiles(place)) or wanted & active
        }
        if not enabled:
            at.add_problem("every service is in a profile that is off; expected one that is on")
        context = ReadContext(
            base=self.base,
            environment=self.variables,
            declared=declared,
            networks=frozenset(networks),
            services=frozenset(places),
            enabled=frozenset(enabled),
        )
        found = [
            place.attempt(lambda c: service.read_service(c, context)) for place in enabled.values()
        ]
        services = [each for each in found if each is not None]
        project_checks.check_project(services, enabled, frozenset(places))
        return services

    def _name(self, given: str | None, at: Cursor | None) -> str:
        """The project's name."""
        written = at.attempt(Cursor.read_string) if at is not None else None
        asked = given or self.variables.get("COMPOSE_PROJECT_NAME") or written
        name = asked or re.sub(r"[^a-z0-9_-]", "", self.base.name.lower()).strip("-_")
        if not service.NAME_PATTERN.fullmatch(name):
            (at or self.root).add_problem(
                f"{name!r} is no name for a project; expected lower-case letters, digits, - and _, "
                "at most 63, with a letter or digit at both ends"
            )
        return name

    def _file(self, at: Cursor) -> Path | None:
        return storage.read_declared_file(at, self.base)


def _read_section(at: Cursor | None, read: Callable[[Cursor], Read | None]) -> dict[str, Read]:
    """The entries of a section at the top, by name; bad ones are noted and left out."""
    if at is None or at.node.value is None:
        return {}
    entries = at.attempt(lambda c: dict(c.items())) or {}
    return {
        name: found
        for name, entry in entries.items()
        if not name.startswith("x-") and (found := entry.attempt(read)) is not None
    }


def _read_network(at: Cursor) -> Network:
    name = at.field.partition(".")[2]
    found: dict[str, object] = {"name": name}
    if not service.NAME_PATTERN.fullmatch(name):
        at.fail(f"{name!r} is no name for a network; expected lower-case letters, digits, - and _")
    if at.node.value is not None:
        at.read_keys(
            KeyTable(
                read={
                    "internal": lambda c: found.update(internal=c.read_boolean()),
                    "driver": partial(_check_word, words=("bridge", "default")),
                },
                refused=unsupported_keys.TOP_NETWORK_REFUSED,
                warned=unsupported_keys.TOP_NETWORK_WARNED,
            )
        )
    return Network.model_validate(found)


def _read_volume(at: Cursor) -> str:
    name = at.field.partition(".")[2]
    if not _VOLUME_NAME.fullmatch(name):
        at.fail(f"{name!r} is no name for a volume; expected letters, digits, -, _ and .")
    if at.node.value is not None:
        at.read_keys(
            KeyTable(
                read={"driver": partial(_check_word, words=("local", "default"))},
                refused=unsupported_keys.TOP_VOLUME_REFUSED,
                warned=unsupported_keys.TOP_VOLUME_WARNED,
            )
        )
    return name


def _check_word(at: Cursor, words: tuple[str, ...]) -> None:
    at.read_one_of(*words)
