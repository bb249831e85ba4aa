"""From settings to wanted certificates, and certificates that are files of the user."""

from pathlib import Path

import msgspec
import pytest
from pydantic import ValidationError

from meshd.certificates.files import describe_files, read_listeners
from meshd.certificates.values import AuthorityAccess, WantedCertificate
from meshd.certificates.wanted import BadAcmeSettings, WantedCertificates, access_of
from meshd.cli.tables import certificate_lines
from meshd.model.certificate import CertificateStatus
from meshd.spec.model import Mesh, RouteSpec, Service
from meshd.spec.model.acme import LETS_ENCRYPT, AcmeSettings
from meshd.spec.model.proxy_settings import ProxySettings
from meshd.standalone.listeners import list_acme
from proxy.ipc.config import SupervisorConfig
from proxy.wire.snapshot import CertificateFiles, Listener, ListenerTls
from tests.support.pebble import self_signed


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"domains": "*.a.test"}, "wildcard"),
        ({"domains": "localhost"}, "not a valid domain"),
        ({"domains": "10.0.0.1"}, "not a valid domain"),
        ({"domains": "a_b..test"}, "not a valid domain"),
        ({"email": "ops"}, "not a valid e-mail"),
        ({"directory": "http://ca.test"}, "not a valid URL"),
        ({"challenges": []}, "at least 1"),
        ({"challenges": "dns-01"}, "tls-alpn-01"),
        ({"external_account": {"kid": "k"}}, "either key or key_file"),
        ({"external_account": {"kid": "k", "key": "a b"}}, "base64url"),
        ({"mail": "a@b"}, "Extra inputs"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        AcmeSettings.model_validate(settings)


def test_defaults_and_short_forms() -> None:
    found = AcmeSettings.model_validate({"domains": "Shop.Test", "challenges": "http-01"})
    assert (found.domains, found.challenges) == (("shop.test",), ("http-01",))
    assert found.directory == LETS_ENCRYPT
    assert AcmeSettings().challenges == ("http-01", "tls-alpn-01")


@pytest.mark.parametrize("host", ["*", "*.shop.test", "localhost"])
def test_a_route_with_tls_auto_needs_an_exact_host(host: str) -> None:
    with pytest.raises(ValidationError, match="tls: auto needs one exact host"):
        RouteSpec(host=host, tls="auto")


def test_the_key_of_an_external_account_may_be_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("abc=\n")
    (tmp_path / "ca.pem").write_text("ca")
    settings = AcmeSettings.model_validate(
        {
            "ca": str(tmp_path / "ca.pem"),
            "external_account": {"kid": "k", "key_file": str(tmp_path / "key")},
        }
    )
    expected = AuthorityAccess(LETS_ENCRYPT, "", str(tmp_path / "ca.pem"), "k", "abc")
    assert access_of(settings) == expected
    (tmp_path / "key").unlink()
    with pytest.raises(BadAcmeSettings, match=r"key_file: .*key cannot be read: No such file"):
        access_of(settings)


def test_accounts_of_other_authorities_and_external_accounts_are_separate() -> None:
    ids = {
        AuthorityAccess("https://a.test/1").id,
        AuthorityAccess("https://a.test/2").id,
        AuthorityAccess("https://a.test/1", kid="k").id,
    }
    assert len(ids) == 3
    assert AuthorityAccess("https://a.test/1", email="x@y").id in ids


def test_every_listener_may_have_an_authority() -> None:
    one = AcmeSettings(domains=("a.test",))
    two = AcmeSettings(directory="https://ca.test/dir", domains=("a.test", "b.test"))
    settings = ProxySettings.model_validate(
        {
            "tls": {"acme": one.model_dump()},
            "listeners": {
                "127.0.0.1:2": {"tls": {"acme": two.model_dump()}},
                "127.0.0.1:4": {"redirect": "https"},
            },
        }
    )
    listen = ("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", "127.0.0.1:4")
    assert list_acme(settings, listen) == (one, two)
    assert list_acme(ProxySettings(), listen) == ()
    (by_tls,) = list_acme(ProxySettings.model_validate({"tls": {"acme": {}}}), listen[:1])
    assert by_tls.challenges == ("tls-alpn-01", "http-01")
    service = Service(name="web", mesh=Mesh(routes=(RouteSpec(host="c.test", tls="auto"),)))
    found = WantedCertificates((one, two), lambda: [service]).list()
    authorities = {each.name: each.authority.directory for each in found}
    assert authorities == {"a.test": LETS_ENCRYPT, "b.test": two.directory, "c.test": LETS_ENCRYPT}
    assert isinstance(found[0], WantedCertificate)


def test_certificate_files_are_described(tmp_path: Path) -> None:
    cert, key = self_signed(tmp_path, "good", days=10)
    missing = str(tmp_path / "missing.pem")
    files = (CertificateFiles(str(cert), str(key)), CertificateFiles(missing, names=("x.test",)))
    listeners = [Listener("127.0.0.1:1", tls=ListenerTls(files)), Listener("127.0.0.1:2")]
    good, bad = describe_files([*listeners, listeners[0]], 0.0)
    assert (good.names, good.source, good.state) == (("localhost",), "file", "valid")
    assert describe_files(listeners, good.expires_at + 1)[0].state == "expired"
    assert (bad.names, bad.state) == (("x.test",), "failing")
    assert "cannot be read" in bad.error
    assert read_listeners(tmp_path) == ()
    config = SupervisorConfig(listen=("127.0.0.1:1",), listeners=tuple(listeners))
    (tmp_path / "supervisor.json").write_bytes(msgspec.json.encode(config))
    assert read_listeners(tmp_path) == tuple(listeners)
    (tmp_path / "supervisor.json").write_text("{")
    assert read_listeners(tmp_path) == ()


@pytest.mark.parametrize(
    ("state", "expires", "expected"),
    [
        ("valid", 9.0, []),
        ("pending", 0.0, ["certificate of a.test: ordered; see `meshd certificates`"]),
        ("failing", 0.0, ["warning: no certificate for a.test: why"]),
        ("failing", 9.0, ["warning: the certificate of a.test was not renewed: why"]),
        ("expired", 9.0, ["warning: the certificate of a.test has expired: why"]),
    ],
)
def test_commands_warn_of_missing_certificates(
    state: str, expires: float, expected: list[str]
) -> None:
    found = CertificateStatus(("a.test",), "acme", "x", state, expires, error="why")  # type: ignore[arg-type]
    assert certificate_lines([found]) == expected
