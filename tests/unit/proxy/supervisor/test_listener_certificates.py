"""Certificate files of listeners that change, and that cannot be used for a while."""

import logging
import os
import time
from pathlib import Path

import pytest

from proxy.supervisor import listener_certificates
from proxy.supervisor.listener_certificates import RETRY_SECONDS, ListenerCertificates
from proxy.tls.certificate import UnusableCertificate, load_listener
from proxy.wire.snapshot import CertificateFiles, Listener, ListenerTls
from tests.support.certificate_authority import Authority, Issued


class Clock:
    """Unix time that stands still; the time of real certificates at first."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


class Scene:
    """The certificate of one listener. `logged` are the lines about it."""

    def __init__(self, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, listener_certificates.__name__)
        self._caplog = caplog
        self.authority = Authority(folder)
        self.issued = self.authority.issue("shop")
        tls = ListenerTls((CertificateFiles(self.issued.cert, self.issued.key),))
        self.listener = Listener("127.0.0.1:443", tls=tls)
        self.clock = Clock()
        self.known = ListenerCertificates(self.clock)
        self.known.fill(self.listener)

    @property
    def logged(self) -> list[str]:
        return [record.getMessage() for record in self._caplog.records]

    def look(self) -> bool:
        """Compare the files with what was read of them; return whether anything is new."""
        return self.known.adopt(self.known.reread())

    def served(self) -> str:
        tls = self.known.fill(self.listener).tls
        assert tls is not None
        return tls.certificates[0].cert_pem

    def replace(self, by: Issued) -> None:
        os.replace(by.key, self.issued.key)
        os.replace(by.cert, self.issued.cert)


def test_a_certificate_is_read_once_its_owner_or_mode_allows_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    s = Scene(tmp_path, caplog)
    next_one = s.authority.issue("next", "shop")
    wanted = Path(next_one.cert).read_text()
    s.replace(next_one)

    def refuse(tls: ListenerTls, now: float) -> ListenerTls:
        raise UnusableCertificate(f"{s.issued.key} cannot be read: Permission denied")

    with monkeypatch.context() as denied:
        # Tests may run as root, who may read everything.
        denied.setattr(listener_certificates, "load_listener", refuse)
        assert not any(s.look() for _ in range(5))
    assert len(s.logged) == 1
    assert "Permission denied; the previous ones stay in use" in s.logged[0]
    assert not s.look(), "nothing has changed"
    os.chmod(s.issued.key, 0o640)
    assert s.look()
    assert s.served() == wanted
    assert s.logged[1:] == [f"certificate {s.issued.cert} was read again: shop"]


def test_another_mode_of_the_same_content_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    s = Scene(tmp_path, caplog)
    os.chmod(s.issued.key, 0o640)
    assert not s.look()
    assert s.logged == []


def test_a_certificate_that_was_installed_before_it_is_valid_is_used_then(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    s = Scene(tmp_path, caplog)
    reads: list[float] = []

    def count(tls: ListenerTls, now: float) -> ListenerTls:
        reads.append(now)
        return load_listener(tls, now)

    monkeypatch.setattr(listener_certificates, "load_listener", count)
    next_one = s.authority.issue("next", "shop")
    wanted, valid = Path(next_one.cert).read_text(), s.clock.now
    s.replace(next_one)
    s.clock.now = valid - 10 * 86400.0
    assert not any(s.look() for _ in range(5))
    assert len(reads) == 2
    for _ in range(3):
        s.clock.now += RETRY_SECONDS
        assert not any(s.look() for _ in range(5))
    assert len(reads) == 5
    assert len(s.logged) == 1
    assert "is not valid before" in s.logged[0]
    s.clock.now = valid
    assert s.look()
    assert s.served() == wanted
