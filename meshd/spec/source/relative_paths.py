"""Make the relative paths of a file in another directory absolute, before it is merged. Pure.

Called by `meshd.spec.source.loader` for included files, and by `meshd.spec.source.extends`.
"""

import os.path
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from meshd.spec.source.yaml_tree import SourceNode

_FILES: Final = ("secrets", "configs")
_TLS_FILES: Final = ("ca", "cert", "key")
_URL: Final = ("://", "git@")


def make_paths_absolute(root: SourceNode, folder: Path) -> SourceNode:
    """Return the tree of a file with its relative paths resolved against `folder`."""
    changed = {
        "services": lambda node: _change_values(
            node, lambda service: make_service_paths_absolute(service, folder)
        ),
        "volumes": lambda node: _change_values(
            node, lambda volume: _change_volume_options(volume, folder)
        ),
        **{
            key: lambda node: _change_values(node, lambda file: _change_file(file, folder))
            for key in _FILES
        },
    }
    return _change_keys(root, changed)


def make_service_paths_absolute(node: SourceNode, folder: Path) -> SourceNode:
    """Return a service with its relative paths resolved against `folder`."""
    return _change_keys(
        node,
        {
            "build": lambda build: (
                _change_keys(
                    build,
                    {
                        "context": lambda context: _change_path(context, folder),
                        "additional_contexts": lambda contexts: _change_contexts(contexts, folder),
                    },
                )
                if build.mapping is not None
                else _change_path(build, folder)
            ),
            "env_file": lambda files: _change_items(
                files,
                lambda file: (
                    _change_keys(file, {"path": lambda path: _change_path(path, folder)})
                    if file.mapping is not None
                    else _change_path(file, folder)
                ),
            ),
            "label_file": lambda files: _change_items(
                files, lambda file: _change_path(file, folder)
            ),
            "volumes": lambda volumes: _change_items(
                volumes, lambda volume: _change_volume(volume, folder)
            ),
            "x-mesh": lambda mesh: make_mesh_paths_absolute(mesh, folder),
        },
    )


def make_mesh_paths_absolute(node: SourceNode, folder: Path) -> SourceNode:
    """Return `x-mesh` of a service with its relative paths resolved against `folder`."""

    def change_tls(tls: SourceNode) -> SourceNode:
        return _change_keys(tls, dict.fromkeys(_TLS_FILES, lambda at: _change_path(at, folder)))

    return _change_keys(
        node, {"upstream": lambda upstream: _change_keys(upstream, {"tls": change_tls})}
    )


def _change_volume(node: SourceNode, folder: Path) -> SourceNode:
    if node.mapping is not None:
        kind = node.mapping.get("type")
        if kind is None or kind.value != "bind":
            return node
        return _change_keys(node, {"source": lambda source: _change_path(source, folder)})
    source, colon, rest = node.text.partition(":")
    if not colon or not source.startswith("."):
        return node
    text = f"{os.path.normpath(folder / source)}:{rest}"
    return replace(node, value=text, text=text)


def _change_volume_options(node: SourceNode, folder: Path) -> SourceNode:
    """Change the directory of a volume that is a bind mount."""
    options = (node.mapping or {}).get("driver_opts")
    kind = (options.mapping or {}).get("o") if options is not None else None
    if kind is None or kind.value != "bind":
        return node
    return _change_keys(
        node,
        {
            "driver_opts": lambda given: _change_keys(
                given, {"device": lambda path: _change_path(path, folder)}
            )
        },
    )


def _change_contexts(node: SourceNode, folder: Path) -> SourceNode:
    """Change the directories of `additional_contexts`, in either form."""
    if node.mapping is not None:
        return _change_values(node, lambda path: _change_context(path, folder))
    return _change_items(node, lambda item: _change_named_context(item, folder))


def _change_named_context(node: SourceNode, folder: Path) -> SourceNode:
    name, equals, path = node.text.partition("=")
    changed = _change_context(replace(node, value=path, text=path), folder).text
    return replace(node, value=f"{name}={changed}", text=f"{name}={changed}") if equals else node


def _change_context(node: SourceNode, folder: Path) -> SourceNode:
    return node if ":" in node.text else _change_path(node, folder)


def _change_file(node: SourceNode, folder: Path) -> SourceNode:
    return _change_keys(node, {"file": lambda path: _change_path(path, folder)})


def _change_path(node: SourceNode, folder: Path) -> SourceNode:
    text = node.value
    if not isinstance(text, str) or text.startswith(("/", "~")) or any(u in text for u in _URL):
        return node
    text = os.path.normpath(folder / text)
    return replace(node, value=text, text=text)


def _change_keys(
    node: SourceNode, changes: Mapping[str, Callable[[SourceNode], SourceNode]]
) -> SourceNode:
    """Return a mapping with `changes` applied to the keys that exist."""
    if node.mapping is None:
        return node
    found = {k: changes[k](v) if k in changes else v for k, v in node.mapping.items()}
    return replace(node, value=found)


def _change_values(node: SourceNode, change: Callable[[SourceNode], SourceNode]) -> SourceNode:
    if node.mapping is None:
        return node
    return replace(node, value={key: change(value) for key, value in node.mapping.items()})


def _change_items(node: SourceNode, change: Callable[[SourceNode], SourceNode]) -> SourceNode:
    """Apply `change` to a single value, or to each item of a list."""
    if node.sequence is None:
        return change(node)
    return replace(node, value=[change(item) for item in node.sequence])
