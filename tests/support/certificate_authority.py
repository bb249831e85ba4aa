"""A certificate authority for tests: issues certificates with any names and dates."""

import base64
import datetime
import hashlib
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Issued:
    """Files of a certificate and of its key."""

    cert: str
    key: str

    @property
    def digest(self) -> str:
        """SHA-256 of the certificate."""
        found = x509.load_pem_x509_certificate(Path(self.cert).read_bytes())
        return found.fingerprint(hashes.SHA256()).hex()

    @property
    def key_digest(self) -> str:
        """SHA-256 of the public key in base64, as Chromium takes it."""
        found = x509.load_pem_x509_certificate(Path(self.cert).read_bytes()).public_key()
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        encoded = found.public_bytes(serialization.Encoding.DER, form)
        return base64.b64encode(hashlib.sha256(encoded).digest()).decode()


class Authority:
    """A CA whose own certificate is in the file `ca`."""

    def __init__(self, folder: Path, name: str = "Test CA") -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        found = self._build(self._name, self._key.public_key(), (), 0, 30, is_ca=True)
        path = folder / f"{name.replace(' ', '-')}.pem"
        path.write_bytes(found)
        self.ca = str(path)

    def private_key(self) -> bytes:
        """Return the key of the CA, with which its own certificate is that of a server."""
        return _encode_key(self._key)

    def client_context(self, identity: Issued | None = None) -> ssl.SSLContext:
        """Return the context of a client that trusts this authority, with its own certificate or
        without."""
        context = ssl.create_default_context(cafile=self.ca)
        if identity is not None:
            context.load_cert_chain(identity.cert, identity.key)
        return context

    def issue(
        self,
        name: str,
        *names: str,
        since: int = 0,
        until: int = 30,
        subject: x509.Name | None = None,
    ) -> Issued:
        """Issue a certificate for `names`, by default for `name`. It is valid from `since` to
        `until`, in days from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = subject or x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        found = self._build(subject, key.public_key(), names or (name,), since, until)
        cert_path, key_path = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        cert_path.write_bytes(found)
        key_path.write_bytes(_encode_key(key))
        return Issued(str(cert_path), str(key_path))

    def _build(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
        names: tuple[str, ...],
        since: int,
        until: int,
        *,
        is_ca: bool = False,
    ) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + since * DAY - datetime.timedelta(minutes=5))
            .not_valid_after(now + until * DAY)
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        )
        if names:
            alternative = x509.SubjectAlternativeName([_name_of(each) for each in names])
            builder = builder.add_extension(alternative, critical=False)
        made = builder.sign(self._key, hashes.SHA256())
        return made.public_bytes(serialization.Encoding.PEM)


def _encode_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _name_of(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.UniformResourceIdentifier(text) if ":" in text else x509.DNSName(text)


def server_context(issued: Issued, client_ca: str = "") -> ssl.SSLContext:
    """Return the context of a server with this certificate, which asks its clients for one by
    `client_ca` if that is set."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.cert, issued.key)
    if client_ca:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
