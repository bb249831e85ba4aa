"""The mesh's own certificate authority: its key, and the certificates that it issues.

Made by `meshd.daemon.wiring` from the keys that `meshd.node_proxy.table` keeps; `server` issues
certificates of nodes with it. Keys are ECDSA P-256. It trusts nothing in a certificate request but
the public key: the names come from the caller.
"""

import datetime
import math
import os
import re
import ssl
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID as EKU

from meshd.model.errors import BadAuthority
from meshd.node_proxy.identity import CONTROL_NAME, PeerIdentity, PeerRole, to_dns_names
from proxy.peer.protocol import read_name

AUTHORITY_LIFE: Final = 10 * 365 * 86400.0
"""Seconds. A new authority means that all nodes join again, so it outlasts the hardware."""
NODE_LIFE: Final = 7 * 86400.0
"""Seconds: a node that was off for a weekend need not join again."""
RENEW_AFTER: Final = 86400.0
"""Seconds after which a certificate is renewed: six days are left to repair what prevents it."""
CLOCK_SKEW: Final = 300.0
"""Seconds by which the clocks of nodes may differ: certificates are valid from that much before."""
_CURVE: Final = ec.SECP256R1()
_PEM_BLOCK: Final = "-----BEGIN %s-----.*?-----END [A-Z ]+-----"


class BadRequest(Exception):
    """A certificate request cannot be used; the text says why."""


