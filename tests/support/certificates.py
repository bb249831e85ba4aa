"""Certificates for tests: an authority, and certificates that it issues, as PEM files."""

import datetime
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
    """The files of a certificate with its chain, and of its key."""

    cert: str
    key: str
    certificate: x509.Certificate

    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)


class Authority:
    """A certificate authority with its files in `folder`; `ca` is the path of its certificate."""

    def __init__(self, folder: Path, name: str = "Test CA") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._serial = 0
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(self._name)
            .issuer_name(self._name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + 3650 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        folder.mkdir(parents=True, exist_ok=True)
        self.ca = str(folder / f"{name.replace(' ', '-').lower()}.pem")
        Path(self.ca).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self,
        *names: str,
        subject: x509.Name | None = None,
        uri: str = "",
        days: float = 30.0,
        file: str = "",
    ) -> Issued:
        """Issue a certificate for host names, valid until `days` from now; `file` names its files,
        which are replaced."""
        self._serial += 1
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        common = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0] if names else "x")])
        alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
        if uri:
            alternatives.append(x509.UniformResourceIdentifier(uri))
        end = now + days * DAY
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject or common)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(min(now, end) - DAY)
            .not_valid_after(end)
        )
        if alternatives:
            builder = builder.add_extension(
                x509.SubjectAlternativeName(alternatives), critical=False
            )
        certificate = builder.sign(self._key, hashes.SHA256())
        stem = self._folder / (file or f"issued-{self._serial}")
        # The key first: until the certificate is there too, the pair does not match.
        made = Issued(f"{stem}.crt", f"{stem}.key", certificate)
        Path(made.key).write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        Path(made.cert).write_bytes(made.pem())
        return made

    def client_context(self, identity: Issued | None = None) -> ssl.SSLContext:
        """Return a context that trusts this authority, with a client certificate or without."""
        context = ssl.create_default_context(cafile=self.ca)
        if identity is not None:
            context.load_cert_chain(identity.cert, identity.key)
        return context
