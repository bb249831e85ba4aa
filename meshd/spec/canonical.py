"""Write a loaded Compose file in the canonical form that `docker compose config` prints.

Called by `meshd config`. Short forms become long ones, paths absolute, `env_file` part of
`environment`; services of inactive profiles are left out. Keys that meshd only warns about are
kept. The values come from the merged tree, so that nothing of the file is lost; only `environment`
comes from the project, which has read the env files.
"""

import posixpath
from collections.abc import Callable, Mapping
from typing import Any, Final

from meshd.spec import units
from meshd.spec.compose import LoadedProject
from meshd.spec.errors import Diagnostics
from meshd.spec.model import Service
from meshd.spec.reader import host_files, ports, storage, values
from meshd.spec.source.cursor import Cursor
from meshd.spec.source.merge import clean_target
from meshd.spec.source.relative_paths import make_mesh_paths_absolute
from meshd.spec.source.yaml_tree import SourceNode

Plain = Any
"""Dicts, lists and scalars, as JSON has them."""
HIDDEN: Final = "***"
"""In place of a secret."""
_BOOLEANS: Final = frozenset(
    {"init", "read_only", "tty", "stdin_open", "privileged", "oom_kill_disable", "attach"}
    | {"use_api_socket", "external", "internal", "attachable", "enable_ipv4", "enable_ipv6"}
    | {"disable", "required", "create_host_path", "nocopy", "no_cache", "pull", "initial_sync"}
    | {"per_replica"}
)
_NUMBERS: Final = frozenset(
    {"replicas", "scale", "pids_limit", "pids", "retries", "parallelism", "max_attempts"}
    | {"max_replicas_per_node", "priority", "soft", "hard"}
)
_CORES: Final = frozenset({"cpus", "max_failure_ratio"})
_SIZES: Final = frozenset({"memory", "mem_limit", "mem_reservation", "memswap_limit", "shm_size"})
_DURATIONS: Final = frozenset(
    {"interval", "timeout", "start_period", "start_interval", "stop_grace_period", "delay"}
    | {"monitor", "window"}
)
_LISTS: Final = frozenset({"dns", "dns_opt", "dns_search", "tmpfs", "label_file"})
_PAIRS: Final = frozenset(
    {"labels", "annotations", "sysctls", "args", "driver_opts", "options", "additional_contexts"}
)
_TEXT: Final = frozenset(
    {"image", "user", "hostname", "domainname", "container_name", "working_dir", "name", "restart"}
)
_WORDS: Final = {
    "true": True, "yes": True, "y": True, "on": True,
    "false": False, "no": False, "n": False, "off": False,
}  # fmt: skip


def build_canonical(loaded: LoadedProject) -> dict[str, Plain]:
    """Return the canonical form of a loaded project: keys in the order of the alphabet, `name`
    first. Each dollar sign of a value is doubled, so that reading the form again gives the same."""
    root = loaded.tree.mapping or {}
    project = loaded.project
    services = {service.name: _ServiceForm(service, loaded).build() for service in project.services}
    found: dict[str, Plain] = {"name": project.name, "services": dict(sorted(services.items()))}
    for section in ("networks", "volumes", "secrets", "configs"):
        entries = _build_section(root.get(section), loaded)
        if section == "networks" and _uses_default(services):
            entries.setdefault("default", {"name": f"{project.name}_default"})
        if entries:
            found[section] = dict(sorted(entries.items()))
    for key in sorted(root):
        if key.startswith("x-") or key == "models":
            found[key] = root[key].to_plain()
    _hide_webhooks(found.get("x-mesh"))
    return {key: _escape_dollars(value) for key, value in found.items()}


def _hide_webhooks(settings: Plain) -> None:
    """Replace the URLs of webhooks, which are secrets. The form is then refused where it is read
    again, so that no notification goes to another place without notice."""
    targets = settings.get("notify") if isinstance(settings, dict) else None
    if isinstance(targets, str):
        settings["notify"] = HIDDEN
    elif isinstance(targets, dict):
        targets["url"] = HIDDEN
    elif isinstance(targets, list):
        for place, target in enumerate(targets):
            if isinstance(target, dict):
                target["url"] = HIDDEN
            else:
                targets[place] = HIDDEN


