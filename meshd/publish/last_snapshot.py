"""Read the snapshot that the workers route by when a control process starts.

The supervisor stores it; `meshd.daemon.wiring` reads it once.
"""

from pathlib import Path

import msgspec
import structlog

from proxy.wire.snapshot import Snapshot

_log = structlog.stdlib.get_logger(__name__)


def read_held_snapshot(path: Path) -> Snapshot | None:
    """Return the stored snapshot; None if there is none or if it cannot be read."""
    try:
        return msgspec.msgpack.decode(path.read_bytes(), type=Snapshot)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        _log.warning("stored snapshot ignored", error=str(error))
        return None
