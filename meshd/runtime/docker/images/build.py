"""Packs a build context for the engine, and reads the base images of its Dockerfile.

Used by `image`, which sends the context. It is a tar of the directory, without the files that
.dockerignore excludes.
"""

import gzip
import hashlib
import os
import re
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO

from meshd.spec.model import Build

INLINE_DOCKERFILE = ".meshd-inline.Dockerfile"
"""Name of the Dockerfile that the Compose file contains, in the packed context."""
_DIGESTED = {"context", "dockerfile", "dockerfile_inline", "target", "args", "digest"} | {
    "secrets",
    "secret_values",
    "ssh",
    "cache_to",
}
"""Fields of a build that its digest contains in another form, or not at all: an image does not
depend on where secrets are, and BuildKit does not build again because they change."""
SPOOL_BYTES = 8 * 1024 * 1024
"""Bytes of a packed context that stay in memory; a larger one goes to a temporary file."""
_FROM = re.compile(r"^\s*FROM\s+(?:--\S+\s+)*(\S+)(?:\s+AS\s+(\S+))?", re.IGNORECASE)
_ARG = re.compile(r"^\s*ARG\s+(\w+)(?:=(\S*))?", re.IGNORECASE)
_VARIABLE = re.compile(r"\$(?:\{(\w+)(?::-([^}]*))?\}|(\w+))")


@dataclass(frozen=True, slots=True)
class BuildContext:
    """A packed context; one that the engine fetches is empty. `digest` changes with a file's
    content, name or mode, or the build arguments, but not with times, so that a fresh checkout does
    not rebuild."""

    file: IO[bytes]
    digest: str
    dockerfile: str


def pack(build: Build) -> BuildContext:
    """Pack the context from disk; blocks. The caller closes the file. Raises OSError."""
    spool: IO[bytes] = tempfile.SpooledTemporaryFile(SPOOL_BYTES)  # noqa: SIM115 (returned)
    try:
        with gzip.GzipFile(fileobj=spool, mode="wb", compresslevel=1) as packed:
            digest = _write(build, packed)
        spool.seek(0)
    except OSError:
        spool.close()
        raise
    return BuildContext(spool, digest, _dockerfile(build))


def digest_of(build: Build) -> str:
    """Return only the digest that `pack` gives; blocks. Raises OSError."""
    with open(os.devnull, "wb") as nowhere:
        return _write(build, nowhere)


def _dockerfile(build: Build) -> str:
    if build.dockerfile_inline:
        return INLINE_DOCKERFILE
    if build.is_remote:
        return build.dockerfile
    root = Path(build.context)
    return os.path.relpath(root / build.dockerfile, root)


def _write(build: Build, to: IO[bytes] | gzip.GzipFile) -> str:
    """Write the context as a tar; return its digest."""
    root, dockerfile = Path(build.context), _dockerfile(build)
    digest = hashlib.sha256(repr((dockerfile, build.target, sorted(build.args.items()))).encode())
    others = build.model_dump(exclude=_DIGESTED, exclude_defaults=True)
    if others:
        digest.update(repr(sorted(others.items())).encode())
    if build.is_remote:
        digest.update(build.context.encode())
        return digest.hexdigest()
    if not build.dockerfile_inline:
        (root / dockerfile).stat()
    with tarfile.open(fileobj=to, mode="w") as tar:
        for name in _files(root, keep={dockerfile, ".dockerignore"}):
            _add(tar, root, name, digest)
        if build.dockerfile_inline:
            content = build.dockerfile_inline.encode()
            digest.update(content)
            entry = tarfile.TarInfo(dockerfile)
            entry.size = len(content)
            tar.addfile(entry, BytesIO(content))
    for name, at in sorted(build.additional_contexts.items()):
        if Path(at).is_dir():
            digest.update(name.encode())
            _digest_files(Path(at), digest)
    return digest.hexdigest()


