"""Merge the trees of several Compose files, by the rules of the Compose Specification. Pure.

Called by `meshd.spec.source.loader` and `meshd.spec.source.extends`.

- Mappings merge key by key, lists are appended, and a later scalar replaces an earlier one.
- Commands are replaced as a whole.
- `environment`, `labels` and similar keys merge by name, in either form.
- `volumes`, `secrets` and `configs` merge by mount target.
- `!reset` removes a key, and `!override` replaces it as a whole.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from meshd.spec.source.yaml_tree import SourceNode

_Path = tuple[str, ...]
_REPLACED: Final[set[_Path]] = {
    ("services", "*", "command"),
    ("services", "*", "entrypoint"),
    ("services", "*", "healthcheck", "test"),
}
_BY_NAME: Final[set[_Path]] = {
    ("services", "*", "environment"),
    ("services", "*", "labels"),
    ("services", "*", "annotations"),
    ("services", "*", "sysctls"),
    ("services", "*", "extra_hosts"),
    ("services", "*", "build", "args"),
    ("services", "*", "build", "labels"),
    ("services", "*", "deploy", "labels"),
}
_NAMED: Final[set[_Path]] = {
    ("services", "*", "depends_on"),
    ("services", "*", "networks"),
}
_BUILD: Final[_Path] = ("services", "*", "build")
_BY_TARGET: Final[set[_Path]] = {
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


def _merge(base: SourceNode, over: SourceNode, path: _Path) -> SourceNode:
    if over.tag == "!override" or path in _REPLACED:
        return _drop_tags(over)
    if path == _BUILD or path in _BY_NAME or path in _NAMED:
        base, over = _expand_short_form(base, path), _expand_short_form(over, path)
    if base.mapping is not None and over.mapping is not None:
        return _merge_mappings(base, base.mapping, over.mapping, path)
    if base.sequence is not None and over.sequence is not None:
        over_items = [_drop_tags(item) for item in over.sequence]
        if path in _BY_TARGET:
            return replace(base, value=_deduplicate([*base.sequence, *over_items], _mount_target))
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
            # The rules apply to every service, whatever its name.
            merged[key] = _merge(merged[key], value, (*path, _generalize_key(key, path)))
        else:
            merged[key] = _drop_tags(value)
    return replace(node, value=merged)


def _generalize_key(key: str, path: _Path) -> str:
    return "*" if path == ("services",) else key


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
            found[item.text] = SourceNode(None, item.location)
            continue
        name, equals, value = item.text.partition("=")
        if not equals and path[-1] == "extra_hosts":
            name, equals, value = item.text.partition(":")
        found[name] = (
            replace(item, value=value, text=value) if equals else SourceNode(None, item.location)
        )
    return replace(node, value=found)


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
    """Return the mount target of a volume, secret or config."""
    if item.mapping is not None:
        named = item.mapping.get("target") or item.mapping.get("source")
        return named.text if named else repr(item.to_plain())
    parts = item.text.split(":")
    return parts[1] if len(parts) > 1 else parts[0]
