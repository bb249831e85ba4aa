"""What a handshake says about the client."""

import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from proxy.tls.session_info import describe_session, format_subject
from proxy.tls.transport import object_inside
from tests.support.certificate_authority import Authority, server_context


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> ssl.SSLObject:
    """Return the server's side of a finished handshake, as `Handshake` has it."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = server.wrap_bio(to_server, to_client, server_side=True)
    other = client.wrap_bio(to_client, to_server, server_hostname="shop.test")
    for _ in range(4):
        for side in (other, one):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return object_inside(one)


def test_a_handshake_without_a_client_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = server_context(authority.issue("shop.test"))
    server.set_alpn_protocols(["h2", "http/1.1"])
    client = authority.client_context()
    client.set_alpn_protocols(["http/1.1"])
    session = describe_session(shake_hands(server, client), certificates=False)
    assert session.version == "TLSv1.3"
    assert session.cipher.startswith("TLS_")
    assert session.protocol == "http/1.1"
    assert not session.resumed
    assert session.client is None


@pytest.mark.parametrize("mode", [ssl.CERT_OPTIONAL, ssl.CERT_REQUIRED])
def test_a_client_certificate_is_described(tmp_path: Path, mode: ssl.VerifyMode) -> None:
    authority = Authority(tmp_path)
    server = server_context(authority.issue("shop.test"))
    server.load_verify_locations(authority.ca)
    server.verify_mode = mode
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Bikes, Inc"),
            x509.NameAttribute(NameOID.COMMON_NAME, "courier"),
        ]
    )
    names = ("a.test", "b.test", "spiffe://x/courier")
    issued = authority.issue("courier", *names, subject=subject)
    connection = shake_hands(server, authority.client_context(issued))
    found = describe_session(connection, certificates=True).client
    assert found is not None
    assert found.subject == "CN=courier,O=Bikes\\, Inc"
    assert found.digest == issued.digest
    assert found.uris == ("spiffe://x/courier",)
    assert found.names == ("a.test", "b.test")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "CN=plain"),
        ('a"b;c', 'CN=a\\"b\\;c'),
        (" a ", "CN=\\ a\\ "),
        ("#1", "CN=\\#1"),
        ("a\r\nX: y", "CN=a\\0D\\0AX: y"),
        ("ünï", "CN=ünï"),
    ],
)
def test_special_characters_of_a_subject_are_escaped(value: str, text: str) -> None:
    assert format_subject(((("commonName", value),),)) == text


def test_a_subject_keeps_groups_and_unknown_attributes() -> None:
    parts = ((("countryName", "DE"),), (("commonName", "x"), ("emailAddress", "x@y")))
    assert format_subject(parts) == "CN=x+emailAddress=x@y,C=DE"
