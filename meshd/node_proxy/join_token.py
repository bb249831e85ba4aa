"""Join tokens as text: what a new node needs to reach the mesh, and to be let in once.

Written by `server`, read by `enrollment`. A token holds the certificate of the mesh's authority,
and a certificate with its key that is valid for a short time. So the port for nodes requires a
certificate of everyone, and the control process stores nothing secret about a token.
"""

import base64
import binascii
from typing import Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from meshd.model.base import Value

PREFIX: Final = "meshd-join-1-"
"""Begins each token, with the version of its format."""
_CURVE: Final = ec.SECP256R1()


class BadToken(Exception):
    """A text is not a join token; the error says what to do."""


class JoinToken(Value, frozen=True):
    """What a token holds, as PEM: certificate of the authority, own certificate, own key."""

    authority: str
    certificate: str
    key: str


class _Packed(Value, frozen=True, array_like=True):
    """A token in few bytes: certificates as DER, and the secret number of the key."""

    authority: bytes
    certificate: bytes
    key: bytes


def to_text(token: JoinToken) -> str:
    """Return a token as one line of letters, digits, - and _."""
    key = load_pem_private_key(token.key.encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    number = key.private_numbers().private_value
    packed = _Packed(_to_der(token.authority), _to_der(token.certificate), number.to_bytes(32))
    data = base64.urlsafe_b64encode(msgspec.msgpack.encode(packed))
    return PREFIX + data.decode().rstrip("=")


def read_text(text: str) -> JoinToken:
    """Return the token that a text holds. Raises BadToken, which never shows the text."""
    text = text.strip()
    if not text.startswith(PREFIX):
        raise BadToken("the token is not valid; make one with `meshd node token`")
    data = text.removeprefix(PREFIX)
    try:
        raw = base64.urlsafe_b64decode(data + "=" * (-len(data) % 4))
        packed = msgspec.msgpack.decode(raw, type=_Packed)
        key = ec.derive_private_key(int.from_bytes(packed.key), _CURVE)
        return JoinToken(_to_pem(packed.authority), _to_pem(packed.certificate), _key_pem(key))
    except (binascii.Error, msgspec.MsgspecError, ValueError) as error:
        raise BadToken("the token is not complete; copy all of it") from error


def _to_der(pem: str) -> bytes:
    return x509.load_pem_x509_certificate(pem.encode()).public_bytes(Encoding.DER)


def _to_pem(der: bytes) -> str:
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