def format_duration(seconds: float) -> str:
    """Return a duration in the form of Compose: `1m30s`, `1h0m0s`, `200ms`."""
    if 0 < seconds < 1:
        return f"{seconds * 1000:g}ms"
    minutes, rest = divmod(round(seconds, 9), 60)
    hours, minutes = divmod(int(minutes), 60)
    if hours:
        return f"{hours}h{minutes}m{rest:g}s"
    return f"{minutes}m{rest:g}s" if minutes else f"{rest:g}s"


def list_profiles(loaded: LoadedProject) -> list[str]:
    """Return the profiles of all services, also of those that are not active."""
    services = (loaded.tree.mapping or {}).get("services")
    found: set[str] = set()
    for service in ((services.mapping if services else None) or {}).values():
        profiles = (service.mapping or {}).get("profiles")
        found.update(item.text for item in (profiles.sequence if profiles else None) or ())
    return sorted(found)


def _escape_dollars(value: Plain) -> Plain:
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, dict):
        return {key: _escape_dollars(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escape_dollars(item) for item in value]
    return value


def _uses_default(services: Mapping[str, Plain]) -> bool:
    return any("default" in (service.get("networks") or {}) for service in services.values())


def _build_section(node: SourceNode | None, loaded: LoadedProject) -> dict[str, Plain]:
    """Return the declarations of a section at the top level, each with its name."""
    entries = (node.mapping if node is not None else None) or {}
    found: dict[str, Plain] = {}
    for key, entry in entries.items():
        plain: dict[str, Plain] = _convert_mapping(entry)
        external = plain.get("external")
        if isinstance(external, dict):  # the old form, external: {name: …}
            plain["name"] = external.get("name", key)
            plain["external"] = True
        if plain.get("external") is False:
            del plain["external"]
        scoped = key if plain.get("external") else f"{loaded.project.name}_{key}"
        plain.setdefault("name", scoped)
        if isinstance(plain.get("file"), str):
            plain["file"] = storage.resolve_path(loaded.base, plain["file"])
        found[key] = dict(sorted(plain.items()))
    return found


class _ServiceForm:
    """Builds the canonical form of one service."""

    def __init__(self, service: Service, loaded: LoadedProject) -> None:
        services = (loaded.tree.mapping or {})["services"].mapping or {}
        self._service = service
        self._base = loaded.base
        self._variables = loaded.variables
        self._node = services[service.name]

    def build(self) -> dict[str, Plain]:
        special: dict[str, Callable[[SourceNode], Plain]] = {
            "build": self._build_image,
            "command": self._split_command,
            "entrypoint": self._split_command,
            "depends_on": self._list_dependencies,
            "ports": self._list_ports,
            "expose": lambda node: [item.text for item in node.sequence or ()],
            "volumes": lambda node: [self._build_mount(item) for item in node.sequence or ()],
            "networks": _build_networks,
            "extra_hosts": lambda _node: _list_hosts(self._service.extra_hosts),
            "healthcheck": _build_healthcheck,
            "secrets": lambda node: _list_files(node, "/run/secrets"),
            "configs": lambda node: _list_files(node, ""),
            "ulimits": _build_ulimits,
            "devices": lambda _node: self._list_devices(),
            "gpus": _list_gpus,
            "develop": self._build_develop,
        }
        found: dict[str, Plain] = {"command": None, "entrypoint": None}
        if depends_on := self._add_implied({}):
            found["depends_on"] = depends_on
        for key, node in (self._node.mapping or {}).items():
            if key in ("env_file", "environment", "extends", "label_file", "labels"):
                continue
            if node.value is None:
                continue
            if key == "x-mesh":
                found[key] = make_mesh_paths_absolute(node, self._base).to_plain()
            elif key.startswith("x-"):
                found[key] = node.to_plain()
            else:
                found[key] = special[key](node) if key in special else _convert(key, node)
        if labels := self._list_labels():
            found["labels"] = labels
        if self._service.environment:
            found["environment"] = dict(sorted(self._service.environment.items()))
        if "network_mode" not in found:
            found.setdefault("networks", {"default": None})
        return dict(sorted(found.items()))

    def _cursor(self, node: SourceNode) -> Cursor:
        return Cursor(node, Diagnostics())

    def _build_image(self, node: SourceNode) -> Plain:
        plain: dict[str, Plain] = (
            {"context": node.text} if node.mapping is None else _convert_mapping(node)
        )
        context = plain.get("context", ".")
        is_local = "://" not in context and not context.startswith("git@")
        plain["context"] = storage.resolve_path(self._base, context) if is_local else context
        if "dockerfile_inline" not in plain:
            plain.setdefault("dockerfile", "Dockerfile")
        if (build := self._service.build) is not None:
            resolved: dict[str, Plain] = {
                "additional_contexts": dict(build.additional_contexts),
                "extra_hosts": _list_hosts(build.extra_hosts),
                "ssh": [f"{name}={path}" if path else name for name, path in build.ssh.items()],
            }
            plain |= {key: value for key, value in resolved.items() if value}
        if "secrets" in plain:
            plain["secrets"] = [
                {"source": each} if isinstance(each, str) else each for each in plain["secrets"]
            ]
        return dict(sorted(plain.items()))

    def _build_develop(self, node: SourceNode) -> Plain:
        plain = _convert_mapping(node)
        watch = plain.get("watch")
        for entry in watch if isinstance(watch, list) else ():
            if isinstance(entry, dict) and isinstance(entry.get("path"), str):
                entry["path"] = storage.resolve_path(self._base, entry["path"])
        return plain

    def _list_devices(self) -> Plain:
        names = ("source", "target", "permissions")
        return [
            dict(zip(names, device.split(":"), strict=True))
            for device in self._service.options.devices
        ]

    def _split_command(self, node: SourceNode) -> Plain:
        return list(values.read_command(self._cursor(node)))

    def _list_dependencies(self, node: SourceNode) -> Plain:
        found = {}
        for name, entry in values.read_names(self._cursor(node)):
            given = _convert_mapping(entry.node)
            if isinstance(restart := given.get("restart"), str):
                given["restart"] = _WORDS.get(restart.lower(), restart)
            found[name] = {"condition": "service_started", "required": True, **given}
        return self._add_implied(found)

    def _add_implied(self, found: dict[str, Plain]) -> Plain:
        """Return the dependencies with those that other keys imply."""
        options = self._service.options
        restarted = {*options.shared_namespaces, *options.linked_services}
        for name in (*options.shared_services, *options.linked_services):
            implied: dict[str, Plain] = {"condition": "service_started", "required": True}
            if name in restarted:
                implied["restart"] = True
            found.setdefault(name, implied)
        return dict(sorted(found.items()))

    def _read_label_files(self) -> dict[str, str]:
        """Return the labels of `label_file`."""
        node = (self._node.mapping or {}).get("label_file")
        found: dict[str, str] = {}
        if node is not None and node.value is not None:
            at = self._cursor(node)
            for entry in at.elements() if node.sequence is not None else (at,):
                found |= host_files.read_env_file(entry, self._base, self._variables, {})
        return found

    def _list_labels(self) -> Plain:
        """Return the labels of `label_file` and `labels`, with those that set `x-mesh`."""
        node = (self._node.mapping or {}).get("labels")
        given = {} if node is None or node.value is None else _convert("labels", node)
        return dict(sorted({**self._read_label_files(), **given}.items()))

    def _list_ports(self, node: SourceNode) -> Plain:
        return [port for item in node.sequence or () for port in ports.expand(item)]

    def _build_mount(self, node: SourceNode) -> Plain:
        if node.mapping is not None:
            plain: dict[str, Plain] = _convert_mapping(node)
            plain["target"] = clean_target(str(plain.get("target", "")))
            if plain.get("type") == "bind" and isinstance(plain.get("source"), str):
                plain["source"] = storage.resolve_path(self._base, plain["source"])
            if plain.get("type") == "tmpfs" and isinstance(plain.get("tmpfs"), dict):
                size = plain["tmpfs"].get("size")
                if isinstance(size, str):
                    plain["tmpfs"]["size"] = str(units.parse_size(size))
            return plain
        source, _, rest = node.text.partition(":")
        if not rest:
            return {"type": "volume", "target": clean_target(source), "volume": {}}
        target, _, options = rest.partition(":")
        words = options.split(",") if options else []
        is_bind = source.startswith((".", "/", "~"))
        plain = {
            "type": "bind" if is_bind else "volume",
            "source": storage.resolve_path(self._base, source) if is_bind else source,
            "target": clean_target(target),
        }
        if "ro" in words:
            plain["read_only"] = True
        if is_bind:
            plain["bind"] = {"create_host_path": True}
            for word in words:
                if word in storage.PROPAGATIONS:
                    plain["bind"]["propagation"] = word
                elif word in ("z", "Z"):
                    plain["bind"]["selinux"] = word
        else:
            plain["volume"] = {"nocopy": True} if "nocopy" in words else {}
        return plain


def _build_networks(node: SourceNode) -> Plain:
    if node.mapping is None:
        return {item.text: None for item in node.sequence or ()}
    return {
        name: _convert_mapping(entry) if entry.mapping else None
        for name, entry in node.mapping.items()
    }


def _list_hosts(hosts: Mapping[str, str]) -> list[str]:
    return sorted(
        f"{name}={address}" for name, addresses in hosts.items() for address in addresses.split(",")
    )


def _build_healthcheck(node: SourceNode) -> Plain:
    plain = _convert_mapping(node)
    if isinstance(plain.get("test"), str):
        plain["test"] = ["CMD-SHELL", plain["test"]]
    return plain


def _list_files(node: SourceNode, directory: str) -> Plain:
    """Return the secrets or configs of a service in long form, with their targets."""
    found = []
    for item in node.sequence or ():
        plain = {"source": item.text} if item.mapping is None else _convert_mapping(item)
        target = str(plain.get("target", plain.get("source", "")))
        plain["target"] = (
            target if target.startswith("/") else posixpath.join(directory or "/", target)
        )
        if item.mapping is not None and "mode" in item.mapping:
            mode = storage.read_octal(Cursor(item.mapping["mode"], Diagnostics()))
            plain["mode"] = f"0{mode:o}"
        found.append(plain)
    return found


def _list_gpus(node: SourceNode) -> Plain:
    """Return `gpus` as a list; `all` is -1 devices."""
    if node.sequence is None:
        return [{"count": -1}]
    found = [_convert_mapping(item) for item in node.sequence]
    return [{**each, "count": -1} if each.get("count") == "all" else each for each in found]


def _build_ulimits(node: SourceNode) -> Plain:
    return {
        name: _convert_mapping(limit) if limit.mapping is not None else _convert("soft", limit)
        for name, limit in (node.mapping or {}).items()
    }


def _convert_mapping(node: SourceNode) -> dict[str, Plain]:
    return {key: _convert(key, child) for key, child in (node.mapping or {}).items()}


def _convert(key: str, node: SourceNode) -> Plain:
    """Return the value of `key` with the type that Compose gives it."""
    if key.startswith("x-"):
        return node.to_plain()
    if key in _PAIRS and (node.mapping is not None or node.sequence is not None):
        pairs = values.read_pairs(Cursor(node, Diagnostics()))
        empty = None if key == "args" else ""
        return {
            name: empty if value.node.value is None else value.node.text for name, value in pairs
        }
    if node.mapping is not None:
        return _convert_mapping(node)
    if node.sequence is not None:
        return [_convert("", item) for item in node.sequence]
    if key in _LISTS:
        return [node.text]
    return _convert_scalar(key, node)


def _convert_scalar(key: str, node: SourceNode) -> Plain:
    value = node.value
    if key in _BOOLEANS and isinstance(value, str):
        return _WORDS.get(value.lower(), value)
    if key in _TEXT:
        return node.text
    if key in _NUMBERS and isinstance(value, str) and value.lstrip("+-").isdecimal():
        return int(value)
    if key in _CORES and isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    if key in _DURATIONS and value is not None:
        try:
            return format_duration(units.parse_duration(value))
        except ValueError:
            return node.text
    if key in _SIZES:
        try:
            return str(units.parse_size(value))
        except ValueError:
            return node.text
    if key == "" and not isinstance(value, bool) and value is not None:
        return node.text
    return value
