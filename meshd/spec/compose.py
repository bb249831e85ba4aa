"""Load Compose files into a checked project: the entry point of this package.

Called by the CLI (`meshd up`, `deploy`, `diff`). The steps: read the files into one tree
(`meshd.spec.source.loader`), read each key (`meshd.spec.reader`), check the services against each
other, and check each file against the schema of the Compose Specification. Later steps run after
errors where that makes sense, so that all errors are reported at once.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from meshd.spec.errors import Diagnostics, Problem, sort_problems
from meshd.spec.model import BackupHooks, Network, Project, Service
from meshd.spec.model.proxy_settings import ProxySettings, TopLevelSettings
from meshd.spec.reader import mesh, project_checks, service, storage, unsupported_keys
from meshd.spec.reader import networks as networks_reader
from meshd.spec.reader.context import ReadContext
from meshd.spec.source import compose_schema
from meshd.spec.source.cursor import Cursor, KeyTable
from meshd.spec.source.loader import FileContext, SourceLoader
from meshd.spec.source.yaml_tree import SourceNode, describe_empty_file

Read = TypeVar("Read")
PROJECT_NAME: Final = "COMPOSE_PROJECT_NAME"
ALL_PROFILES: Final = "*"


@dataclass(frozen=True, slots=True)
class LoadedProject:
    """A valid project, the warnings about its files, and the settings of the whole proxy.

    - `tree`: the merged files, with variables replaced
    - `base`: the directory that relative paths start at
    - `variables`: those of the environment and of the `.env` files
    """

    project: Project
    tree: SourceNode
    base: Path
    warnings: tuple[Problem, ...] = ()
    proxy_settings: ProxySettings = field(default_factory=ProxySettings)
    variables: Mapping[str, str] = field(default_factory=dict)


def load(
    paths: Sequence[Path],
    *,
    project: str | None = None,
    environment: Mapping[str, str],
    profiles: Sequence[str] = (),
    env_files: Sequence[Path] | None = None,
) -> LoadedProject:
    """Load the project in the files at `paths`; later files are merged over earlier ones.

    `environment` holds the variables for `${…}`; it takes precedence over `env_files`, by default a
    `.env` next to the first file. The project's name is `project`, or COMPOSE_PROJECT_NAME, or
    `name:`, or that of the directory. COMPOSE_PROFILES adds to `profiles`; the profile `*`
    activates all services. Relative paths start at the directory of the first file, as in Compose.
    Raises SpecError with all errors. Nothing is started or changed.
    """
    diagnostics = Diagnostics()
    base = paths[0].absolute().parent
    loader = SourceLoader(diagnostics)
    variables = loader.load_variables(
        [paths[0].parent / ".env"] if env_files is None else env_files,
        environment,
        required=env_files is not None,
    )
    name = (
        project
        or variables.get(PROJECT_NAME)
        or _clean_project_name(loader.find_project_name(paths, variables) or "", base)
    )
    variables = {**variables, PROJECT_NAME: name}
    root = loader.load_files(paths, FileContext(base, variables))
    if root is None:
        if not diagnostics.problems:
            diagnostics.problems.append(describe_empty_file(str(paths[0])))
        diagnostics.raise_if_any()
    assert root is not None
    reader = _ProjectReader(Cursor(root, diagnostics), base, variables, diagnostics)
    active = {*profiles, *filter(None, variables.get("COMPOSE_PROFILES", "").split(","))}
    found = reader.read_project(name, paths[0], active)
    compose_schema.check_against_schema(root, diagnostics)
    diagnostics.raise_if_any()
    assert found is not None
    warnings = tuple(sort_problems(diagnostics.warnings))
    return LoadedProject(found, root, base, warnings, reader.top.proxy_settings, variables)


def load_dotenv(
    env_files: Sequence[Path] | None, environment: Mapping[str, str]
) -> Mapping[str, str]:
    """Return the variables that apply before a Compose file is known: `environment`, then those of
    `env_files`, by default a `.env` in the current directory. Raises SpecError."""
    diagnostics = Diagnostics()
    required = env_files is not None
    files = [Path(".env")] if env_files is None else env_files
    found = SourceLoader(diagnostics).load_variables(files, environment, required=required)
    diagnostics.raise_if_any()
    return found


@dataclass(slots=True)
class _ProjectReader:
    """Reads the merged tree of one project."""

    root: Cursor
    base: Path
    variables: Mapping[str, str]
    diagnostics: Diagnostics
    top: TopLevelSettings = field(default_factory=TopLevelSettings)

    def read_project(self, name: str, first: Path, active: set[str]) -> Project | None:
        """Return the project; None, with the errors recorded, if there are any.

        `name` is its name, `first` the first file, and `active` the active profiles.
        """
        if self.root.node.mapping is None:
            self.root.add_problem(
                f"{self.root.describe()} is not a Compose file; expected a mapping with services"
            )
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
        self._check_name(name, sections.get("name"))
        networks = _read_section(sections.get("networks"), networks_reader.read_network)
        volumes = _read_section(sections.get("volumes"), self._read_volume)
        files: dict[storage.FileKind, Mapping[str, storage.DeclaredFile]] = {
            "secrets": _read_section(sections.get("secrets"), self._read_file),
            "configs": _read_section(sections.get("configs"), self._read_file),
        }
        declared = storage.Declarations(volumes, files)
        if "x-mesh" in sections:
            self.top = mesh.read_top_level(sections["x-mesh"]) or self.top
        services = self._read_services(sections.get("services"), declared, networks, active)
        backups = self._read_backups(sections, services)
        if self.diagnostics.problems:
            return None
        services = project_checks.make_apart_mutual(services)
        services = [
            each
            if each.networks or each.options.network_mode
            else each.model_copy(update={"networks": ("default",)})
            for each in services
        ]
        if any("default" in each.networks for each in services):
            networks.setdefault("default", Network(name="default"))
        services = [_name_networks(each, networks) for each in services]
        declared_networks = [_with_static_addresses(each, services) for each in networks.values()]
        return Project(
            name=name,
            services=tuple(services),
            networks=tuple(declared_networks),
            volumes=tuple(volumes),
            source=str(first.absolute()),
            quota=self.top.quota,
            backups=backups,
            notify=self.top.notify,
            trace_url=self.top.trace_url,
        )

    def _read_services(
        self,
        at: Cursor | None,
        declared: storage.Declarations,
        networks: Mapping[str, Network],
        active: set[str],
    ) -> list[Service]:
        if at is None or not at.node.mapping:
            (at or self.root).add_problem(
                "the file has no services; expected one or more under services"
            )
            return []
        cursors = {
            name: Cursor(node, self.diagnostics, service=name)
            for name, node in at.node.mapping.items()
        }
        enabled = {
            name: cursor
            for name, cursor in cursors.items()
            if not (profiles := service.read_profiles(cursor))
            or profiles & active
            or ALL_PROFILES in active
        }
        if not enabled:
            at.add_problem(
                "every service is in an inactive profile; expected at least one active service"
            )
        context = ReadContext(
            base=self.base,
            environment=self.variables,
            declared=declared,
            networks=frozenset(networks),
            services=frozenset(cursors),
            enabled=frozenset(enabled),
        )
        found = [
            cursor.attempt(lambda c: service.read_service(c, context))
            for cursor in enabled.values()
        ]
        services = [each for each in found if each is not None]
        project_checks.check_project(services, enabled, frozenset(cursors))
        return services

    def _read_backups(
        self, sections: Mapping[str, Cursor], services: Sequence[Service]
    ) -> dict[str, BackupHooks]:
        """Return the backup hooks of the services that are active."""
        if not self.top.backups:
            return {}
        known = frozenset(
            (sections["services"].node.mapping if "services" in sections else {}) or {}
        )
        project_checks.check_backups(sections["x-mesh"], self.top.backups, services, known)
        active = {each.name for each in services}
        return {name: hooks for name, hooks in self.top.backups.items() if name in active}

    def _check_name(self, name: str, at: Cursor | None) -> None:
        """Record an error if the project's name is not valid; `at` is `name:` of the file."""
        if at is not None:
            at.attempt(Cursor.read_string)
        if not service.PROJECT_NAME_PATTERN.fullmatch(name):
            (at or self.root).add_problem(
                f"{name!r} is not a valid project name; expected lower-case letters, digits, - and "
                "_, at most 63 characters, with a letter or digit at both ends"
            )

    def _read_volume(self, at: Cursor) -> storage.DeclaredVolume:
        return storage.read_declared_volume(at, self.base)

    def _read_file(self, at: Cursor) -> storage.DeclaredFile:
        return storage.read_declared_file(at, self.base, self.variables)


