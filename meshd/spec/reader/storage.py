"""Read `volumes`, `tmpfs`, `secrets` and `configs` of a service into mounts.

Called by `meshd.spec.reader.service`, and by `meshd.spec.compose` for the declarations at the top
level. Secrets and configs are files of the host, mounted read-only. Their contents are never put
into environment variables or labels.
"""

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, cast

from meshd.spec import units
from meshd.spec.errors import Problem
from meshd.spec.model import Mount
from meshd.spec.reader import unsupported_keys, values
from meshd.spec.source.cursor import Cursor, InvalidValue, KeyTable
from meshd.spec.source.merge import clean_target

_WINDOWS_PATH: Final = re.compile(r"^[A-Za-z]:[\\/]")
_IGNORED_MODES: Final = {"rw", "cached", "delegated", "consistent"}
_SELINUX: Final = {"z", "Z"}
PROPAGATIONS: Final = frozenset({"private", "rprivate", "shared", "rshared", "slave", "rslave"})
SECRET_MODE: Final = 0o444
"""The mode of a secret or config that the file does not give one, as in Compose."""
_RECURSIVE: Final = ("enabled", "disabled", "writable", "readonly")
_VOLUME_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
MAX_CONTENT: Final = 512 * 1024
"""Bytes of a secret or config, about the limit that Swarm has for them."""
FileKind = Literal["secrets", "configs"]


@dataclass(frozen=True, slots=True)
class Declarations:
    """The declarations at the top level of the file: volumes, secrets and configs by name. A secret
    or config is a file of the host, or a text."""

    volumes: Mapping[str, "DeclaredVolume"]
    files: Mapping[FileKind, Mapping[str, "DeclaredFile"]]


@dataclass(frozen=True, slots=True)
class DeclaredVolume:
    """A volume; `engine_name` is empty if it has the default name."""

    engine_name: str = ""
    external: bool = False
    driver: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class UnusableFile:
    """A secret or config whose declaration has a problem. It is an error where a service uses it.

    - `problem`: the problem, at the declaration
    """

    problem: Problem


DeclaredFile = Path | str | UnusableFile
"""The path of a file, its content, or neither."""


def find_declared_file(
    at: Cursor, name: str, kind: FileKind, declared: "Declarations"
) -> Path | str:
    """Return the secret or config of that name; fail if it is not declared or not usable."""
    found = declared.files[kind].get(name)
    if found is None:
        at.fail(f"{name!r} is not declared; declare it under {kind} at the top level")
    if isinstance(found, UnusableFile):
        raise InvalidValue(found.problem)
    return found


def read_declared_volume(at: Cursor, base: Path) -> DeclaredVolume:
    """Read one entry of `volumes` at the top level."""
    name = at.field.partition(".")[2]
    if not _VOLUME_NAME.fullmatch(name):
        at.fail(f"{name!r} is not a valid volume name; expected letters, digits, -, _ and .")
    found: dict[str, object] = {"engine_name": "", "external": False}
    if at.node.value is not None:
        at.read_keys(declared_volume_keys(found))
    engine_name = str(found["engine_name"])
    if engine_name and not _VOLUME_NAME.fullmatch(engine_name):
        at.fail(f"{engine_name!r} is not a valid volume name; expected letters, digits, -, _ and .")
    if found["external"]:
        return DeclaredVolume(engine_name or name, external=True)
    options = dict(_mapping(found.get("options")))
    device = options.get("device", "")
    if not found.get("driver") and options.get("o") == "bind" and device:
        options["device"] = resolve_path(base, device)  # a bind mount, relative to the file
    return DeclaredVolume(
        engine_name,
        driver=str(found.get("driver", "")),
        options=options,
        labels=_mapping(found.get("labels")),
    )


def _mapping(given: object) -> Mapping[str, str]:
    return given if isinstance(given, dict) else {}


