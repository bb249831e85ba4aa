"""The files of accounts, certificates and attempts, in the folder `certificates` of the state.

Written by `manager`; the proxy's workers read the certificates, and `meshd.store.backup` copies the
folder. Each file is replaced as a whole, so a crash leaves the old one or the new one:

- `AUTHORITY/account.json`: key and URL of the account
- `AUTHORITY/orders.json`: what is remembered about the orders for each name
- `AUTHORITY/NAME.pem`: private key and certificate chain of a name, in one file so that they match
- `challenges/NAME.pem`: the certificate that answers a challenge by TLS, for a short time
"""

import contextlib
import fcntl
import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import structlog

from meshd.certificates.keys import (
    InvalidCertificate,
    answer_certificate,
    check_issued,
    read_certificate,
)
from meshd.certificates.values import (
    Account,
    ChallengeAnswer,
    HeldCertificate,
    OrderRecord,
    WantedCertificate,
)
from meshd.store.presence import CERTIFICATES
from proxy.wire.snapshot import CertificateFiles

_log = structlog.stdlib.get_logger(__name__)
PAUSE: Final = ""
"""Name of the record that is about the authority itself; no host has it."""
_AUTHORITY: Final = re.compile(r"[\w.:-]+-[0-9a-f]{8}")
"""The folder of an authority, see `AuthorityAccess.id`."""
_CHALLENGES: Final = "challenges"
_ACCOUNT: Final = "account.json"
_ORDERS: Final = "orders.json"

T = TypeVar("T")
Held = tuple[str, str]
"""An authority's id, and a host name."""


class CertificateStore:
    """The folder, readable by its owner only.

    - `held`: the certificates, by authority and name.
    - `records`: what is remembered, by authority and name.
    """

    def __init__(self, state: Path) -> None:
        self.folder = state / CERTIFICATES
        self.held: dict[Held, HeldCertificate] = {}
        self.records: dict[Held, OrderRecord] = {}
        self._lock = -1

    def read(self) -> None:
        """Read all files; those that cannot be read are left out."""
        for folder in self.folder.glob("*/"):
            if folder.name != _CHALLENGES:
                self._read_authority(folder)

    def acquire(self) -> bool:
        """Whether this process may write, which is one at a time; a new one reads what the one
        before has written. Raises OSError."""
        if self._lock >= 0:
            return True
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return False
        self._lock = lock
        self.read()
        self.remove_answers()
        return True

    def close(self) -> None:
        """Let other processes write."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _read_authority(self, folder: Path) -> None:
        for path in folder.glob("*.pem"):
            try:
                self.held[folder.name, path.stem] = read_certificate(path.read_bytes(), str(path))
            except (OSError, InvalidCertificate) as error:
                _log.warning("stored certificate ignored", error=str(error))
        for name, record in _read(folder / _ORDERS, dict[str, OrderRecord], {}).items():
            self.records[folder.name, name] = record

    def find(self, wanted: WantedCertificate) -> HeldCertificate | None:
        """Return the certificate of a name from its authority; None if there is none."""
        return self.held.get((wanted.authority.id, wanted.name))

    def record(self, authority: str, name: str) -> OrderRecord:
        """Return what is remembered about a name; of the authority itself for `PAUSE`."""
        return self.records.get((authority, name)) or OrderRecord()

    def keep_record(self, authority: str, name: str, record: OrderRecord) -> None:
        """Store what is remembered about a name. Raises OSError."""
        if record == self.record(authority, name):
            return
        self.records[authority, name] = record
        records = {
            known: each for (where, known), each in self.records.items() if where == authority
        }
        self._write(self.folder / authority / _ORDERS, msgspec.json.encode(records))

    def account(self, authority: str) -> Account | None:
        """Return the account at an authority; None if there is none yet."""
        found = _read(self.folder / authority / _ACCOUNT, Account, Account(""))
        return found if found.key else None

    def keep_account(self, authority: str, account: Account) -> None:
        """Store an account. Raises OSError."""
        self._write(self.folder / authority / _ACCOUNT, msgspec.json.encode(account))

    def forget_account(self, authority: str) -> None:
        """Forget that the authority knows the account; its key stays. Raises OSError."""
        account = self.account(authority)
        if account is not None:
            self.keep_account(authority, Account(account.key))

    def keep_certificate(self, authority: str, name: str, key: str, chain: str) -> HeldCertificate:
        """Store a certificate with its key. Raises OSError, InvalidCertificate."""
        path = self.folder / authority / f"{name}.pem"
        pem = (key + chain).encode()
        held = read_certificate(pem, str(path))
        self._write(path, pem)
        self.held[authority, name] = held
        return held

    def keep_answer(self, answer: ChallengeAnswer) -> str:
        """Store the certificate that answers a challenge by TLS; return its path. Raises
        OSError."""
        path = self.folder / _CHALLENGES / f"{answer.name}.pem"
        self._write(path, answer_certificate(answer).encode())
        return str(path)

    def remove_answers(self, name: str = "*") -> None:
        """Remove the answers to challenges for a name; without one, all that a crash has left."""
        for path in (self.folder / _CHALLENGES).glob(f"{name}.pem"):
            path.unlink(missing_ok=True)

    def _write(self, path: Path, data: bytes) -> None:
        """Replace a file as a whole."""
        path.parent.mkdir(mode=0o700, exist_ok=True)
        descriptor, made = tempfile.mkstemp(dir=path.parent, prefix=".new-")  # mode 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(made, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(made)
            raise
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def find_served(
    store: CertificateStore, wanted: Iterable[WantedCertificate]
) -> tuple[CertificateFiles, ...]:
    """Return the certificates to serve: for each name that of its authority, else the one of
    another authority that is valid longest."""
    found = []
    for each in wanted:
        own = store.find(each)
        others = [held for (_, name), held in store.held.items() if name == each.name]
        held = own or max(others, key=lambda other: other.not_after, default=None)
        if held is not None:
            found.append(CertificateFiles(held.path, names=held.names, version=held.version))
    return tuple(found)


def adopt_served(store: CertificateStore, served: Iterable[CertificateFiles]) -> None:
    """Store the certificates that came with their content, which the daemon of another host has
    ordered, unless the folder has them or newer ones. Raises OSError."""
    found = [each for each in served if each.cert_pem]
    if not found or not store.acquire():
        return
    try:
        for each in found:
            try:
                _adopt(store, each)
            except InvalidCertificate as error:
                _log.warning("certificate of the leader before ignored", error=str(error))
    finally:
        store.close()


def _adopt(store: CertificateStore, served: CertificateFiles) -> None:
    """Store one certificate under the authority and the name that its path on the other host says.
    Raises OSError, InvalidCertificate."""
    path = Path(served.cert)
    authority, name = path.parent.name, path.stem
    if _AUTHORITY.fullmatch(authority) is None:
        raise InvalidCertificate(f"{served.cert} is not in the folder of an authority")
    pem = served.key_pem + served.cert_pem
    check_issued(pem, pem, name)
    offered, own = read_certificate(pem.encode(), served.cert), store.held.get((authority, name))
    if own is not None and own.not_before >= offered.not_before:
        return
    store.keep_certificate(authority, name, served.key_pem, served.cert_pem)
    _log.info("certificate of the leader before is used", name=name)


def _read(path: Path, form: type[T], default: T) -> T:
    try:
        return msgspec.json.decode(path.read_bytes(), type=form)
    except FileNotFoundError:
        return default
    except (OSError, msgspec.MsgspecError) as error:
        _log.warning("stored file ignored", file=str(path), error=str(error))
        return default
