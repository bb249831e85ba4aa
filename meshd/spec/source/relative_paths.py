"""Relative paths of a file that lies elsewhere, made absolute before it is merged. Pure."""

import os.path
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from meshd.spec.source.yaml_tree import SourceNode

_FILES: Final = ("secrets", "configs")
_URL: Final = ("://", "git@")


def anchored(root: SourceNode, folder: Path) -> SourceNode:
    """A whole file, with the paths in it starting at `folder`."""
    changed = {
        "services": lambda node: _each(node, lambda service: of_service(service, folder)),
        **{key: lambda node: _each(node, lambda file: _file(file, folder)) for key in _FILES},
    }
    return _with(root, changed)


def of_service(node: SourceNode, folder: Path) -> SourceNode:
    """One service, with the paths in it starting at `folder`."""
    return _with(
        node,
        {
            "build": lambda build: (
                _with(build, {"context": lambda context: _path(context, folder)})
                if build.mapping is not None
                else _path(build, folder)
            ),
            "env_file": lambda files: _many(
                files,
                lambda file: (
                    _with(file, {"path": lambda path: _path(path, folder)})
                    if file.mapping is not None
                    else _path(file, folder)
                ),
            ),
            "volumes": lambda volumes: _many(volumes, lambda volume: _volume(volume, folder)),
        },
    )


def _volume(node: SourceNode, folder: Path) -> SourceNode:
    if node.mapping is not None:
        kind = node.mapping.get("type")
        if kind is None or kind.value != "bind":
            return node
        return _with(node, {"source": lambda source: _path(source, folder)})
    source, colon, rest = node.text.partition(":")
    if not colon or not source.startswith("."):
        return node
    text = f"{os.path.normpath(folder / source)}:{rest}"
    return replace(node, value=text, text=text)


def _file(node: SourceNode, folder: Path) -> SourceNode:
    return _with(node, {"file": lambda path: _path(path, folder)})


def _path(node: SourceNode, folder: Path) -> SourceNode:
    text = node.value
    if not isinstance(text, str) or text.startswith(("/", "~")) or any(u in text for u in _URL):
        return node
    text = os.path.normpath(folder / text)
    return replace(node, value=text, text=text)


def _with(
    node: SourceNode, changes: Mapping[str, Callable[[SourceNode], SourceNode]]
) -> SourceNode:
    """A mapping with some of its values changed, where they are there."""
    if node.mapping is None:
        return node
    found = {k: changes[k](v) if k in changes else v for k, v in node.mapping.items()}
    return replace(node, value=found)


def _each(node: SourceNode, change: Callable[[SourceNode], SourceNode]) -> SourceNode:
    if node.mapping is None:
        return node
    return replace(node, value={key: change(value) for key, value in node.mapping.items()})


def _many(node: SourceNode, change: Callable[[SourceNode], SourceNode]) -> SourceNode:
    """One value, or a list of them."""
    if node.sequence is None:
        return change(node)
    return replace(node, value=[change(item) for item in node.sequence])
