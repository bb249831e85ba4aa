"""Automatic certificates of a standalone proxy.

`build` puts those that are stored into the first snapshot; `helper` runs what orders them. The
package `meshd.certificates` does the work.
"""

import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from meshd.certificates.values import ServedCertificates, WantedCertificate
from meshd.certificates.wanted import WantedCertificates
from meshd.model.event import Kind
from meshd.spec.model import Service
from meshd.standalone.listeners import list_acme
from meshd.standalone.settings import StandaloneSettings

if TYPE_CHECKING:
    from meshd.certificates.manager import CertificateManager

_log = structlog.stdlib.get_logger(__name__)
_ROOT_STATE: Final = Path("/var/lib/meshd-proxy")
_GOOD: Final = (Kind.CERTIFICATE_ISSUED, Kind.CERTIFICATE_RENEWED)


def state_folder(settings: StandaloneSettings) -> Path:
    """Return the directory of the certificates."""
    if settings.state:
        return Path(settings.state).expanduser()
    return _ROOT_STATE if os.geteuid() == 0 else Path.home() / ".local/state/meshd-proxy"


def find_wanted(settings: StandaloneSettings) -> tuple[WantedCertificate, ...]:
    """Return the certificates that the settings want. Raises BadAcmeSettings."""
    acme = list_acme(settings, settings.listen)
    service = Service(name="upstream", mesh=settings.mesh)
    return WantedCertificates(acme, lambda: [service]).list()


def find_stored(settings: StandaloneSettings) -> ServedCertificates:
    """Return the certificates that are stored. Raises BadAcmeSettings."""
    wanted = find_wanted(settings)
    if not wanted:
        return ServedCertificates()
    from meshd.certificates.store import CertificateStore, find_served

    store = CertificateStore(state_folder(settings))
    store.read()
    return ServedCertificates(find_served(store, wanted))


def make_manager(
    settings: StandaloneSettings,
    wanted: Callable[[], tuple[WantedCertificate, ...]],
    is_answered: Callable[[str], bool],
    on_change: Callable[[], None],
) -> "CertificateManager | None":
    """Return what orders certificates; None without settings for that."""
    if not list_acme(settings, settings.listen):
        return None
    from meshd.certificates.manager import CertificateManager
    from meshd.certificates.store import CertificateStore

    return CertificateManager(
        CertificateStore(state_folder(settings)),
        wanted,
        is_answered,
        _log_event,
        on_change,
        time.time,
        random.Random(),
    )


def _log_event(kind: Kind, text: str) -> None:
    """Write an event to the log, which is all that a standalone proxy has for it."""
    if kind in _GOOD:
        _log.info(text)
    else:
        _log.error(text, kind=kind.value)
