"""Settings of addresses, from the file or the Compose file to what the supervisor gets."""

from pathlib import Path
from typing import Any

import pytest

from meshd.spec.errors import SpecError
from meshd.spec.model.proxy_settings import ProxySettings
from meshd.standalone.listeners import build_listeners, find_problem, resolve_files
from meshd.standalone.settings import read_settings
from proxy.wire.snapshot import CertificateFiles, Listener, ListenerTls
from tests.support.certificate_authority import Authority

PAIR = {"cert": "/a.pem", "key": "/a.key"}
FILES = CertificateFiles("/a.pem", "/a.key")


def build(settings: dict[str, Any], *listen: str) -> dict[str, Listener]:
    found = build_listeners(ProxySettings.model_validate(settings), listen)
    return {each.address: each for each in found}


def test_the_settings_of_the_proxy_apply_to_all_tcp_addresses() -> None:
    built = build(
        {
            "tls": PAIR,
            "listeners": {
                "0.0.0.0:80": {"redirect": "https"},
                "0.0.0.0:8080": {"tls": False},
                "0.0.0.0:8443": {"tls": {**PAIR, "min_version": "1.3"}},
            },
        },
        *("0.0.0.0:443", "0.0.0.0:80", "0.0.0.0:8080", "0.0.0.0:8443", "unix:/x.sock"),
    )
    assert built["0.0.0.0:443"] == Listener("0.0.0.0:443", tls=ListenerTls((FILES,)))
    assert built["0.0.0.0:80"] == Listener("0.0.0.0:80", https_port=443)
    assert built["0.0.0.0:8443"].tls == ListenerTls((FILES,), minimum="1.3")
    assert built.keys() == {"0.0.0.0:443", "0.0.0.0:80", "0.0.0.0:8443"}


@pytest.mark.parametrize(
    ("redirect", "listen", "port"),
    [
        ("https", ("a:80", "a:8443"), 8443),
        ("https", ("a:80",), 443),
        ("https", ("a:80", "a:0"), 443),
        ("https:9443", ("a:80", "a:8443"), 9443),
    ],
)
def test_the_port_of_a_redirect(redirect: str, listen: tuple[str, ...], port: int) -> None:
    settings = {"tls": PAIR, "listeners": {"a:80": {"redirect": redirect}}}
    assert build(settings, *listen)["a:80"].https_port == port


@pytest.mark.parametrize(
    ("hsts", "value"),
    [
        (True, "max-age=63072000"),
        ("180d", "max-age=15552000"),
        (0, "max-age=0"),
        (
            {"max_age": "1h", "subdomains": True, "preload": True},
            "max-age=3600; includeSubDomains; preload",
        ),
        (False, ""),
    ],
)
def test_hsts(hsts: object, value: str) -> None:
    tls = build({"tls": {**PAIR, "hsts": hsts}}, "a:443")["a:443"].tls
    assert tls is not None
    assert tls.hsts == value


def test_several_certificates_and_client_authorities() -> None:
    tls = build(
        {
            "tls": {
                **PAIR,
                "certificates": [{"cert": "/b.pem", "names": ["B.test"]}],
                "client_ca": "/ca.pem",
                "handshake_timeout": "3s",
                "handshakes_per_address": 0,
                "http2": False,
            }
        },
        "a:443",
    )["a:443"].tls
    assert tls == ListenerTls(
        (FILES, CertificateFiles("/b.pem", "", ("b.test",))),
        client_ca="/ca.pem",
        client="required",
        http2=False,
        handshake_seconds=3.0,
        handshakes_per_address=0,
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("tls: {}", "no certificate; expected cert and key, certificates, or acme"),
        ("tls: {key: a}", "key is set without cert"),
        ("routes: [/, {host: a.test, tls: auto}]", ":2: routes.1.tls: auto needs a listener"),
        ("tls: {acme: {domains: '*.a.test'}}", "is a wildcard, which needs validation by DNS"),
        ("tls: {cert: a, client: optional}", "client: optional needs client_ca"),
        ("tls: {cert: a, min_version: '1.1'}", "'1.1' is not valid"),
        ("tls: {cert: a, handshake_timeout: 0s}", "is not valid"),
        ("listen: {address: 'a:80', redirect: http}", "'http' is not valid"),
        ("listen: {address: 'a:80', redirect: https, tls: {cert: a}}", "redirect: https is for"),
        ("listen: {address: 'a:80', nonsense: 1}", "unknown setting"),
        ("listen: [{tls: {cert: a}}]", "is not valid"),
        (
            "listen: [{address: 'a:80', mode: '0600'}]\nlisteners: {'a:80': {paths: strict}}",
            "listen and listeners both have settings of a:80",
        ),
    ],
)
def test_mistakes(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "front.yml"
    file.write_text(f"to: 127.0.0.1:80\n{text}\n")
    with pytest.raises(SpecError) as raised:
        read_settings(str(file), {})
    assert problem in str(raised.value)


def test_files_are_relative_to_the_settings(tmp_path: Path) -> None:
    file = tmp_path / "front.yml"
    file.write_text(
        "to: 127.0.0.1:80\ntls: {cert: a.pem, key: sub/a.key}\n"
        "listen:\n- 'b:443'\n"
        "- {address: 'a:443', tls: {certificates: {cert: /abs.pem}, client_ca: ca.pem}}\n"
    )
    settings = read_settings(str(file), {})
    assert settings.listen == ("b:443", "a:443")
    first, second = build_listeners(settings, settings.listen)
    assert first.tls == ListenerTls(
        (CertificateFiles(f"{tmp_path}/a.pem", f"{tmp_path}/sub/a.key"),)
    )
    assert second.tls is not None
    assert second.tls.certificates == (CertificateFiles("/abs.pem"),)
    assert second.tls.client_ca == f"{tmp_path}/ca.pem"


def test_problems_of_files_are_found(tmp_path: Path) -> None:
    issued = Authority(tmp_path).issue("shop")
    settings = ProxySettings.model_validate({"tls": {"cert": "shop.pem", "key": "shop.key"}})
    settings = resolve_files(settings, tmp_path)
    assert find_problem(settings, ["a:443"]) is None
    Path(issued.key).unlink()
    assert find_problem(settings, ["a:443"]) == (
        f"a:443: tls: {issued.key} cannot be read: No such file or directory"
    )


def test_a_redirect_needs_a_target(tmp_path: Path) -> None:
    issued = Authority(tmp_path).issue("shop")

    def found(redirect: str, **more: object) -> str | None:
        given = {"listeners": {"a:80": {"redirect": redirect}}, **more}
        return find_problem(ProxySettings.model_validate(given), ["a:80", "a:443"])

    assert found("https") == (
        "a:80: redirect: https has no target, because no address has tls; if another server has "
        "it, name its port: redirect: https:443"
    )
    assert found("https:443") is None
    assert found("https", tls={"cert": issued.cert, "key": issued.key}) is None
    assert found("https", tls={"acme": {"domains": "a.test"}}) is None