class MeshAuthority:
    """The authority. `certificate`: its own one, as PEM; `key`: its private key, as PEM."""

    def __init__(self, key: str, certificate: str) -> None:
        self.certificate = certificate
        self._key = load_pem_private_key(key.encode(), None)
        self._issuer = x509.load_pem_x509_certificate(certificate.encode())

    def issue(self, identity: PeerIdentity, request: str, now: float) -> str:
        """Return the certificate of a node for the key of a certificate request, as PEM. Raises
        BadRequest."""
        try:
            found = x509.load_pem_x509_csr(request.encode())
            public = found.public_key()
        except ValueError as error:
            raise BadRequest(f"the certificate request cannot be read: {error}") from error
        if not isinstance(public, ec.EllipticCurvePublicKey) or public.curve.name != _CURVE.name:
            raise BadRequest("the certificate request has no ECDSA P-256 key")
        if not found.is_signature_valid:
            raise BadRequest("the certificate request is not signed by its key")
        usages = (EKU.CLIENT_AUTH, EKU.SERVER_AUTH)  # its proxy accepts those of other nodes
        return self._sign(public, to_dns_names(identity), now, NODE_LIFE, usages)

    def issue_join(self, token: str, now: float, seconds: float) -> tuple[str, str]:
        """Return the private key and the certificate of a join token, as PEM."""
        key = ec.generate_private_key(_CURVE)
        names = to_dns_names(PeerIdentity(PeerRole.JOIN, token))
        certificate = self._sign(key.public_key(), names, now, seconds, (EKU.CLIENT_AUTH,))
        return _to_pem(key), certificate

    def server_context(self, folder: Path, now: float) -> ssl.SSLContext:
        """Return TLS settings of the control process: TLS 1.3, and a certificate of this mesh is
        required. Raises OSError."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.num_tickets = 0  # a resumed session would outlast its certificate
        context.load_verify_locations(cadata=self.certificate)
        self.renew_server(context, folder, now)
        return context

    def renew_server(self, context: ssl.SSLContext, folder: Path, now: float) -> None:
        """Give the control process a new key and certificate; open connections stay. Raises
        OSError."""
        key = ec.generate_private_key(_CURVE)
        names, usages = (CONTROL_NAME,), (EKU.SERVER_AUTH,)
        certificate = self._sign(key.public_key(), names, now, NODE_LIFE, usages)
        load_chain(context, _to_pem(key) + certificate, folder)

    def _sign(
        self,
        public: ec.EllipticCurvePublicKey,
        names: Sequence[str],
        now: float,
        seconds: float,
        usages: Sequence[x509.ObjectIdentifier],
    ) -> str:
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self._issuer.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(_to_time(now - CLOCK_SKEW))
            .not_valid_after(_to_time(now + seconds))
            .add_extension(
                x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=True
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
                    self._issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
                ),
                critical=False,
            )
        )
        assert isinstance(self._key, ec.EllipticCurvePrivateKey)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def make_authority(now: float) -> tuple[str, str]:
    """Return the private key and the certificate of a new authority, as PEM."""
    key = ec.generate_private_key(_CURVE)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "meshd")])
    usage = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, key_cert_sign=True, crl_sign=True,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_to_time(now - CLOCK_SKEW))
        .not_valid_after(_to_time(now + AUTHORITY_LIFE))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _to_pem(key), certificate.public_bytes(Encoding.PEM).decode()


def read_authority_file(path: str) -> tuple[str, str]:
    """Return the private key and the certificate of an authority in a file, as PEM: what
    `make_authority` has made. Raises BadAuthority."""
    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise BadAuthority(f"{path} cannot be read: {reason}") from error
    found = {
        kind: next(iter(re.findall(_PEM_BLOCK % kind, text, re.DOTALL)), "")
        for kind in ("PRIVATE KEY", "CERTIFICATE")
    }
    try:
        key = load_pem_private_key(found["PRIVATE KEY"].encode(), None)
        certificate = x509.load_pem_x509_certificate(found["CERTIFICATE"].encode())
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (ValueError, TypeError, x509.ExtensionNotFound) as error:
        raise BadAuthority(
            f"{path} has no key and certificate of an authority; `meshd node authority` makes them"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not constraints.ca:
        raise BadAuthority(f"{path} is not an authority with an elliptic-curve key")
    if key.public_key() != certificate.public_key():
        raise BadAuthority(f"the key in {path} is not that of the certificate")
    return found["PRIVATE KEY"] + "\n", found["CERTIFICATE"] + "\n"


def new_request() -> tuple[str, str]:
    """Return a new private key and its certificate request, as PEM."""
    key = ec.generate_private_key(_CURVE)
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    request = builder.sign(key, hashes.SHA256())
    return _to_pem(key), request.public_bytes(Encoding.PEM).decode()


def read_validity(certificate: str) -> tuple[float, float]:
    """Return when a certificate (PEM) was issued, and when it ends, in Unix time. Raises
    ValueError."""
    found = x509.load_pem_x509_certificate(certificate.encode())
    issued = found.not_valid_before_utc.timestamp() + CLOCK_SKEW
    return issued, found.not_valid_after_utc.timestamp()


def earliest_start(joined: float) -> int:
    """Return the earliest start of validity of certificates (Unix time) of a node that joined then:
    they were issued later. An earlier one is that of a node of the same name that was removed."""
    return math.floor(joined - CLOCK_SKEW)


def read_peer_name(certificate: str) -> str:
    """Return the node whose proxy a certificate (PEM) is for; empty for none. Raises ValueError."""
    found = x509.load_pem_x509_certificate(certificate.encode())
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ""
    return read_name(tuple(names.get_values_for_type(x509.DNSName)))


def client_context(authority: str, chain: str, folder: Path) -> ssl.SSLContext:
    """Return TLS settings of a node: TLS 1.3, and the peer must be a control process of the mesh
    with this authority (PEM). `chain`: own key and certificate, as PEM. Raises OSError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=authority)
    load_chain(context, chain, folder)
    return context


def load_chain(context: ssl.SSLContext, chain: str, folder: Path) -> None:
    """Load a key and certificate from memory. Python's ssl reads them from a file only: a
    temporary one in `folder`, readable by its owner. Raises OSError."""
    descriptor, path = tempfile.mkstemp(dir=folder, prefix=".chain-")  # mode 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(chain)
        context.load_cert_chain(path)
    finally:
        os.unlink(path)


def _to_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _to_time(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)
