"""The last good snapshot on disk, so that a restarted supervisor can serve at once.

Read and written by `supervisor`. The file is replaced atomically: after a power cut it holds
either the old or the new snapshot.
"""

import os
from pathlib import Path

import msgspec

from proxy.wire.snapshot import Snapshot

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Snapshot)


class UnreadableSnapshot(Exception):
    """A stored snapshot exists, but this version cannot read it."""


def save(path: Path, snapshot: Snapshot) -> None:
    """Replace the stored snapshot. Raises OSError."""
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(_encoder.encode(snapshot))
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    # The rename itself is durable only once the directory is synced.
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def load(path: Path) -> Snapshot | None:
    """Return the stored snapshot; None if there is no file. Raises UnreadableSnapshot."""
    try:
        return _decoder.decode(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise UnreadableSnapshot(f"{path}: {error}") from error
