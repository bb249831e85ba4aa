"""The files of accounts, certificates and attempts, and what certificates say."""

import stat
from pathlib import Path

import pytest
from cryptography import x509

from meshd.certificates.keys import InvalidCertificate, check_issued, new_key, read_certificate
from meshd.certificates.store import CertificateStore, adopt_served, find_served
from meshd.certificates.values import (
    Account,
    AuthorityAccess,
    ChallengeAnswer,
    OrderRecord,
    WantedCertificate,
)
from proxy.wire.snapshot import CertificateFiles
from tests.support.certificate_authority import Authority, Issued
from tests.support.pebble import self_signed

ACCESS = AuthorityAccess("https://ca.example/dir")
ANSWER = ChallengeAnswer("tls-alpn-01", "a.test", "token", "token.print")


def pem(folder: Path, name: str = "localhost", days: float = 90) -> tuple[str, str]:
    """A key and a certificate for localhost."""
    cert, key = self_signed(folder, name, days)
    return key.read_text(), cert.read_text()


def wanted(access: AuthorityAccess = ACCESS) -> WantedCertificate:
    return WantedCertificate("localhost", access, ("http-01",))


def test_what_is_stored_is_read_again(tmp_path: Path) -> None:
    store = CertificateStore(tmp_path)
    assert store.acquire()
    store.keep_account(ACCESS.id, Account("key", "https://ca.example/1", "ops@example.com"))
    store.keep_record(ACCESS.id, "localhost", OrderRecord(3, error="bad", causes={"refused": 2}))
    held = store.keep_certificate(ACCESS.id, "localhost", *pem(tmp_path))
    again = CertificateStore(tmp_path)
    again.read()
    assert again.account(ACCESS.id) == Account("key", "https://ca.example/1", "ops@example.com")
    assert again.record(ACCESS.id, "localhost").failures == 3
    assert again.record(ACCESS.id, "localhost").causes == {"refused": 2}
    assert again.find(wanted()) == held
    assert held.names == ("localhost",)
    paths = [tmp_path / "certificates", *(tmp_path / "certificates").rglob("*")]
    assert {stat.S_IMODE(each.stat().st_mode) for each in paths} == {0o700, 0o600}


def test_one_process_at_a_time_writes(tmp_path: Path) -> None:
    first, second = CertificateStore(tmp_path), CertificateStore(tmp_path)
    assert first.acquire()
    assert not second.acquire()
    first.keep_certificate(ACCESS.id, "localhost", *pem(tmp_path))
    first.close()
    assert second.acquire()
    assert second.find(wanted()) is not None


def test_files_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    store = CertificateStore(tmp_path)
    store.acquire()
    store.keep_certificate(ACCESS.id, "localhost", *pem(tmp_path))
    folder = tmp_path / "certificates" / ACCESS.id
    (folder / "broken.test.pem").write_text("half of a")
    (folder / "orders.json").write_text("{")
    (folder / "account.json").write_text("[]")
    again = CertificateStore(tmp_path)
    again.read()
    assert {name for _, name in again.held} == {"localhost"}
    assert again.records == {}
    assert again.account(ACCESS.id) is None


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = CertificateStore(tmp_path)
    store.acquire()
    before = store.keep_certificate(ACCESS.id, "localhost", *pem(tmp_path))
    content = Path(before.path).read_bytes()

    def fail(descriptor: int) -> None:
        raise OSError("no space")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="no space"):
        store.keep_certificate(ACCESS.id, "localhost", *pem(tmp_path, "other"))
    assert Path(before.path).read_bytes() == content
    assert store.find(wanted()) == before
    assert not list((tmp_path / "certificates").rglob(".new-*"))


def test_a_certificate_of_another_authority_is_served_until_there_is_one(tmp_path: Path) -> None:
    store = CertificateStore(tmp_path)
    store.acquire()
    old = store.keep_certificate("staging", "localhost", *pem(tmp_path))
    assert [each.cert for each in find_served(store, [wanted()])] == [old.path]
    new = store.keep_certificate(ACCESS.id, "localhost", *pem(tmp_path, "new", 10))
    assert [each.cert for each in find_served(store, [wanted()])] == [new.path]


def content_of(issued: Issued) -> str:
    return Path(issued.key).read_text() + Path(issued.cert).read_text()


def served(content: str, path: str = f"/elsewhere/{ACCESS.id}/localhost.pem") -> CertificateFiles:
    """A certificate as the leader sends it to the proxies of other nodes."""
    return CertificateFiles(path, names=("localhost",), version="1", cert_pem=content)