def _clean_project_name(from_file: str, base: Path) -> str:
    """Return the name in the file, or else of the directory, as Compose writes it: in lower case,
    without other characters than letters, digits, - and _. If nothing valid remains, return the
    name as it is written, for the message."""
    for written in filter(None, (from_file, base.name)):
        if name := re.sub(r"[^a-z0-9_-]", "", written.lower()).strip("-_"):
            return name
    return from_file or base.name


def _read_section(at: Cursor | None, read: Callable[[Cursor], Read | None]) -> dict[str, Read]:
    """Return the entries of a top-level section by name; errors are recorded, and their entries
    left out."""
    if at is None or at.node.value is None:
        return {}
    entries = at.attempt(lambda c: dict(c.items())) or {}
    return {
        name: found for name, entry in entries.items() if (found := entry.attempt(read)) is not None
    }


def _with_static_addresses(network: Network, services: Sequence[Service]) -> Network:
    """Return a network with the IPv4 addresses that services ask for there."""
    given = (service.attachments.get(network.name) for service in services)
    static = sorted({each.ipv4_address for each in given if each and each.ipv4_address})
    return network.model_copy(update={"static_addresses": tuple(static)}) if static else network


def _name_networks(given: Service, networks: Mapping[str, Network]) -> Service:
    """Return the service with the names of its networks on the engine."""
    named = {
        name: networks[name].engine_name
        for name in given.networks
        if name in networks and networks[name].engine_name
    }
    return given.model_copy(update={"network_names": named}) if named else given