def declared_volume_keys(found: dict[str, object]) -> KeyTable:
    """Return the keys of a volume; their readers store values in `found`."""

    def put(name: str, read: Callable[[Cursor], object]) -> Callable[[Cursor], None]:
        return lambda c: found.update({name: read(c)})

    return KeyTable(
        read={
            "name": put("engine_name", Cursor.read_string),
            "external": lambda c: found.update(values.read_external(c)),
            "driver": put("driver", _read_driver),
            "driver_opts": put("options", values.read_strings_by_name),
            "labels": put("labels", values.read_strings_by_name),
        }
    )


def _read_driver(at: Cursor) -> str:
    """Read a driver; `default` and `local` are the engine's own."""
    word = at.read_string()
    return "" if word in {"default", "local"} else word


def resolve_path(base: Path, path: str) -> str:
    """Return an absolute path; relative paths start at `base`, and `~` is the user's home."""
    return os.path.normpath(base / Path(path).expanduser())


def read_volume(at: Cursor, base: Path, declared: Declarations) -> Mount:
    """Read one entry of `volumes` in either form."""
    mount = _read_long_form(at, base) if at.node.mapping is not None else _read_short_form(at, base)
    mount = mount.model_copy(update={"target": clean_target(mount.target)})
    if not mount.target.startswith("/"):
        at.fail(f"the mount target {mount.target!r} is not an absolute path; expected e.g. /data")
    if mount.type == "bind" and _is_file(mount.source):
        return mount.model_copy(update={"is_file": True})
    if mount.type != "volume" or not mount.source:
        return mount
    volume = declared.volumes.get(mount.source)
    if volume is None:
        at.fail(
            f"the volume {mount.source} is not declared; declare it under volumes at the top "
            f"level, or use ./{mount.source} for a directory"
        )
    return mount.model_copy(
        update={
            "volume_name": volume.engine_name,
            "external": volume.external,
            "volume_driver": volume.driver,
            "volume_options": dict(volume.options),
            "volume_labels": dict(volume.labels),
        }
    )


def _is_file(path: str) -> bool:
    """Whether a mounted path is a file, socket or device. A path that does not exist on this host
    counts as a directory, unless it ends in `.sock`: the engine may be on another host."""
    return not os.path.isdir(path) and (os.path.exists(path) or path.endswith(".sock"))


def read_tmpfs(at: Cursor) -> Mount:
    """Read one entry of `tmpfs`."""
    target, _, options = at.read_string().partition(":")
    target = clean_target(target)
    if not target.startswith("/"):
        at.fail(f"the mount target {target!r} is not an absolute path; expected e.g. /run")
    name, _, value = options.partition("=")
    if name not in {"", "size"} or "," in value:
        return Mount(type="tmpfs", target=target, options=options)
    try:
        return Mount(type="tmpfs", target=target, size=units.parse_size(value) if value else 0)
    except ValueError as error:
        at.fail(str(error))


def read_file_mount(at: Cursor, kind: FileKind, declared: Declarations) -> Mount:
    """Read one entry of `secrets` or `configs` of a service; return the mount of its file."""
    found: dict[str, str] = {}
    owner: dict[str, int] = {}
    given: list[Cursor] = []
    if at.node.mapping is not None:
        at.read_keys(
            KeyTable(
                read={
                    "source": lambda c: found.update(source=c.read_string()),
                    "target": lambda c: found.update(target=c.read_string()),
                    "uid": lambda c: _read_owner(c, owner, given),
                    "gid": lambda c: _read_owner(c, owner, given),
                    "mode": lambda c: _read_file_mode(c, owner, given),
                }
            )
        )
    else:
        found["source"] = at.read_string()
    name = found.get("source", "")
    path = find_declared_file(at, name, kind, declared)
    home = "/run/secrets" if kind == "secrets" else ""
    target = found.get("target", name)
    where = target if target.startswith("/") else f"{home}/{target}"
    if isinstance(path, str):
        owner.setdefault("mode", SECRET_MODE)
        return Mount.model_validate(
            {"type": "file", "target": where, "read_only": True, "content": path, **owner}
        )
    for cursor in given:
        cursor.add_warning(
            "this key has no effect on a file of the host; it keeps its owner and mode"
        )
    return Mount(
        type="bind",
        source=str(path),
        target=where,
        read_only=True,
        version=_compute_version(at, kind, path),
    )


