"""Merge the trees of several Compose files, by the rules of the Compose Specification. Pure.

Called by `meshd.spec.source.loader` and `meshd.spec.source.extends`. The results are those of
Docker Compose.

- Mappings merge key by key, lists are appended, and a later scalar replaces an earlier one.
- Commands are replaced as a whole.
- `environment`, `labels` and similar keys merge by name, in either form.
- `volumes`, `tmpfs`, `secrets` and `configs` merge by mount target, and `env_file` by path.
- `logging` merges only if both have the same driver, or one has none.
- `devices` merge by path in the container, and the ranges of `ipam.config` by subnet.
- An address in `extra_hosts` is added to those that the name has already.
- `!reset` removes a key, and `!override` replaces it as a whole.
"""

import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from meshd.spec.source.yaml_tree import SourceNode

_Path = tuple[str, ...]
_REPLACED: Final[set[_Path]] = {
    ("services", "*", "command"),
    ("services", "*", "entrypoint"),
    ("services", "*", "healthcheck", "test"),
    ("services", "*", "ulimits", "*"),
}
_BY_NAME: Final[set[_Path]] = {
    ("services", "*", "environment"),
    ("services", "*", "labels"),
    ("services", "*", "annotations"),
    ("services", "*", "sysctls"),
    ("services", "*", "build", "args"),
    ("services", "*", "build", "additional_contexts"),
    ("services", "*", "build", "labels"),
    ("services", "*", "deploy", "labels"),
    ("networks", "*", "labels"),
    ("volumes", "*", "labels"),
}
_NAMED: Final[set[_Path]] = {
    ("services", "*", "depends_on"),
    ("services", "*", "networks"),
}
_BUILD: Final[_Path] = ("services", "*", "build")
_DEPENDS_ON: Final[_Path] = ("services", "*", "depends_on")
_LOGGING: Final[_Path] = ("services", "*", "logging")
_EXTRA_HOSTS: Final[_Path] = ("services", "*", "extra_hosts")
_BUILD_HOSTS: Final[_Path] = ("services", "*", "build", "extra_hosts")
_POOLS: Final[_Path] = ("networks", "*", "ipam", "config")
_DEVICES: Final[_Path] = ("services", "*", "devices")
_ENV_FILE: Final[_Path] = ("services", "*", "env_file")
_ONE_OR_MANY: Final[set[_Path]] = {
    _ENV_FILE,
    ("services", "*", "dns"),
    ("services", "*", "dns_opt"),
    ("services", "*", "dns_search"),
    ("services", "*", "label_file"),
    ("services", "*", "tmpfs"),
}
"""Keys whose value is a list or its only item."""
_ANY_KEY: Final[set[_Path]] = {
    ("services",),
    ("services", "*", "ulimits"),
    ("networks",),
    ("volumes",),
}
"""Mappings whose keys are names that the user chooses."""
_BY_TARGET: Final[set[_Path]] = {
    ("services", "*", "tmpfs"),
    ("services", "*", "volumes"),
    ("services", "*", "secrets"),
    ("services", "*", "configs"),
}


def merge(files: Sequence[SourceNode]) -> SourceNode:
    """Merge the files; later ones take precedence."""
    merged = _drop_tags(files[0])
    for later in files[1:]:
        merged = _merge(merged, later, ())
    return merged


def merge_included(
    included: Mapping[str, SourceNode], own: Mapping[str, SourceNode], sections: Sequence[str]
) -> dict[str, SourceNode]:
    """Return the keys of a file with its `sections` merged over those of an included file."""
    found = dict(own)
    for section in sections:
        base = included.get(section)
        if base is not None and base.mapping is not None:
            over = own.get(section) or SourceNode({}, base.location)
            found[section] = _merge(base, over, (section,))
    return found


def _merge(base: SourceNode, over: SourceNode, path: _Path) -> SourceNode:
    if over.tag == "!override" or path in _REPLACED:
        return _drop_tags(over)
    if path == _LOGGING and not _has_same_driver(base, over):
        return _drop_tags(over)
    if path == _BUILD or path in _BY_NAME or path in _NAMED:
        base, over = _expand_short_form(base, path), _expand_short_form(over, path)
    if path in (_EXTRA_HOSTS, _BUILD_HOSTS):
        base, over = _list_hosts(base), _list_hosts(over)
    if path in _ONE_OR_MANY:
        base, over = _wrap_in_list(base), _wrap_in_list(over)
    if base.mapping is not None and over.mapping is not None:
        return _merge_mappings(base, base.mapping, over.mapping, path)
    if base.sequence is not None and over.sequence is not None:
        over_items = [_drop_tags(item) for item in over.sequence]
        if path == _POOLS:
            return replace(base, value=_merge_pools(base.sequence, over_items))
        if path == _DEVICES:
            return replace(base, value=_deduplicate([*base.sequence, *over_items], _device_target))
        if path in _BY_TARGET:
            return replace(base, value=_deduplicate([*base.sequence, *over_items], _mount_target))
        if path == _ENV_FILE:
            return replace(base, value=_deduplicate([*base.sequence, *over_items], _file_path))
        return replace(base, value=_deduplicate([*base.sequence, *over_items], _content_key))
    if over.value is None and not over.tag and base.value is not None:
        return base
    return _drop_tags(over)


