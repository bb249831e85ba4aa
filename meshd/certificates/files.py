"""The certificates of listeners that are files of the user, for `meshd certificates` and metrics.

Used by the control process and the helper of `meshd proxy`. The proxy's workers serve and reload
them without this package.
"""

from collections.abc import Iterable
from pathlib import Path

import msgspec
import structlog

from meshd.model.certificate import CertificateStatus
from meshd.store import presence
from proxy.ipc.config import SupervisorConfig
from proxy.tls.certificate import UnusableCertificate, describe, read_file
from proxy.wire.snapshot import Listener

_log = structlog.stdlib.get_logger(__name__)


def read_listeners(state: Path) -> tuple[Listener, ...]:
    """Return the listeners that the supervisor was started with; none if they are not known."""
    try:
        text = (state / presence.CONFIG_FILE).read_bytes()
        return msgspec.json.decode(text, type=SupervisorConfig).listeners
    except FileNotFoundError:
        return ()
    except (OSError, msgspec.MsgspecError) as error:
        _log.warning("settings of the listeners ignored", error=str(error))
        return ()


def describe_files(listeners: Iterable[Listener], now: float) -> list[CertificateStatus]:
    """Return what users see of each certificate file, in the order of the listeners."""
    found = {
        each.cert: each
        for listener in listeners
        if listener.tls is not None
        for each in listener.tls.certificates
    }
    return [_describe_file(path, each.names, now) for path, each in found.items()]


def _describe_file(path: str, names: tuple[str, ...], now: float) -> CertificateStatus:
    try:
        info = describe(path, read_file(path))
    except UnusableCertificate as error:
        return CertificateStatus(names, "file", path, "failing", failures=1, error=str(error))
    return CertificateStatus(
        names or info.names,
        "file",
        path,
        "valid" if now < info.expires else "expired",
        expires_at=info.expires,
    )