def _digest_files(root: Path, digest: "hashlib._Hash") -> None:
    """Add the files of an additional context to a digest."""
    with tarfile.open(fileobj=BytesIO(), mode="w") as tar:
        for name in _files(root, keep=set()):
            entry = tar.gettarinfo(root / name, name)
            digest.update(repr((name, entry.mode, entry.type, entry.linkname, entry.size)).encode())
            if entry.isfile():
                with (root / name).open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())


def _add(tar: tarfile.TarFile, root: Path, name: str, digest: "hashlib._Hash") -> None:
    path = root / name
    entry = tar.gettarinfo(path, name)
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    digest.update(repr((name, entry.mode, entry.type, entry.linkname, entry.size)).encode())
    if not entry.isfile():
        tar.addfile(entry)
        return
    with path.open("rb") as file:
        digest.update(hashlib.file_digest(file, "sha256").digest())
        file.seek(0)
        tar.addfile(entry, file)


def _files(root: Path, keep: set[str]) -> Iterator[str]:
    """Yield every file, link and directory below `root` that is not ignored, in order."""
    ignored = Ignore.read(root / ".dockerignore")
    for directory, subdirectories, files in os.walk(root):
        subdirectories.sort()
        for entry in sorted([*subdirectories, *files]):
            name = os.path.relpath(os.path.join(directory, entry), root)
            if name in keep or not ignored.matches(name):
                yield name


class Ignore:
    """The patterns of a .dockerignore. The last match decides; `!` keeps."""

    def __init__(self, patterns: list[str]) -> None:
        self._rules = [
            (not pattern.startswith("!"), re.compile(_regex(pattern.lstrip("!").strip("/"))))
            for pattern in patterns
        ]

    @classmethod
    def read(cls, path: Path) -> "Ignore":
        """Read the patterns of a file; none if the file does not exist."""
        if not path.is_file():
            return cls([])
        stripped = (line.strip() for line in path.read_text().splitlines())
        return cls([line for line in stripped if line and not line.startswith("#")])

    def matches(self, name: str) -> bool:
        """Return whether the path, relative to the context, is excluded."""
        ignored = False
        for ignore, pattern in self._rules:
            if pattern.fullmatch(name):
                ignored = ignore
        return ignored


def _regex(pattern: str) -> str:
    """Translate a pattern: `*` and `?` stay within a path segment, `**` crosses segments, a
    directory includes its content."""
    translated = ""
    for part in re.split(r"(\*\*/?|\*|\?)", pattern.removeprefix("./")):
        match part:
            case "**/" | "**":
                translated += "(?:.*/)?" if part == "**/" else ".*"
            case "*":
                translated += "[^/]*"
            case "?":
                translated += "[^/]"
            case _:
                translated += re.escape(part)
    return f"{translated}(?:/.*)?"


def read_dockerfile(build: Build) -> str:
    """Return the content of the Dockerfile of a local context. Raises OSError."""
    return build.dockerfile_inline or (Path(build.context) / build.dockerfile).read_text()


def bases(build: Build) -> tuple[str, ...]:
    """Return the images that a Dockerfile starts from, without its own stages; none if the engine
    fetches it. Raises OSError."""
    arguments: dict[str, str] = {}
    stages: set[str] = {"scratch"}
    found: dict[str, None] = {}
    if build.is_remote:
        return ()
    text = read_dockerfile(build)
    for line in text.splitlines():
        if argument := _ARG.match(line):
            name, default = argument.groups()
            arguments.setdefault(name, build.args.get(name, (default or "").strip("\"'")))
        elif start := _FROM.match(line):
            image = _VARIABLE.sub(lambda use: _value(use, arguments), start[1])
            if image.lower() not in stages:
                found[image] = None
            stages.add((start[2] or "").lower())
    return tuple(found)


def _value(use: re.Match[str], arguments: dict[str, str]) -> str:
    return arguments.get(use[1] or use[3] or "") or use[2] or ""
