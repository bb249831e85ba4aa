"""Read the keys that refer to files of the host: `build` and entries of `env_file`.

Called by `meshd.spec.reader.service` and `meshd.spec.reader.environment`.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from meshd.spec.model import Build, Mount
from meshd.spec.model.container import is_remote_context
from meshd.spec.reader import storage, unsupported_keys, values
from meshd.spec.source import env_file
from meshd.spec.source.cursor import Cursor, KeyTable

API_SOCKET: Final = "/var/run/docker.sock"
"""The engine's socket, where programs in containers look for it."""


def read_build(at: Cursor, base: Path, environment: Mapping[str, str]) -> Build:
    """Read `build` in either form; its context must be a directory or a URL."""
    if at.node.mapping is None:
        return Build(context=_read_directory(at, base))
    found: dict[str, object] = {"context": str(base)}
    at.read_keys(build_keys(found, base, environment))
    if "dockerfile" in found and "dockerfile_inline" in found:
        at.fail("dockerfile and dockerfile_inline are both set; expected one of them")
    build = Build.model_validate(found)
    if build.is_remote and build.dockerfile_inline:
        at.fail("the engine fetches the context with its Dockerfile; remove dockerfile_inline")
    return build


def build_keys(found: dict[str, object], base: Path, environment: Mapping[str, str]) -> KeyTable:
    """Return the keys of `build`; their readers store values in `found`."""
    return KeyTable(
        read={
            "context": lambda c: found.update(context=_read_directory(c, base)),
            "dockerfile": lambda c: found.update(dockerfile=c.read_string()),
            "dockerfile_inline": lambda c: found.update(dockerfile_inline=c.read_string()),
            "target": lambda c: found.update(target=c.read_string()),
            "args": lambda c: found.update(args=_read_arguments(c, environment)),
        },
        refused=unsupported_keys.BUILD_REFUSED,
        warned=unsupported_keys.BUILD_WARNED,
    )


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
