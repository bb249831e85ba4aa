"""The snapshot that the workers route by when a control process takes over."""

from pathlib import Path

import msgspec
import structlog

from proxy.wire.snapshot import Snapshot

_log = structlog.stdlib.get_logger(__name__)


def read_held(path: Path) -> Snapshot | None:
    """The snapshot that the workers hold, as the supervisor stored it; None without one."""
    try:
        return msgspec.msgpack.decode(path.read_bytes(), type=Snapshot)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        _log.warning("the stored snapshot is left aside", error=str(error))
        return None
