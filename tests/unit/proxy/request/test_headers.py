"""The field X-Forwarded-Client-Cert, and its values."""

from proxy.request.headers import certificate_line
from proxy.tls.session_info import PeerCertificate, TlsSession


def test_without_a_certificate_there_is_no_line() -> None:
    for tls in (None, TlsSession()):
        assert certificate_line(tls) == b""


def test_the_line_has_the_form_of_envoy() -> None:
    client = PeerCertificate("ab12", "CN=ann,O=Shop", ("spiffe://shop/ann?a=b",), ("a.test", "b"))
    tls = TlsSession(client=client)
    assert certificate_line(tls) == (
        b'X-Forwarded-Client-Cert: Hash=ab12;Subject="CN=ann,O=Shop";'
        b"URI=spiffe://shop/ann?a=b;DNS=a.test;DNS=b\r\n"
    )


def test_values_cannot_end_an_element_or_the_line() -> None:
    client = PeerCertificate("ab12", "", ('x;Subject="CN=root",\\\r\nX: y',), ("ü,",))
    line = certificate_line(TlsSession(client=client))
    assert line == (
        b'X-Forwarded-Client-Cert: Hash=ab12;Subject="";'
        b"URI=x%3BSubject=%22CN=root%22%2C%5C%0D%0AX:%20y;DNS=%C3%BC%2C\r\n"
    )