def _read_owner(at: Cursor, owner: dict[str, int], given: list[Cursor]) -> None:
    """Read `uid` or `gid`."""
    text = at.read_string()
    if not text.isdecimal():
        at.fail(f"{text!r} is not a number of a user or group; expected e.g. '1000'")
    owner[at.field.rpartition(".")[2]] = int(text)
    given.append(at)


def _read_file_mode(at: Cursor, owner: dict[str, int], given: list[Cursor]) -> None:
    owner["mode"] = read_octal(at)
    given.append(at)


def read_octal(at: Cursor) -> int:
    """Read a file mode; text and a number with a leading 0 are octal, as in Compose."""
    text = at.read_string().removeprefix("0o")
    try:
        is_octal = isinstance(at.node.value, str) or at.node.text.startswith("0")
        mode = int(text, 8) if is_octal else int(text)
    except ValueError:
        at.fail(f"{text!r} is not a file mode; expected e.g. 0440")
    if not 0 <= mode <= 0o7777:
        at.fail(f"{text!r} is not a file mode; expected 0 to 07777")
    return mode


def read_declared_file(at: Cursor, base: Path, environment: Mapping[str, str]) -> DeclaredFile:
    """Read one entry of `secrets` or `configs` at the top level; return the path of its file, or
    its content if that is in the Compose file or in a variable. An external or missing one is an
    error only where a service uses it.

    Errors are recorded, and the entry still counts as declared.
    """
    found: dict[str, Cursor] = {}
    external: dict[str, object] = {}
    at.read_keys(
        KeyTable(
            read={
                "file": lambda c: found.update(file=c),
                "external": lambda c: external.update(values.read_external(c)),
                "content": lambda c: found.update(content=c),
                "environment": lambda c: found.update(environment=c),
            },
            warned=unsupported_keys.FILE_WARNED,
        )
    )
    if external.get("external"):
        kind = at.field.partition(".")[0]
        return UnusableFile(
            at.make_problem(
                f"it is external, and only a Swarm cluster has external {kind}; expected file, "
                "content or environment"
            )
        )
    if not found:
        at.fail("file is missing; expected file, content or environment")
    if len(found) > 1:
        at.add_problem(f"{' and '.join(found)} are both set; expected one of them")
    try:
        return _read_source(at, found, base, environment)
    except InvalidValue as error:
        return UnusableFile(error.problem)


def _read_source(
    at: Cursor, found: Mapping[str, Cursor], base: Path, environment: Mapping[str, str]
) -> Path | str:
    """Return the path or the content of a declared secret or config."""
    if "file" in found:
        path = Path(resolve_path(base, found["file"].read_string()))
        if not path.is_file():
            found["file"].fail(f"{path} is not a file; expected an existing file")
        return path
    if "content" in found:
        content = found["content"].read_string()
    else:
        content = _read_variable(found["environment"], environment)
    if len(content.encode()) > MAX_CONTENT:
        at.fail(f"the content has more than {MAX_CONTENT} bytes; expected a file")
    return content


def _read_variable(at: Cursor, environment: Mapping[str, str]) -> str:
    """Return the value of the variable that `environment` names."""
    name = at.read_string()
    if name not in environment:
        at.fail(f"the variable {name} is not set; expected its value in the environment")
    return environment[name]


def _compute_version(at: Cursor, kind: FileKind, path: Path) -> str:
    """Return a text that changes with the content of a file.

    For a config it is a hash. For a secret it is the modification time, because a hash would allow
    an attacker to test guesses.
    """
    if not path.is_file():
        return ""  # the error was recorded at the declaration
    try:
        if kind == "secrets":
            return str(path.stat().st_mtime_ns)
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError as error:
        at.fail(f"{path} cannot be read: {error.strerror}; expected a readable file")


