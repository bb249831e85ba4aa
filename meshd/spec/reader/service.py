"""Read one entry of `services` into `meshd.spec.model.Service`, key by key.

Called by `meshd.spec.compose`. The other modules of this package read the values of the keys.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from meshd.spec.model import Mesh, Mount, PublishedPort, Service
from meshd.spec.reader import (
    deploy,
    engine_options,
    environment,
    hooks,
    host_files,
    mesh,
    networks,
    ports,
    references,
    route_files,
    service_checks,
    storage,
    unsupported_keys,
    upstream_files,
    values,
)
from meshd.spec.reader.context import ReadContext
from meshd.spec.reader.field_values import FieldValues
from meshd.spec.source.cursor import Cursor, KeyTable
from meshd.spec.source.yaml_tree import SourceNode

PROJECT_NAME_PATTERN: Final = re.compile(r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?")
NAME_PATTERN: Final = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,62}")

_EVERY: Final = re.compile(r"every_([0-9]+[wdhms])+")


def read_service(at: Cursor, context: ReadContext) -> Service | None:
    """Return the service under `at`; None, with the errors recorded, if it has any."""
    before = len(at.diagnostics.problems)
    if not NAME_PATTERN.fullmatch(at.service):
        at.add_problem(
            f"{at.service!r} is not a valid service name; expected letters, digits, -, _ and ., at "
            "most 63 characters, with a letter, a digit or _ at the start"
        )
    reader = _ServiceReader(context)
    at.read_keys(reader.key_table())
    service = reader.build_service(at)
    return service if len(at.diagnostics.problems) == before else None


def read_profiles(at: Cursor) -> frozenset[str]:
    """Return the profiles of a service; one without profiles is always active."""
    node = (at.node.mapping or {}).get("profiles")
    if node is None:
        return frozenset()
    return frozenset(at.child(node, "profiles").attempt(Cursor.read_strings) or ())


@dataclass(slots=True)
class _ServiceReader:
    """Reads the keys of one service, then builds it."""

    context: ReadContext
    fields: FieldValues = field(default_factory=FieldValues)
    env_files: Cursor | None = None
    environment: dict[str, str | None] = field(default_factory=dict)
    expose: list[int] = field(default_factory=list)
    ports: list[PublishedPort] = field(default_factory=list)
    mounts: list[Mount] = field(default_factory=list)
    file_labels: dict[str, SourceNode] = field(default_factory=dict)
    labels: dict[str, SourceNode] = field(default_factory=dict)
    mesh: Cursor | None = None

    def key_table(self) -> KeyTable:
        """Return the keys of a service."""
        base, declared = self.context.base, self.context.declared
        return KeyTable(
            read={
                "extends": _skip,
                "image": self._store_as("image", Cursor.read_string),
                "build": self._store_as("build", lambda c: host_files.read_build(c, self.context)),
                "command": self._store_as("command", values.read_command),
                "entrypoint": self._store_as("entrypoint", values.read_command),
                "working_dir": self._store_as("working_dir", Cursor.read_string),
                "user": self._store_as("user", Cursor.read_string),
                "environment": self._read_environment,
                "env_file": self._read_env_file,
                "expose": self._read_expose,
                "ports": self._read_ports,
                "networks": self._read_networks,
                "volumes": lambda at: self._add_mounts(
                    at.read_items(lambda c: storage.read_volume(c, base, declared))
                ),
                "tmpfs": self._read_tmpfs,
                "secrets": lambda at: self._add_mounts(
                    at.read_items(lambda c: storage.read_file_mount(c, "secrets", declared))
                ),
                "configs": lambda at: self._add_mounts(
                    at.read_items(lambda c: storage.read_file_mount(c, "configs", declared))
                ),
                "labels": self._read_labels,
                "label_file": self._read_label_file,
                "healthcheck": self._store_as("healthcheck", values.read_healthcheck),
                "stop_signal": self._store_as("stop_signal", values.read_stop_signal),
                "stop_grace_period": self._store_as("stop_grace_period", Cursor.read_duration),
                "deploy": lambda at: at.read_keys(deploy.deploy_keys(self.fields)),
                "scale": self._store_as("replicas", deploy.read_replicas),
                "restart": partial(deploy.read_restart, self.fields),
                "cpus": self._store_as("resources.cpus", Cursor.read_number),
                "mem_limit": self._store_as("resources.memory", Cursor.read_size),
                "mem_reservation": self._store_as("resources.reserved_memory", Cursor.read_size),
                "pids_limit": self._store_as(
                    "resources.pids", partial(Cursor.read_integer, low=-1)
                ),
                "depends_on": self._read_depends_on,
                "pre_start": self._store_as(
                    "pre_start", lambda c: hooks.read_init_containers(c, self.context)
                ),
                "post_start": self._store_as(
                    "post_start", lambda c: hooks.read_container_hooks(c, self.context)
                ),
                "pre_stop": self._store_as(
                    "pre_stop", lambda c: hooks.read_container_hooks(c, self.context)
                ),
                "init": self._store_as("init", Cursor.read_boolean),
                "read_only": self._store_as("read_only", Cursor.read_boolean),
                "cap_add": self._store_as("cap_add", Cursor.read_strings),
                "cap_drop": self._store_as("cap_drop", Cursor.read_strings),
                "security_opt": self._store_as("security_opt", Cursor.read_strings),
                "group_add": self._store_as("group_add", Cursor.read_strings),
                "sysctls": self._store_as("sysctls", values.read_strings_by_name),
                "ulimits": self._store_as("ulimits", values.read_ulimits),
                "shm_size": self._store_as("shm_size", Cursor.read_size),
                "extra_hosts": self._store_as(
                    "extra_hosts", lambda c: references.read_extra_hosts(c, self.context)
                ),
                "dns": self._store_as("dns", Cursor.read_string_or_strings),
                "dns_search": self._store_as("dns_search", Cursor.read_string_or_strings),
                "dns_opt": self._store_as("dns_opt", Cursor.read_strings),
                "logging": self._store_as("logging", values.read_logging),
                **{
                    name: self._store_as(f"options.{name}", read)
                    for name, read in engine_options.READERS.items()
                },
                "pull_policy": self._store_as("pull", _read_pull_policy),
                "profiles": _skip,
                "isolation": engine_options.read_isolation,
                "use_api_socket": self._read_use_api_socket,
                "x-mesh": self._keep_mesh,
            },
            refused=unsupported_keys.SERVICE_REFUSED,
            warned=unsupported_keys.SERVICE_WARNED,
        )

    def build_service(self, at: Cursor) -> Service | None:
        """Return the service, after all keys were read; None, with the errors recorded, if it is
        invalid."""
        mapping = at.node.mapping or {}
        labels = {**self.file_labels, **self.labels}
        mesh_labels = {k: node for k, node in labels.items() if k.startswith("mesh.")}
        service_checks.warn_of_misspelled_x_mesh(at, mapping)
        if not ("build" in mapping and mapping["build"].value is not None) and not any(
            key in mapping and mapping[key].value for key in ("image", "command")
        ):
            at.add_problem("the service has nothing to run; expected image, build or command")
        settings = self._read_settings(at, mesh_labels)
        if settings is None or not NAME_PATTERN.fullmatch(at.service):
            return None
        found = self.fields.values
        scale = settings.scale
        if scale is not None and not self.fields.is_set("replicas"):
            found["replicas"] = scale.min
        policy = found.get("restart")
        if isinstance(policy, dict):  # `deploy.restart_policy` without a condition
            policy.setdefault("condition", "any")
        service_checks.check_targets(at, self.mounts)
        published = [port.target for port in self.ports if port.protocol == "tcp"]
        read = Service.model_validate(
            {
                "name": at.service,
                "mesh": settings,
                **found,
                "plain": self.mesh is None and not mesh_labels,
                "labels": {
                    name: node.text for name, node in labels.items() if name not in mesh_labels
                },
                "expose": tuple(dict.fromkeys((*self.expose, *published))),
                "ports": tuple(dict.fromkeys(self.ports)),
                "environment": self._merge_environment(),
                "volumes": tuple(self.mounts),
            }
        )
        service_checks.check_port(at, read)
        service_checks.check_upstream(at, read)
        service_checks.check_server_names(at, read)
        service_checks.check_container_name(at, read)
        service_checks.check_networks(at, read)
        service_checks.warn_of_order(at, read)
        service_checks.warn_of_additional_replicas(at, read)
        return service_checks.expand_parallelism(references.add_implied(at, read, self.context))

    def _read_settings(self, at: Cursor, labelled: dict[str, SourceNode]) -> Mesh | None:
        """Return the settings of `x-mesh`, or of the equivalent `mesh.*` labels."""
        replicas = self.fields.values.get("replicas")
        minimum = replicas if isinstance(replicas, int) else None
        if labelled:
            first = next(iter(labelled.values()))
            tree = mesh.build_tree_from_labels(labelled, first.location)
            labels = Cursor(tree, at.diagnostics, at.service, "labels mesh")
            if self.mesh is not None:
                labels.add_problem("mesh.* labels and x-mesh are both set; expected one of them")
                return None
            return self._read_mesh(labels, minimum)
        return self._read_mesh(self.mesh, minimum) if self.mesh is not None else Mesh()

    def _read_mesh(self, at: Cursor, minimum: int | None) -> Mesh | None:
        settings = mesh.read_mesh(at, minimum)
        if settings is None:
            return None
        settings = upstream_files.resolve_files(settings, self.context.base)
        upstream_files.check_files(at, settings)
        return self._read_route_files(at, settings)

    def _read_route_files(self, at: Cursor, settings: Mesh) -> Mesh | None:
        """Return the settings with the content of their pages; None if a file cannot be used."""
        try:
            return route_files.read_files(settings, self.context.base)
        except route_files.RouteFile as error:
            mesh.find_cursor(at, ("routes", error.route, error.key)).add_problem(str(error))
            return None

    def _store_as(self, name: str, read: Callable[[Cursor], object]) -> Callable[[Cursor], None]:
        def put(at: Cursor) -> None:
            if at.node.value is not None:
                self.fields.set_value(name, at, read=read)

        return put

    def _keep_mesh(self, at: Cursor) -> None:
        self.mesh = at

    def _add_mounts(self, mounts: list[Mount]) -> None:
        self.mounts += mounts

    def _read_tmpfs(self, at: Cursor) -> None:
        many = at.node.sequence is not None
        self._add_mounts(at.read_items(storage.read_tmpfs) if many else [storage.read_tmpfs(at)])

    def _read_expose(self, at: Cursor) -> None:
        self.expose += [port for entry in at.read_items(ports.read_exposed) for port in entry]

    def _read_ports(self, at: Cursor) -> None:
        self.ports += [port for entry in at.read_items(ports.read_published) for port in entry]

    def _read_environment(self, at: Cursor) -> None:
        self.environment |= environment.read_environment(at, self.context)

    def _read_env_file(self, at: Cursor) -> None:
        self.env_files = at

    def _merge_environment(self) -> dict[str, str]:
        """Return the variables of `env_file` and `environment`. It is called after all keys were
        read, because the files may use the variables of `environment`."""
        own = {name: value for name, value in self.environment.items() if value is not None}
        files: dict[str, str] = {}
        if self.env_files is not None:
            files = (
                self.env_files.attempt(lambda c: environment.read_env_files(c, self.context, own))
                or {}
            )
        return {k: v for k, v in files.items() if k not in self.environment} | own

    def _read_labels(self, at: Cursor) -> None:
        for name, value in values.read_pairs(at):
            if value.node.value is not None:
                value.read_string()
            self.labels[name] = value.node

    def _read_label_file(self, at: Cursor) -> None:
        for entry in at.elements() if at.node.sequence is not None else (at,):
            self.file_labels |= entry.attempt(self._read_labels_of_file) or {}

    def _read_labels_of_file(self, at: Cursor) -> dict[str, SourceNode]:
        found = host_files.read_env_file(at, self.context.base, self.context.environment, {})
        return {name: SourceNode(text, at.node.location, text) for name, text in found.items()}

    def _read_use_api_socket(self, at: Cursor) -> None:
        if at.read_boolean():
            mounts, variables = host_files.share_api_socket(self.context.environment)
            self.mounts += mounts
            self.environment = {**variables, **self.environment}

    def _read_networks(self, at: Cursor) -> None:
        names, aliases, attachments = networks.read_attachments(at, self.context)
        self.fields.set_value("networks", at, read=lambda _: names)
        self.fields.set_value("aliases", at, read=lambda _: aliases)
        self.fields.set_value("attachments", at, read=lambda _: attachments)

    def _read_depends_on(self, at: Cursor) -> None:
        for name, value in references.read_depends_on(at, self.context).items():
            self.fields.set_value(name, at, read=lambda _, v=value: v)  # type: ignore[misc]


def _read_pull_policy(at: Cursor) -> str:
    """Read when to pull the image. meshd pulls images only at a deployment, so that a policy by
    time pulls at each."""
    word = at.read_string()
    if word in {"always", "never"}:
        return word
    if word in {"refresh", "daily", "weekly"} or _EVERY.fullmatch(word):
        return "always"
    if word not in {"missing", "if_not_present", "build"}:
        at.fail(f"{word!r} is not valid; expected always, missing, never, daily or every_12h")
    return "missing"


def _skip(_at: Cursor) -> None:
    """Ignore a key that was already read: `profiles` (`read_profiles`), `extends` (the loader)."""
