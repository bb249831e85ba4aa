"""One entry of `services` → `model.Service`, key by key."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from meshd.spec.model import Mesh, Mount, Service
from meshd.spec.reader import (
    deploy,
    environment,
    host_files,
    mesh,
    ports,
    relations,
    service_checks,
    storage,
    unsupported_keys,
    values,
)
from meshd.spec.reader.context import ReadContext
from meshd.spec.reader.draft import Draft
from meshd.spec.source.cursor import Cursor, Keys
from meshd.spec.source.yaml_tree import SourceNode

NAME: Final = re.compile(r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?")


def read(at: Cursor, context: ReadContext) -> Service | None:
    """The service under `at`; None, with its problems noted, when it has any."""
    before = len(at.notes.problems)
    if not NAME.fullmatch(at.service):
        at.note(
            f"{at.service!r} is no name for a service; expected lower-case letters, digits, - and "
            "_, at most 63, with a letter or digit at both ends"
        )
    reader = _Reader(context)
    at.keys(reader.keys())
    service = reader.finish(at)
    return service if len(at.notes.problems) == before else None


def profiles(at: Cursor) -> frozenset[str]:
    """The profiles that a service belongs to; empty means always."""
    node = (at.node.mapping or {}).get("profiles")
    if node is None:
        return frozenset()
    return frozenset(at.child(node, "profiles").attempt(Cursor.strings) or ())


@dataclass(slots=True)
class _Reader:
    """Reads one service; lives as long as that takes."""

    context: ReadContext
    draft: Draft = field(default_factory=Draft)
    env_files: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    expose: list[int] = field(default_factory=list)
    mounts: list[Mount] = field(default_factory=list)
    mesh: Cursor | None = None
    mesh_labels: dict[str, SourceNode] = field(default_factory=dict)

    def keys(self) -> Keys:
        """Every key of a service that meshd reads."""
        base, declared = self.context.base, self.context.declared
        known = self.context.environment
        return Keys(
            read={
                "extends": _known_already,
                "image": self._into("image", Cursor.string),
                "build": self._into("build", lambda c: host_files.build(c, base, known)),
                "command": self._into("command", values.command),
                "entrypoint": self._into("entrypoint", values.command),
                "working_dir": self._into("working_dir", Cursor.string),
                "user": self._into("user", Cursor.string),
                "environment": self._environment,
                "env_file": self._env_file,
                "expose": lambda at: self._ports(at, ports.exposed),
                "ports": lambda at: self._ports(at, ports.published),
                "networks": self._networks,
                "volumes": lambda at: self._mounts(
                    at.each(lambda c: storage.volume(c, base, declared))
                ),
                "tmpfs": self._tmpfs,
                "secrets": lambda at: self._mounts(
                    at.each(lambda c: storage.file_use(c, "secrets", declared))
                ),
                "configs": lambda at: self._mounts(
                    at.each(lambda c: storage.file_use(c, "configs", declared))
                ),
                "labels": self._labels,
                "healthcheck": self._into("healthcheck", values.healthcheck),
                "stop_signal": self._into("stop_signal", values.stop_signal),
                "stop_grace_period": self._into("stop_grace_period", Cursor.duration),
                "deploy": lambda at: at.keys(deploy.keys(self.draft)),
                "scale": self._into("replicas", deploy.replicas),
                "restart": partial(deploy.restart, self.draft),
                "cpus": self._into("resources.cpus", Cursor.number),
                "mem_limit": self._into("resources.memory", Cursor.size),
                "mem_reservation": self._into("resources.reserved_memory", Cursor.size),
                "pids_limit": self._into("resources.pids", Cursor.integer),
                "depends_on": self._depends_on,
                "init": self._into("init", Cursor.boolean),
                "read_only": self._into("read_only", Cursor.boolean),
                "cap_add": self._into("cap_add", Cursor.strings),
                "cap_drop": self._into("cap_drop", Cursor.strings),
                "security_opt": self._into("security_opt", Cursor.strings),
                "group_add": self._into("group_add", Cursor.strings),
                "sysctls": self._into("sysctls", values.texts),
                "ulimits": self._into("ulimits", values.ulimits),
                "shm_size": self._into("shm_size", Cursor.size),
                "extra_hosts": self._into(
                    "extra_hosts", lambda c: relations.extra_hosts(c, self.context)
                ),
                "dns": self._into("dns", Cursor.string_or_strings),
                "dns_search": self._into("dns_search", Cursor.string_or_strings),
                "dns_opt": self._into("dns_opt", Cursor.strings),
                "logging": self._into("logging", values.logging),
                "pull_policy": self._into("pull", _pull_policy),
                "profiles": _known_already,
                "x-mesh": self._mesh,
            },
            refused=unsupported_keys.SERVICE_REFUSED,
            warned=unsupported_keys.SERVICE_WARNED,
        )

    def finish(self, at: Cursor) -> Service | None:
        """The service, once every key was read."""
        mapping = at.node.mapping or {}
        service_checks.warn_of_slips(at, mapping)
        if not any(key in mapping and mapping[key].value for key in ("image", "build", "command")):
            at.note("nothing says what to run; expected image, build or command")
        settings = self._settings(at)
        if settings is None or not NAME.fullmatch(at.service):
            return None
        found = self.draft.values
        scale = settings.scale
        if scale is not None and not self.draft.given("replicas"):
            found["replicas"] = scale.min
        service_checks.check_targets(at, self.mounts)
        read = Service.model_validate(
            {
                "name": at.service,
                "mesh": settings,
                **found,
                "expose": tuple(dict.fromkeys(self.expose)),
                "environment": {**self.env_files, **self.environment},
                "volumes": tuple(self.mounts),
            }
        )
        service_checks.check_port(at, read)
        return service_checks.all_at_once(read)

    def _settings(self, at: Cursor) -> Mesh | None:
        """`x-mesh`, or the `mesh.*` labels that say the same."""
        replicas = self.draft.values.get("replicas")
        minimum = replicas if isinstance(replicas, int) else None
        if self.mesh_labels:
            first = next(iter(self.mesh_labels.values()))
            tree = mesh.from_labels(self.mesh_labels, first.where)
            labels = Cursor(tree, at.notes, at.service, "labels mesh")
            if self.mesh is not None:
                labels.note("mesh.* labels stand beside x-mesh; expected one of them")
                return None
            return mesh.read(labels, minimum)
        return mesh.read(self.mesh, minimum) if self.mesh is not None else Mesh()

    def _into(self, name: str, read: Callable[[Cursor], object]) -> Callable[[Cursor], None]:
        def put(at: Cursor) -> None:
            if at.node.value is not None:
                self.draft.put(name, at, read=read)

        return put

    def _mesh(self, at: Cursor) -> None:
        self.mesh = at

    def _mounts(self, mounts: list[Mount]) -> None:
        self.mounts += mounts

    def _tmpfs(self, at: Cursor) -> None:
        many = at.node.sequence is not None
        self._mounts(at.each(storage.tmpfs) if many else [storage.tmpfs(at)])

    def _ports(self, at: Cursor, read: Callable[[Cursor], tuple[int, ...]]) -> None:
        found = [port for entry in at.each(read) for port in entry]
        # What is exposed stands before what is published: the first is where requests go.
        self.expose = found + self.expose if read is ports.exposed else self.expose + found

    def _environment(self, at: Cursor) -> None:
        self.environment |= environment.environment(at, self.context)

    def _env_file(self, at: Cursor) -> None:
        self.env_files |= environment.of_files(at, self.context)

    def _labels(self, at: Cursor) -> None:
        labels: dict[str, str] = {}
        for name, value in values.pairs(at):
            if name.startswith("mesh."):
                self.mesh_labels[name] = value.node
            else:
                labels[name] = "" if value.node.value is None else value.string()
        self.draft.put("labels", at, read=lambda _: labels)

    def _networks(self, at: Cursor) -> None:
        names, aliases = relations.networks(at, self.context)
        self.draft.put("networks", at, read=lambda _: names)
        self.draft.put("aliases", at, read=lambda _: aliases)

    def _depends_on(self, at: Cursor) -> None:
        names, healthy = relations.depends_on(at, self.context)
        self.draft.put("depends_on", at, read=lambda _: names)
        self.draft.put("wait_healthy", at, read=lambda _: healthy)


def _pull_policy(at: Cursor) -> str:
    """When an image is pulled, at a deployment and no other time."""
    word = at.string()
    if word in {"always", "never"}:
        return word
    if word not in {"missing", "if_not_present", "build"}:
        at.fail(f"meshd does not support {word!r}; expected always, missing or never")
    return "missing"


def _known_already(_at: Cursor) -> None:
    """`profiles` was read before, when it was decided which services are on."""
