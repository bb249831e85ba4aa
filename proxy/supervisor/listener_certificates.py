"""The content of the certificate files of listeners: read, checked, and read again when a file
changes.

Owned by `listeners`. The supervisor reads them for all workers, so that all serve the same
certificate, and a worker that is replaced gets one that works even if the files no longer do.
Level-triggered: `reread` compares the files with what was read last.
"""

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from proxy.tls.certificate import UnusableCertificate, describe, load_listener
from proxy.wire.snapshot import Listener, ListenerTls

_log = logging.getLogger(__name__)
RETRY_SECONDS: Final = 60.0
"""Seconds after which files that cannot be used are read again though they have not changed: a
certificate may have been installed before it is valid."""
Signature = tuple[tuple[int, int, int, int], ...]
"""Inode, modification time, size and change time of each file; zeros for one that does not exist.
The change time alone says that the owner or the mode of a file has changed."""


@dataclass(frozen=True, slots=True)
class _Read:
    """What was read of the files of some settings."""

    signature: Signature
    content: ListenerTls


@dataclass(frozen=True, slots=True)
class _Failing:
    """Files that cannot be used: whether that was logged, and when they were read last, in Unix
    time."""

    signature: Signature
    logged: bool
    tried_at: float


@dataclass(frozen=True, slots=True)
class Reread:
    """The outcome of a look at all files, at `at` in Unix time: what was read again, and what
    cannot be used, with the signature of the files and the reason."""

    at: float
    read: dict[ListenerTls, _Read]
    failed: dict[ListenerTls, tuple[Signature, str]]


class ListenerCertificates:
    """The content of the files of all listeners with TLS. `clock` returns Unix time."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._read: dict[ListenerTls, _Read] = {}
        self._failing: dict[ListenerTls, _Failing] = {}

    def fill(self, listener: Listener) -> Listener:
        """Return a listener with the content of its files, which are read if they were not yet.

        Raises UnusableCertificate.
        """
        if listener.tls is None:
            return listener
        known = self._read.get(listener.tls)
        if known is None:
            signature = _signature(listener.tls)
            known = _Read(signature, load_listener(listener.tls, self._clock()))
            self._read[listener.tls] = known
        return msgspec.structs.replace(listener, tls=known.content)

    def reread(self) -> Reread:
        """Read the files that have changed, and those that could not be used a while ago. Changes
        nothing here, so it may run in a thread."""
        now = self._clock()
        found = Reread(now, {}, {})
        for tls, known in list(self._read.items()):
            signature = _signature(tls)
            if signature == known.signature:
                continue
            failing = self._failing.get(tls)
            if (
                failing is not None
                and failing.logged
                and failing.signature == signature
                and abs(now - failing.tried_at) < RETRY_SECONDS
            ):
                continue
            try:
                found.read[tls] = _Read(signature, load_listener(tls, now))
            except UnusableCertificate as error:
                found.failed[tls] = (signature, str(error))
        return found

    def adopt(self, found: Reread) -> bool:
        """Use what `reread` found, and return whether any content is new. What cannot be used is
        logged once, unless it changes within a second: a certificate and its key are seldom
        replaced at the same moment."""
        for tls, (signature, reason) in found.failed.items():
            before = self._failing.get(tls)
            seen = before is not None and before.signature == signature
            self._failing[tls] = _Failing(signature, seen, found.at)
            if before is not None and seen and not before.logged:
                _log.error("certificate files: %s; the previous ones stay in use", reason)
        changed = False
        for tls, read in found.read.items():
            known = self._read.get(tls)
            self._read[tls] = read
            self._failing.pop(tls, None)
            if known is not None and known.content == read.content:
                continue  # only the owner or the mode of a file has changed
            changed = True
            for each in read.content.certificates:
                names = ", ".join(describe(each.cert, each.cert_pem).names)
                _log.info("certificate %s was read again: %s", each.cert, names or "no host names")
        return changed

    def forget_unused(self, used: set[ListenerTls]) -> None:
        """Forget the content of files that no listener uses."""
        for tls in self._read.keys() - used:
            del self._read[tls]
            self._failing.pop(tls, None)


def _signature(tls: ListenerTls) -> Signature:
    paths = [path for each in tls.certificates for path in (each.cert, each.key) if path]
    if tls.client_ca:
        paths.append(tls.client_ca)
    return tuple(map(_file_signature, paths))


def _file_signature(path: str) -> tuple[int, int, int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return (0, 0, 0, 0)
    return (found.st_ino, found.st_mtime_ns, found.st_size, found.st_ctime_ns)
