"""Backups of the state: one file, made while the daemon runs, checked before it is used. Used by
`meshd backup` and `meshd restore`.

A backup is a gzipped tar of `manifest.json`, `meshd.db`, and the files in `certificates`: the
accounts at certificate authorities, and their certificates with keys. SQLite's own backup copies
the database at one moment, whatever is written meanwhile. The key from which the tokens of replicas
are derived is left out: a restored state creates a new one.
"""

import contextlib
import hashlib
import io
import os
import re
import shutil
import sqlite3
import tarfile
import tempfile
from contextlib import closing
from importlib import metadata
from pathlib import Path
from typing import Final

import msgspec

from meshd.store import presence
from meshd.store.lock import StateLock, StateLocked
from meshd.store.schema import MIGRATIONS

FORMAT: Final = 1
"""Version of the file format."""
MANIFEST: Final = "manifest.json"
DATABASE: Final = "meshd.db"
SET_ASIDE: Final = (DATABASE, "meshd.db-wal", "meshd.db-shm", "snapshot.bin")
OLD: Final = ".before-restore"
_CERTIFICATE_FILE: Final = re.compile(
    rf"{presence.CERTIFICATES}/[a-z0-9][a-z0-9._-]*/[a-z0-9_][a-z0-9._-]*\.(?:pem|json)"
)
"""Path in the state of a file of the certificates."""
LARGEST: Final = 4 << 30
"""Bytes; a larger database in a backup is refused."""


class BadBackup(Exception):
    """The file is not a usable backup; the text says why."""


class BackupError(Exception):
    """There is no state to back up, or an existing state prevents a restore; the text says what
    to do."""


class Manifest(msgspec.Struct, frozen=True):
    """What a backup says about itself: `format` of the file, `schema` of the database, the
    version of meshd that wrote it, the time (Unix), the state's id, its projects, and its
    checksum; `files`: the checksums of the other files, by their path in the state."""

    format: int
    schema: int
    meshd: str
    at: float
    instance: str
    projects: tuple[str, ...]
    sha256: str
    files: dict[str, str] = {}


def back_up(state: Path, file: Path, now: float) -> Manifest:
    """Write a backup of the state directory to `file`, readable by its owner only; the file is
    complete or absent. Raises BackupError, OSError, sqlite3.DatabaseError."""
    source = state / DATABASE
    if not source.is_file():
        raise BackupError(f"there is no state in {state}; give --state")
    if not file.parent.is_dir():
        raise BackupError(
            f"directory {file.parent} does not exist; create it, or name another file"
        )
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".meshd-backup-") as folder:
        copied = Path(folder) / DATABASE
        files = _read_certificates(state)
        manifest = _copy(source, copied, files, now)
        made = Path(folder) / "backup"
        with tarfile.open(made, "w:gz") as archive:
            _add(archive, MANIFEST, msgspec.json.encode(manifest))
            _add(archive, DATABASE, copied.read_bytes())
            for name, data in files.items():
                _add(archive, name, data)
        made.chmod(0o600)
        _sync(made)
        made.replace(file)
    _sync(file.parent)
    return manifest


def read(file: Path) -> tuple[Manifest, bytes, dict[str, bytes]]:
    """Read a backup's manifest, database, and other files. Raises BadBackup, OSError."""
    try:
        with tarfile.open(file, "r:gz") as archive:
            manifest = msgspec.json.decode(_member(archive, MANIFEST), type=Manifest)
            database = _member(archive, DATABASE)
            files = {name: _member(archive, name) for name in manifest.files}
    except (tarfile.TarError, EOFError, msgspec.MsgspecError) as error:
        raise BadBackup(f"{file} is not a backup of meshd: {error}") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise BadBackup(f"{file} is not a backup of meshd: {error}") from error
    if manifest.format > FORMAT or manifest.schema > len(MIGRATIONS):
        raise BadBackup(
            f"{file} was written by meshd {manifest.meshd} (format {manifest.format}, schema "
            f"{manifest.schema}); use that version or a later one"
        )
    if hashlib.sha256(database).hexdigest() != manifest.sha256:
        raise BadBackup(f"{file} is damaged: its database does not match the manifest")
    for name, data in files.items():
        if not _CERTIFICATE_FILE.fullmatch(name):
            raise BadBackup(f"{file} is not a backup of meshd: {name!r} does not belong to a state")
        if hashlib.sha256(data).hexdigest() != manifest.files[name]:
            raise BadBackup(f"{file} is damaged: its {name} does not match the manifest")
    return manifest, database, files