def _read_short_form(at: Cursor, base: Path) -> Mount:
    text = at.read_string()
    if _WINDOWS_PATH.match(text):
        at.fail(f"{text!r} is a Windows path; expected SOURCE:TARGET with Linux paths")
    parts = text.split(":")
    if len(parts) > 3 or not all(parts):
        at.fail(f"{text!r} is not a valid mount; expected SOURCE:TARGET or SOURCE:TARGET:ro")
    if len(parts) == 1:
        return Mount(type="volume", target=parts[0])
    source, target = parts[0], parts[1]
    modes = set(parts[2].split(",")) if len(parts) == 3 else set()
    if unknown := modes - _IGNORED_MODES - PROPAGATIONS - _SELINUX - {"ro", "nocopy"}:
        at.fail(f"the mode {', '.join(sorted(unknown))} is not supported; expected ro or rw")
    is_bind = source.startswith((".", "/", "~"))
    propagation = "".join(sorted(modes & PROPAGATIONS)[:1])
    if is_bind:
        return Mount(
            type="bind",
            source=resolve_path(base, source),
            target=target,
            read_only="ro" in modes,
            propagation=propagation,
            selinux=cast("Literal['', 'z', 'Z']", "".join(sorted(modes & _SELINUX)[:1])),
        )
    return Mount(
        type="volume",
        source=source,
        target=target,
        read_only="ro" in modes,
        nocopy="nocopy" in modes,
    )


def _read_long_form(at: Cursor, base: Path) -> Mount:
    # After an invalid type, continue with `volume` so that the other keys are checked as well.
    found: dict[str, object] = {"type": "volume"} if "type" in (at.node.mapping or {}) else {}
    at.read_keys(mount_keys(found))
    for key in ("type", "target"):
        if not found.get(key):
            at.fail(f"{key} is missing; expected type, source and target")
    if found["type"] in {"bind", "image"} and not found.get("source"):
        at.fail("source is missing; expected the path of a directory or file, or an image")
    if found["type"] == "bind":
        found["source"] = resolve_path(base, str(found["source"]))
    if found["type"] == "image":
        found["read_only"] = True
    return Mount.model_validate(found)


def mount_keys(found: dict[str, object]) -> KeyTable:
    """Return the keys of a mount; their readers store values in `found`."""

    def put(name: str, read: Callable[[Cursor], object]) -> Callable[[Cursor], None]:
        return lambda c: found.update({name: read(c)})

    bind = KeyTable(
        read={
            "create_host_path": put("must_exist", lambda c: not c.read_boolean()),
            "propagation": put("propagation", lambda c: c.read_one_of(*sorted(PROPAGATIONS))),
            "selinux": put("selinux", lambda c: c.read_one_of(*sorted(_SELINUX))),
            "recursive": put("recursive", lambda c: c.read_one_of(*_RECURSIVE)),
        }
    )
    volume = KeyTable(
        read={
            "nocopy": put("nocopy", Cursor.read_boolean),
            "subpath": put("subpath", _read_subpath),
            "labels": put("volume_labels", values.read_strings_by_name),
        }
    )
    tmpfs = KeyTable(read={"size": put("size", Cursor.read_size), "mode": put("mode", read_octal)})
    image = KeyTable(read={"subpath": put("subpath", _read_subpath)})

    def nested(keys: KeyTable) -> Callable[[Cursor], None]:
        return lambda c: None if c.node.value is None else c.read_keys(keys)

    return KeyTable(
        read={
            "type": put("type", _read_mount_type),
            "source": put("source", Cursor.read_string),
            "target": put("target", Cursor.read_string),
            "read_only": put("read_only", Cursor.read_boolean),
            "bind": nested(bind),
            "volume": nested(volume),
            "tmpfs": nested(tmpfs),
            "image": nested(image),
        },
        warned=unsupported_keys.MOUNT_WARNED,
    )


def _read_mount_type(at: Cursor) -> str:
    word = at.read_string()
    if word == "cluster":
        at.fail("'cluster' volumes exist in a Swarm cluster only; use a volume with a driver")
    if word == "npipe":
        at.fail("'npipe' exists for Windows containers only; use bind for a socket")
    return at.read_one_of("bind", "volume", "tmpfs", "image")


def _read_subpath(at: Cursor) -> str:
    text = at.read_string()
    if text.startswith("/") or ".." in text.split("/"):
        at.fail(f"{text!r} is not a path within the volume; expected e.g. data/app")
    return text
