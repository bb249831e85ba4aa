"""Private keys, certificate requests, and what a certificate says.

Used by `store` and `authority`. Keys are ECDSA P-256, which every client supports and which costs
a server least.
"""

import base64
import datetime
import hashlib
from typing import Final

from acme.crypto_util import make_csr
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from meshd.certificates.values import ChallengeAnswer, HeldCertificate

_ACME_IDENTIFIER: Final = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")
"""The extension id-pe-acmeIdentifier (RFC 8737, 3)."""
_OCTET_STRING_OF_32: Final = b"\x04\x20"
"""DER: the tag and the length of a string of 32 bytes."""
_CHALLENGE_LIFE: Final = datetime.timedelta(days=7)
"""Lifetime of the certificate that answers a challenge; no authority checks it."""


class InvalidCertificate(Exception):
    """A file is not a certificate with its key; the text says why."""


def new_key() -> str:
    """Return a new private key as PEM."""
    return _pem(ec.generate_private_key(ec.SECP256R1()))


def _pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def request_for(key: str, name: str) -> x509.CertificateSigningRequest:
    """Return the certificate request of a key for one name."""
    return x509.load_pem_x509_csr(make_csr(key.encode(), [name]))


def read_certificate(pem: bytes, path: str) -> HeldCertificate:
    """Return what the first certificate in `pem` says. Raises InvalidCertificate."""
    try:
        certificate = x509.load_pem_x509_certificates(pem)[0]
    except ValueError as error:
        raise InvalidCertificate(f"{path} has no certificate: {error}") from error
    return HeldCertificate(
        names=_names(certificate),
        not_before=certificate.not_valid_before_utc.timestamp(),
        not_after=certificate.not_valid_after_utc.timestamp(),
        path=path,
        version=hashlib.sha256(pem).hexdigest()[:16],
        serial=certificate.serial_number,
        renewal_id=_renewal_id(certificate),
    )


def check_issued(key: str, chain: str, name: str) -> None:
    """Raise InvalidCertificate unless the chain is for this key and this name."""
    try:
        certificate = x509.load_pem_x509_certificates(chain.encode())[0]
    except ValueError as error:
        raise InvalidCertificate(f"the authority sent no certificate: {error}") from error
    try:
        expected = load_pem_private_key(key.encode(), None).public_key()
    except (TypeError, ValueError) as error:
        raise InvalidCertificate(f"the key of {name} cannot be read: {error}") from error
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    if certificate.public_key().public_bytes(*form) != expected.public_bytes(*form):
        raise InvalidCertificate("the authority sent a certificate of another key")
    if name not in _names(certificate):
        raise InvalidCertificate(f"the authority sent a certificate that is not for {name}")


def answer_certificate(answer: ChallengeAnswer) -> str:
    """Return the self-signed certificate that answers a challenge by TLS (RFC 8737), with its key,
    as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    digest = hashlib.sha256(answer.key_authorization.encode()).digest()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ACME challenge")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + _CHALLENGE_LIFE)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(answer.name)]), critical=False)
        .add_extension(
            x509.UnrecognizedExtension(_ACME_IDENTIFIER, _OCTET_STRING_OF_32 + digest),
            critical=True,
        )
        .sign(key, hashes.SHA256())
    )
    return _pem(key) + certificate.public_bytes(Encoding.PEM).decode()


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    return tuple(name.lower() for name in found.value.get_values_for_type(x509.DNSName))


def _renewal_id(certificate: x509.Certificate) -> str:
    """Return the certificate's identifier of RFC 9773, 4.1: key identifier of the authority, and
    serial number as in DER; empty without a key identifier."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    except x509.ExtensionNotFound:
        return ""
    if not found.value.key_identifier:
        return ""
    serial = certificate.serial_number
    # DER integers are signed: a number with its highest bit set has a zero byte in front.
    as_der = serial.to_bytes(serial.bit_length() // 8 + 1, "big")
    return f"{_base64url(found.value.key_identifier)}.{_base64url(as_der)}"


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
