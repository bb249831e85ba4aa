"""Files of certificates and keys: what is wrong with them is said; changed ones are read again."""

import os
import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from proxy.transport.upstream_tls import TlsClient, TlsFiles, describe_error, make_context
from proxy.wire.snapshot import UpstreamTls
from tests.support.certificate_authority import Authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_the_default_verifies_by_the_system() -> None:
    context = make_context(UpstreamTls(server_name="a"))
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_files_that_cannot_be_used(tmp_path: Path, authority: Authority) -> None:
    a, b = authority.issue("a.test"), authority.issue("b.test")
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing\n")
    missing = str(tmp_path / "missing.pem")
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        load_pem_private_key(Path(a.key).read_bytes(), None).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
        )
    )
    for config, said in (
        (UpstreamTls(ca=missing), f"{missing} cannot be read: No such file or directory"),
        (UpstreamTls(ca=str(empty)), f"{empty} has no certificate in PEM format"),
        (UpstreamTls(cert=missing), f"{missing} cannot be read: No such file or directory"),
        (UpstreamTls(cert=a.cert, key=missing), f"{missing} cannot be read: No such file"),
        (UpstreamTls(cert=a.cert, key=str(locked)), f"{locked} is encrypted; expected a key"),
        (UpstreamTls(cert=a.cert, key=b.key), f"{b.key} is not the key of {a.cert}"),
        (UpstreamTls(cert=a.cert), f"{a.cert} has no certificate, or it no key"),
        (UpstreamTls(cert=str(empty), key=a.key), f"{empty} has no certificate, or {a.key} no key"),
    ):
        with pytest.raises(TlsFiles) as found:
            make_context(config)
        assert str(found.value).startswith(said)


def test_files_are_read_again_when_they_change(tmp_path: Path, authority: Authority) -> None:
    now = 0.0
    ca = tmp_path / "used.pem"
    ca.write_text(Path(authority.ca).read_text())
    client = TlsClient(UpstreamTls(ca=str(ca)), lambda: now)
    first = client.context()
    assert client.context() is first
    now = 100.0
    assert client.context() is first, "nothing has changed"
    (tmp_path / "new").mkdir()
    os.replace(Authority(tmp_path / "new").ca, ca)
    assert client.context() is first, "not looked at yet"
    now = 200.0
    second = client.context()
    assert second is not first
    ca.write_text("half a fi")
    now = 300.0
    assert client.context() is second, "a file that is being written changes nothing"


def test_unknown_errors_are_described_too() -> None:
    assert describe_error(ConnectionResetError(), "a") == "it ended the TLS handshake"
    assert "handshake failed" in describe_error(ssl.SSLError(1, "odd"), "a")
