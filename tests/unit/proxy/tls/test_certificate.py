"""What is wrong with certificate files, and what a certificate says."""

import os
import time
from pathlib import Path

import pytest

from proxy.tls.certificate import UnusableCertificate, load, load_listener
from proxy.wire.snapshot import CertificateFiles, ListenerTls
from tests.support.certificate_authority import Authority, Issued


def files(issued: Issued) -> CertificateFiles:
    return CertificateFiles(issued.cert, issued.key)


def refusal(given: CertificateFiles) -> str:
    with pytest.raises(UnusableCertificate) as raised:
        load(given, time.time())
    return str(raised.value)


def test_a_good_pair_is_read(tmp_path: Path) -> None:
    issued = Authority(tmp_path).issue("shop", "Shop.test", "*.wild.test")
    loaded = load(files(issued), time.time())
    assert loaded.names == ("shop.test", "*.wild.test")
    assert loaded.cert_pem == Path(issued.cert).read_text()
    assert loaded.key_pem == Path(issued.key).read_text()


def test_names_of_the_settings_count_more_than_those_of_the_certificate(tmp_path: Path) -> None:
    issued = Authority(tmp_path).issue("shop")
    given = CertificateFiles(issued.cert, issued.key, names=("other.test",))
    assert load(given, time.time()).names == ("other.test",)


def test_one_file_may_have_both(tmp_path: Path) -> None:
    issued = Authority(tmp_path).issue("shop")
    both = tmp_path / "both.pem"
    both.write_text(Path(issued.key).read_text() + Path(issued.cert).read_text())
    assert load(CertificateFiles(str(both)), time.time()).names == ("shop",)


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    issued, other = authority.issue("shop"), authority.issue("other")
    missing = CertificateFiles(f"{tmp_path}/no.pem", issued.key)
    assert refusal(missing) == f"{tmp_path}/no.pem cannot be read: No such file or directory"
    no_key = CertificateFiles(issued.cert, f"{tmp_path}/no.key")
    assert refusal(no_key) == f"{tmp_path}/no.key cannot be read: No such file or directory"
    mismatch = CertificateFiles(issued.cert, other.key)
    assert refusal(mismatch) == f"{other.key} is not the key of the certificate in {issued.cert}"
    swapped = CertificateFiles(issued.key, issued.cert)
    assert refusal(swapped) == f"{issued.key} has no certificate in PEM format"
    twice = CertificateFiles(issued.cert, issued.cert)
    assert refusal(twice) == f"{issued.cert} has no private key in PEM format"
    assert refusal(CertificateFiles(issued.cert)) == refusal(twice)
    binary = tmp_path / "binary.pem"
    binary.write_bytes(b"\xff\xfe\x00" * 100)
    assert refusal(CertificateFiles(str(binary))) == f"{binary} is not a PEM file"
    if os.getuid():
        binary.chmod(0)
        assert refusal(CertificateFiles(str(binary))).endswith("Permission denied")
    large = tmp_path / "large.pem"
    large.write_bytes(b"x" * 1_100_000)
    assert "too large" in refusal(CertificateFiles(str(large)))
    assert refusal(CertificateFiles(str(tmp_path))).endswith("cannot be read: Is a directory")


def test_an_encrypted_key_is_refused(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    issued = Authority(tmp_path).issue("shop")
    key = serialization.load_pem_private_key(Path(issued.key).read_bytes(), None)
    Path(issued.key).write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    assert "is encrypted; expected a private key without a password" in refusal(files(issued))


def test_validity(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    expired = authority.issue("old", since=-9, until=-1)
    assert f"{expired.cert}: the certificate expired on 20" in refusal(files(expired))
    early = authority.issue("early", since=2)
    assert f"{early.cert} is not valid before 20" in refusal(files(early))
    good = authority.issue("shop")
    old_chain = Path(good.cert).read_text() + Path(expired.cert).read_text()
    Path(good.cert).write_text(old_chain)
    assert "the chain's certificate of CN=old expired on 20" in refusal(files(good))


def test_the_authorities_of_clients(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    issued = authority.issue("shop")
    tls = ListenerTls((files(issued),), client_ca=authority.ca, client="required", hsts="max-age=1")
    loaded = load_listener(tls, time.time())
    assert loaded.client_ca_pem == Path(authority.ca).read_text()
    assert (loaded.client, loaded.hsts) == ("required", "max-age=1")
    with pytest.raises(UnusableCertificate, match="has no certificate in PEM format"):
        load_listener(ListenerTls((files(issued),), client_ca=issued.key), time.time())