def test_the_certificate_of_the_leader_before_is_stored_unless_the_own_one_is_newer(
    tmp_path: Path,
) -> None:
    authority = Authority(tmp_path)
    old = content_of(authority.issue("localhost", since=-20))
    new = content_of(authority.issue("localhost", since=-5))
    newest = content_of(authority.issue("localhost"))
    store = CertificateStore(tmp_path)
    adopt_served(store, [served(old)])
    first = store.find(wanted())
    assert first is not None
    assert Path(first.path).read_text() == old
    assert first.path.startswith(str(tmp_path))
    adopt_served(store, [served(new)])
    adopt_served(store, [served(old)])
    assert store.acquire(), "it stays possible to write"
    store.keep_certificate(ACCESS.id, "localhost", "", newest)
    store.close()
    again = CertificateStore(tmp_path)
    adopt_served(again, [served(new)])
    found = again.find(wanted())
    assert found is not None
    assert Path(found.path).read_text() == newest


def test_a_certificate_of_another_authority_stays_one_of_that(tmp_path: Path) -> None:
    staging = AuthorityAccess("https://staging.example/dir")
    issued = Authority(tmp_path).issue("localhost")
    store = CertificateStore(tmp_path)
    adopt_served(store, [served(content_of(issued), f"/elsewhere/{staging.id}/localhost.pem")])
    assert store.find(wanted()) is None, "it is still to be ordered"
    (found,) = find_served(store, [wanted()])
    assert Path(found.cert).parent.name == staging.id


def test_only_usable_certificates_with_their_content_are_adopted(
    tmp_path: Path,
) -> None:
    authority = Authority(tmp_path)
    one, other = authority.issue("localhost"), authority.issue("other")
    mixed = Path(other.key).read_text() + Path(one.cert).read_text()
    good = content_of(one)
    store = CertificateStore(tmp_path)
    bad = (
        served(""),
        served(mixed),
        served(Path(one.cert).read_text()),
        served("no certificate"),
        served(content_of(other)),
        served(good, "/elsewhere/../localhost.pem"),
        served(good, "localhost.pem"),
        served(good, "/etc/meshd/localhost.pem"),
    )
    adopt_served(store, bad)
    assert store.held == {}
    assert not list((tmp_path / "certificates").rglob("*.pem"))
    adopt_served(store, [*bad, served(good)])
    assert store.find(wanted()) is not None


def test_answers_by_tls_are_removed(tmp_path: Path) -> None:
    store = CertificateStore(tmp_path)
    store.acquire()
    path = Path(store.keep_answer(ANSWER))
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["a.test"]
    identifier = certificate.extensions.get_extension_for_oid(
        x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")
    )
    assert identifier.critical
    store.close()
    assert CertificateStore(tmp_path).acquire()  # after a crash
    assert not path.exists()


def test_a_chain_of_another_key_or_name_is_refused(tmp_path: Path) -> None:
    key, chain = pem(tmp_path)
    check_issued(key, chain, "localhost")
    with pytest.raises(InvalidCertificate, match="another key"):
        check_issued(new_key(), chain, "localhost")
    with pytest.raises(InvalidCertificate, match=r"not for other\.test"):
        check_issued(key, chain, "other.test")
    with pytest.raises(InvalidCertificate, match="no certificate"):
        check_issued(key, "<html>", "localhost")


def test_the_renewal_id_is_that_of_the_standard() -> None:
    """The example of RFC 9773, 4.1."""
    example = """-----BEGIN CERTIFICATE-----
MIIBQzCB66ADAgECAgUAh2VDITAKBggqhkjOPQQDAjAVMRMwEQYDVQQDEwpFeGFt
cGxlIENBMCIYDzAwMDEwMTAxMDAwMDAwWhgPMDAwMTAxMDEwMDAwMDBaMBYxFDAS
BgNVBAMTC2V4YW1wbGUuY29tMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEeBZu
7cbpAYNXZLbbh8rNIzuOoqOOtmxA1v7cRm//AwyMwWxyHz4zfwmBhcSrf47NUAFf
qzLQ2PPQxdTXREYEnKMjMCEwHwYDVR0jBBgwFoAUaYhba4dGQEHhs3uEe6CuLN4B
yNQwCgYIKoZIzj0EAwIDRwAwRAIge09+S5TZAlw5tgtiVvuERV6cT4mfutXIlwTb
+FYN/8oCIClDsqBklhB9KAelFiYt9+6FDj3z4KGVelYM5MdsO3pK
-----END CERTIFICATE-----
"""
    assert read_certificate(example.encode(), "x").renewal_id == (
        "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"
    )