def restore(file: Path, state: Path, replace: bool) -> Manifest:
    """Restore a backup into a directory where no daemon runs. An existing state prevents that,
    unless `replace`: then its files are renamed with `.before-restore`. Raises BadBackup,
    BackupError, StateLocked, OSError."""
    manifest, database, files = read(file)
    running = presence.owner_pid(state)
    if running is not None:
        raise StateLocked(
            f"a daemon runs in {state} (process {running}); stop it first, or give --state"
        )
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = StateLock(state / presence.LOCK)
    lock.acquire()
    try:
        there = state / DATABASE
        if there.exists() and not replace:
            raise BackupError(
                f"there is already a state in {state}; --replace moves it out of the way"
            )
        new = state / f"{DATABASE}.new"
        new.touch(mode=0o600)
        new.write_bytes(database)
        _check(new, file)
        _sync(new)
        new_certificates = state / f"{presence.CERTIFICATES}.new"
        _write_certificates(files, new_certificates)
        for name in SET_ASIDE:
            if (state / name).exists():
                (state / name).replace(state / (name + OLD))
        shutil.rmtree(state / (presence.CERTIFICATES + OLD), ignore_errors=True)
        if (state / presence.CERTIFICATES).exists():
            (state / presence.CERTIFICATES).replace(state / (presence.CERTIFICATES + OLD))
        new_certificates.replace(state / presence.CERTIFICATES)
        new.replace(there)
        _sync(state)
    finally:
        lock.release()
    return manifest


def _read_certificates(state: Path) -> dict[str, bytes]:
    """Return the files of the certificates by their path in the state. Each is replaced as a whole,
    so that what is read is never half of one."""
    found = {}
    for path in sorted((state / presence.CERTIFICATES).glob("*/*")):
        name = path.relative_to(state).as_posix()
        if _CERTIFICATE_FILE.fullmatch(name):
            with contextlib.suppress(FileNotFoundError):  # the answer to a challenge, removed
                found[name] = path.read_bytes()
    return found


def _write_certificates(files: dict[str, bytes], folder: Path) -> None:
    """Write the files of the certificates below `folder`, readable by their owner only."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    for name, data in files.items():
        path = folder.joinpath(*name.split("/")[1:])
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.touch(mode=0o600)
        path.write_bytes(data)
        _sync(path)
        _sync(path.parent)


def _copy(source: Path, copied: Path, files: dict[str, bytes], now: float) -> Manifest:
    with (
        closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as running,
        closing(sqlite3.connect(copied, isolation_level=None)) as database,
    ):
        running.backup(database)
        database.execute("PRAGMA journal_mode = DELETE")
        database.execute("DELETE FROM meta WHERE key = 'secret'")
        database.execute("VACUUM")  # deleted data stays in free pages until then
        (schema,) = database.execute("PRAGMA user_version").fetchone()
        instance = database.execute("SELECT value FROM meta WHERE key = 'instance'").fetchone()
        projects = database.execute("SELECT name FROM project ORDER BY name").fetchall()
    return Manifest(
        format=FORMAT,
        schema=schema,
        meshd=metadata.version("meshd"),
        at=now,
        instance=str(instance[0]) if instance else "",
        projects=tuple(str(row[0]) for row in projects),
        sha256=hashlib.sha256(copied.read_bytes()).hexdigest(),
        files={name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
    )


def _check(database: Path, file: Path) -> None:
    try:
        with closing(sqlite3.connect(database)) as opened:
            (answer,) = opened.execute("PRAGMA integrity_check").fetchone()
    except sqlite3.DatabaseError as error:
        answer = str(error)
    if answer != "ok":
        database.unlink()
        raise BadBackup(f"{file} is damaged: {answer}")


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), 0o600
    archive.addfile(entry, io.BytesIO(data))


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    """Return one regular file of the archive; nothing is unpacked to a path that it names."""
    try:
        entry = archive.getmember(name)
    except KeyError as error:
        raise tarfile.ReadError(f"it contains no {name}") from error
    data = archive.extractfile(entry) if entry.isreg() and entry.size <= LARGEST else None
    if data is None:
        raise tarfile.ReadError(f"its {name} is not a regular file")
    return data.read()


def _sync(path: Path) -> None:
    """Make sure that what was written survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
