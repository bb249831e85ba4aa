"""What a finished TLS handshake says about the client and the connection.

`handshake` reads it once for each connection; the request path passes it on to services, spans and
the access log.
"""

import functools
import hashlib
import ssl
from dataclasses import dataclass
from typing import Any, Final

_ATTRIBUTE_NAMES: Final = {
    "commonName": "CN",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "streetAddress": "STREET",
    "domainComponent": "DC",
    "userId": "UID",
}
"""Short names of the attributes of a subject (RFC 4514, section 3)."""
_SPECIAL: Final = '"+,;<>\\'
"""Characters with a backslash before them in a subject (RFC 4514, section 2.4)."""


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """A client certificate that was verified.

    - `digest`: SHA-256 of the certificate, in hexadecimal
    - `subject`: as RFC 4514 writes it, the most specific part first
    - `uris`, `names`: URIs and host names of the alternative names
    """

    digest: str
    subject: str
    uris: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TlsSession:
    """The outcome of a handshake.

    - `version`, `cipher`: as OpenSSL names them, e.g. `TLSv1.3`
    - `protocol`: the protocol that ALPN chose; empty for none
    - `resumed`: whether the handshake continued an earlier session
    - `client`: the client's certificate, or None
    """

    version: str = ""
    cipher: str = ""
    protocol: str = ""
    resumed: bool = False
    client: PeerCertificate | None = None


def describe_session(connection: ssl.SSLObject, *, certificates: bool) -> TlsSession:
    """Return the outcome of a finished handshake. `certificates`: whether clients are asked for
    theirs."""
    cipher = connection.cipher()
    return _make_session(
        connection.version() or "",
        cipher[0] if cipher else "",
        connection.selected_alpn_protocol() or "",
        bool(connection.session_reused),
        _describe_certificate(connection) if certificates else None,
    )


@functools.lru_cache(64)
def _make_session(
    version: str, cipher: str, protocol: str, resumed: bool, client: PeerCertificate | None
) -> TlsSession:
    """Return a session; most connections have the same few."""
    return TlsSession(version, cipher, protocol, resumed, client)


def _describe_certificate(connection: ssl.SSLObject) -> PeerCertificate | None:
    # Of an unverified certificate OpenSSL has ended the handshake.
    encoded = connection.getpeercert(True)
    if not encoded:
        return None
    fields: dict[str, Any] = connection.getpeercert() or {}
    alternatives = fields.get("subjectAltName", ())
    return PeerCertificate(
        digest=hashlib.sha256(encoded).hexdigest(),
        subject=format_subject(fields.get("subject", ())),
        uris=tuple(value for kind, value in alternatives if kind == "URI"),
        names=tuple(value for kind, value in alternatives if kind == "DNS"),
    )


def format_subject(parts: tuple[tuple[tuple[str, str], ...], ...]) -> str:
    """Return a subject, as `ssl` has it, in the form of RFC 4514."""
    return ",".join(
        "+".join(f"{_ATTRIBUTE_NAMES.get(name, name)}={_escape(value)}" for name, value in part)
        for part in reversed(parts)
    )


def _escape(value: str) -> str:
    escaped = "".join(
        f"\\{each}" if each in _SPECIAL else f"\\{ord(each):02X}" if each < " " else each
        for each in value
    )
    if escaped[:1] in ("#", " "):
        escaped = "\\" + escaped
    if len(escaped) > 1 and escaped.endswith(" "):
        escaped = escaped[:-1] + "\\ "
    return escaped