def _merge_mappings(
    node: SourceNode, base: Mapping[str, SourceNode], over: Mapping[str, SourceNode], path: _Path
) -> SourceNode:
    merged = dict(base)
    for key, value in over.items():
        if value.tag == "!reset":
            merged.pop(key, None)
        elif key in merged:
            merged[key] = _merge(merged[key], value, (*path, "*" if path in _ANY_KEY else key))
        else:
            merged[key] = _drop_tags(value)
    return replace(node, value=merged)


def _merge_pools(base: Sequence[SourceNode], over: Sequence[SourceNode]) -> list[SourceNode]:
    """Return the address ranges of a network: the later ones, each over the one of its subnet."""
    known = {_subnet(item): item for item in base}
    return [_merge(known.get(_subnet(item), item), item, ("ipam",)) for item in over]


def _subnet(item: SourceNode) -> str:
    subnet = (item.mapping or {}).get("subnet")
    return "" if subnet is None else subnet.text


def _drop_tags(node: SourceNode) -> SourceNode:
    """Return the tree as if merged over nothing: without reset keys and without tags."""
    if node.mapping is not None:
        kept = {k: _drop_tags(v) for k, v in node.mapping.items() if v.tag != "!reset"}
        return replace(node, value=kept, tag="")
    if node.sequence is not None:
        return replace(node, value=[_drop_tags(item) for item in node.sequence], tag="")
    return replace(node, tag="") if node.tag else node


def _expand_short_form(node: SourceNode, path: _Path) -> SourceNode:
    """Expand a short form to a mapping; return anything else unchanged."""
    if path == _BUILD and isinstance(node.value, str):
        return replace(node, value={"context": replace(node)}, text="")
    if node.sequence is None:
        return node
    found: dict[str, SourceNode] = {}
    for item in node.sequence:
        if item.mapping is not None or item.sequence is not None:
            return node
        if path in _NAMED:
            found[item.text] = _expand_name(item, path)
            continue
        name, equals, value = item.text.partition("=")
        found[name] = (
            replace(item, value=value, text=value) if equals else SourceNode(None, item.location)
        )
    return replace(node, value=found)


def _expand_name(item: SourceNode, path: _Path) -> SourceNode:
    """Return the long form of a name in a list, with the default values of `depends_on`."""
    if path != _DEPENDS_ON:
        return SourceNode(None, item.location)
    condition = SourceNode("service_started", item.location, "service_started")
    required = SourceNode(True, item.location, "true")
    return SourceNode({"condition": condition, "required": required}, item.location)


def _has_same_driver(base: SourceNode, over: SourceNode) -> bool:
    """Whether two `logging` mappings have the same driver, or one of them has none."""
    drivers = [(node.mapping or {}).get("driver") for node in (base, over)]
    return None in drivers or len({node.text for node in drivers if node is not None}) == 1


def _list_hosts(node: SourceNode) -> SourceNode:
    """Return `extra_hosts` as a list of `NAME=ADDRESS`."""
    if node.mapping is None:
        return node
    found = []
    for name, value in node.mapping.items():
        for address in value.sequence if value.sequence is not None else (value,):
            text = f"{name}={address.text}"
            found.append(SourceNode(text, address.location, text))
    return replace(node, value=found)


def _wrap_in_list(node: SourceNode) -> SourceNode:
    return replace(node, value=[node], text="") if isinstance(node.value, str) else node


def _deduplicate(
    items: Sequence[SourceNode], key: Callable[[SourceNode], object]
) -> list[SourceNode]:
    """Keep the last item of each key, in the order in which the keys first appear."""
    found: dict[object, SourceNode] = {}
    for item in items:
        found[key(item)] = item
    return list(found.values())


def _content_key(item: SourceNode) -> object:
    return repr(item.to_plain())


def _mount_target(item: SourceNode) -> object:
    """Return the mount target of a volume, tmpfs, secret or config."""
    if item.mapping is not None:
        named = item.mapping.get("target") or item.mapping.get("source")
        return clean_target(named.text) if named else repr(item.to_plain())
    parts = item.text.split(":")
    is_mount = len(parts) > 1 and parts[1].startswith("/")
    return clean_target(parts[1] if is_mount else parts[0])


def _device_target(item: SourceNode) -> object:
    """Return the path of a device in the container."""
    if item.mapping is not None:
        named = item.mapping.get("target") or item.mapping.get("source")
        return named.text if named else repr(item.to_plain())
    parts = item.text.split(":")
    return parts[1] if len(parts) > 1 else parts[0]


def clean_target(target: str) -> str:
    """Return a mount target in its shortest form: `/v` for `/v/` and `/./v`."""
    return posixpath.normpath(f"/{target.lstrip('/')}") if target.startswith("/") else target


def _file_path(item: SourceNode) -> object:
    """Return the path of an entry of `env_file`."""
    if item.mapping is not None and "path" in item.mapping:
        return item.mapping["path"].text
    return item.text or repr(item.to_plain())
