"""Read the keys that refer to files of the host: `build` and entries of `env_file`.

Called by `meshd.spec.reader.service` and `meshd.spec.reader.environment`.
"""

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from meshd.spec.model import Build, Mount
from meshd.spec.model.container import is_remote_context
from meshd.spec.reader import engine_options, storage, unsupported_keys, values
from meshd.spec.reader.context import ReadContext
from meshd.spec.source import env_file
from meshd.spec.source.cursor import Cursor, KeyTable

API_SOCKET: Final = "/var/run/docker.sock"
"""The engine's socket, where programs in containers look for it."""


def read_build(at: Cursor, context: ReadContext) -> Build:
    """Read `build` in either form; its context must be a directory or a URL."""
    if at.node.mapping is None:
        return Build(context=_read_directory(at, context.base))
    found: dict[str, object] = {"context": str(context.base)}
    at.read_keys(build_keys(found, context))
    if "dockerfile" in found and "dockerfile_inline" in found:
        at.fail("dockerfile and dockerfile_inline are both set; expected one of them")
    build = Build.model_validate(found)
    if build.is_remote and build.dockerfile_inline:
        at.fail("the engine fetches the context with its Dockerfile; remove dockerfile_inline")
    return build


def build_keys(found: dict[str, object], context: ReadContext) -> KeyTable:
    """Return the keys of `build`; their readers store values in `found`."""

    def put(name: str, read: Callable[[Cursor], object]) -> Callable[[Cursor], None]:
        return lambda c: None if c.node.value is None else found.update({name: read(c)})

    return KeyTable(
        read={
            "context": put("context", lambda c: _read_directory(c, context.base)),
            "dockerfile": put("dockerfile", Cursor.read_string),
            "dockerfile_inline": put("dockerfile_inline", Cursor.read_string),
            "target": put("target", Cursor.read_string),
            "args": put("args", lambda c: _read_arguments(c, context.environment)),
            "additional_contexts": put(
                "additional_contexts", lambda c: _read_contexts(c, context.base)
            ),
            "cache_from": put("cache_from", Cursor.read_strings),
            "entitlements": put("entitlements", Cursor.read_strings),
            "extra_hosts": put("extra_hosts", values.read_hosts),
            "isolation": engine_options.read_isolation,
            "labels": put("labels", values.read_strings_by_name),
            "network": put("network", Cursor.read_string),
            "no_cache": put("no_cache", Cursor.read_boolean),
            "platforms": put("platforms", Cursor.read_strings),
            "privileged": put("privileged", Cursor.read_boolean),
            "pull": put("pull", Cursor.read_boolean),
            "secrets": lambda c: found.update(_read_secrets(c, context)),
            "cache_to": put("cache_to", Cursor.read_strings),
            "no_cache_filter": put("no_cache_filter", Cursor.read_strings),
            "shm_size": put("shm_size", Cursor.read_size),
            "ssh": put("ssh", lambda c: _read_ssh(c, context.base)),
            "tags": put("tags", Cursor.read_strings),
            "ulimits": put("ulimits", values.read_ulimits),
        },
        warned=unsupported_keys.BUILD_WARNED,
    )


def _read_contexts(at: Cursor, base: Path) -> dict[str, str]:
    """Read `additional_contexts`: directories are made absolute."""
    found = values.read_strings_by_name(at)
    return {
        name: text if is_remote_context(text) or ":" in text else storage.resolve_path(base, text)
        for name, text in found.items()
    }


def _read_ssh(at: Cursor, base: Path) -> dict[str, str]:
    """Read `ssh`: keys or sockets by id; an empty one is that of the user's agent."""
    if at.node.mapping is None and at.node.sequence is None:
        return {at.read_string(): ""}
    return {
        name: "" if value.node.value is None else storage.resolve_path(base, value.read_string())
        for name, value in values.read_pairs(at)
    }


def _read_secrets(at: Cursor, context: ReadContext) -> dict[str, dict[str, str]]:
    """Read `secrets` of a build; each must be declared at the top level. Return the paths of files
    and the contents, as fields of `Build`."""
    paths: dict[str, str] = {}
    contents: dict[str, str] = {}
    for entry in at.elements():
        given: dict[str, str] = {}
        if entry.node.mapping is None:
            given["source"] = entry.read_string()
        else:
            names = ("source", "target", "uid", "gid", "mode")
            entry.read_keys(KeyTable(read={name: partial(_store, given, name) for name in names}))
        name = given.get("source", "")
        secret = storage.find_declared_file(entry, name, "secrets", context.declared)
        id = given.get("target", name)
        if isinstance(secret, Path):
            paths[id] = str(secret)
        else:
            contents[id] = secret
    return {"secrets": paths, "secret_values": contents}


def _store(found: dict[str, str], name: str, at: Cursor) -> None:
    found[name] = at.read_string()


def read_env_file(
    at: Cursor, base: Path, environment: Mapping[str, str], earlier: Mapping[str, str]
) -> dict[str, str]:
    """Read one entry of `env_file`; return the variables of the file, which may use those of
    `environment` and of the `earlier` files."""
    found: dict[str, object] = {"required": True}
    if at.node.mapping is not None:
        at.read_keys(
            KeyTable(
                read={
                    "path": lambda c: found.update(path=c.read_string()),
                    "required": lambda c: found.update(required=c.read_boolean()),
                    "format": lambda c: found.update(format=c.read_one_of("raw")),
                }
            )
        )
    else:
        found["path"] = at.read_string()
    if "path" not in found:
        at.fail("path is missing; expected the path of a file")
    path = storage.resolve_path(base, str(found["path"]))
    try:
        text = env_file.decode_env_file(Path(path).read_bytes())
    except FileNotFoundError:
        if found["required"]:
            at.fail(f"{path} does not exist; expected a file of NAME=value lines")
        return {}
    except (OSError, UnicodeDecodeError) as error:
        at.fail(f"{path} cannot be read: {error}")
    if "format" in found:
        return env_file.parse_raw_env_file(text, path, environment, at.diagnostics)
    return env_file.parse_env_file(text, path, environment, at.diagnostics, earlier)


def share_api_socket(environment: Mapping[str, str]) -> tuple[list[Mount], dict[str, str]]:
    """Return the mounts and variables that let a replica use the engine as the user does, for
    `use_api_socket`. The file of the credentials is mounted, so that they are not stored."""
    host = environment.get("DOCKER_HOST", "")
    socket = host.removeprefix("unix://") if host.startswith("unix://") else API_SOCKET
    mounts = [Mount(type="bind", source=socket, target=API_SOCKET, is_file=True)]
    folder = Path(environment.get("DOCKER_CONFIG") or Path("~/.docker").expanduser())
    file = folder / "config.json"
    if not file.is_file():
        return mounts, {}
    target = "/run/secrets/docker"
    mounts.append(
        Mount(
            type="bind",
            source=str(file),
            target=f"{target}/config.json",
            read_only=True,
            is_file=True,
        )
    )
    return mounts, {"DOCKER_CONFIG": target}


def _read_directory(at: Cursor, base: Path) -> str:
    text = at.read_string()
    if is_remote_context(text):
        return text
    path = storage.resolve_path(base, text)
    if not os.path.isdir(path):
        at.fail(f"{path} is not a directory; expected an existing directory")
    return path


def _read_arguments(at: Cursor, environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value.read_string() if value.node.value is not None else environment.get(name, "")
        for name, value in values.read_pairs(at)
    }
