"""The last good snapshot on disk, so that a restarted supervisor serves at once.

Written so that a power cut leaves the old or the new file, never half of one.
"""

import os
from pathlib import Path

import msgspec

from proxy.wire.snapshot import Snapshot

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Snapshot)


class Unreadable(Exception):
    """A snapshot is stored, but not one that this version understands."""


def save(path: Path, snapshot: Snapshot) -> None:
    """Replace the stored snapshot. Raises OSError."""
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(_encoder.encode(snapshot))
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def load(path: Path) -> Snapshot | None:
    """The stored snapshot; None when there is none. Raises Unreadable."""
    try:
        return _decoder.decode(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise Unreadable(f"{path}: {error}") from error
