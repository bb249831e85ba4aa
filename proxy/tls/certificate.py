"""Reads certificates and keys from PEM files, and says clearly what is wrong with them.

`proxy.supervisor` reads the files of listeners with it; `meshd` checks settings before it starts
anything, and reports when certificates expire.
"""

import datetime
import os
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from proxy.wire.snapshot import CertificateFiles, ListenerTls

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

MAX_FILE: Final = 1024 * 1024
"""Bytes of a file; a chain with its key has a few KiB."""


class UnusableCertificate(Exception):
    """A certificate or key cannot be used; the text names the file and says why."""


@dataclass(frozen=True, slots=True)
class CertificateInfo:
    """What a certificate says.

    - `names`: the host names that it is for, in lower case
    - `begins`, `expires`: its validity, in Unix time; with a chain the shortest one
    """

    names: tuple[str, ...]
    begins: float
    expires: float


def read_file(path: str) -> str:
    """Return the content of a PEM file. Raises UnusableCertificate."""
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_FILE + 1)
        if len(content) > MAX_FILE:
            raise UnusableCertificate(f"{path} is too large; expected a PEM file")
        return content.decode()
    except OSError as error:
        raise UnusableCertificate(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UnusableCertificate(f"{path} is not a PEM file") from error


def load(files: CertificateFiles, now: float) -> CertificateFiles:
    """Return the files with their content and the host names of the certificate.

    Raises UnusableCertificate if they cannot be read, do not belong together, or the certificate or
    one of its chain is not valid at `now`, in Unix time.
    """
    cert = read_file(files.cert)
    key = read_file(files.key) if files.key else ""
    info = describe(files.cert, cert)
    if info.expires <= now:
        raise UnusableCertificate(f"{files.cert}: {_expired(files.cert, cert, now)}")
    if info.begins > now:
        raise UnusableCertificate(f"{files.cert} is not valid before {_format_time(info.begins)}")
    check_pair(files, cert, key)
    return CertificateFiles(
        cert=files.cert,
        key=files.key,
        names=files.names or info.names,
        cert_pem=cert,
        key_pem=key,
    )


def load_listener(tls: ListenerTls, now: float) -> ListenerTls:
    """Return the settings of a listener with the content of all files.

    Raises UnusableCertificate.
    """
    client_ca = ""
    if tls.client_ca:
        client_ca = read_file(tls.client_ca)
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=client_ca)
        except (ssl.SSLError, ValueError) as error:
            raise UnusableCertificate(
                f"{tls.client_ca} has no certificate in PEM format"
            ) from error
    return ListenerTls(
        certificates=tuple(load(each, now) for each in tls.certificates),
        client_ca=tls.client_ca,
        client_ca_pem=client_ca,
        client=tls.client,
        minimum=tls.minimum,
        http2=tls.http2,
        hsts=tls.hsts,
        handshake_seconds=tls.handshake_seconds,
        handshakes_per_address=tls.handshakes_per_address,
    )


def describe(path: str, pem: str) -> CertificateInfo:
    """Return what the certificates in `pem`, the content of the file `path`, say. Raises
    UnusableCertificate."""
    chain = _parse(path, pem)
    return CertificateInfo(
        names=_names(chain[0]),
        begins=max(each.not_valid_before_utc.timestamp() for each in chain),
        expires=min(each.not_valid_after_utc.timestamp() for each in chain),
    )


def check_pair(files: CertificateFiles, cert: str, key: str) -> None:
    """Check that a certificate and a key belong together. Raises UnusableCertificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    where = files.key or files.cert
    asked = False

    def refuse_password() -> bytes:
        nonlocal asked
        asked = True
        return b""

    try:
        load_chain(context, cert, key, refuse_password)
    except (ssl.SSLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", "") or ""
        if asked:
            text = f"{where} is encrypted; expected a private key without a password"
        elif "MISMATCH" in reason:
            text = f"{where} is not the key of the certificate in {files.cert}"
        elif "TOO_SMALL" in reason or "TOO_WEAK" in reason:
            text = f"{files.cert} is too weak: {reason.lower().replace('_', ' ')}"
        else:
            text = f"{where} has no private key in PEM format"
        raise UnusableCertificate(text) from error


def load_chain(
    context: ssl.SSLContext, cert: str, key: str, password: "ssl._PasswordType | None" = None
) -> None:
    """Load a certificate, its chain and its key from PEM texts, which `ssl` takes from files only.
    An empty `key` is part of `cert`. Raises the errors of `SSLContext.load_cert_chain`."""
    with os.fdopen(os.memfd_create("certificate"), "w+b") as file:
        file.write(f"{cert}\n{key}".encode())
        file.flush()
        context.load_cert_chain(f"/dev/fd/{file.fileno()}", None, password)


def _parse(path: str, pem: str) -> "list[Certificate]":
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(pem.encode())
    except ValueError as error:
        raise UnusableCertificate(f"{path} has no certificate in PEM format") from error


def _names(certificate: "Certificate") -> tuple[str, ...]:
    """The host names of a certificate; its common name if it has no alternative names."""
    from cryptography import x509

    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        common = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        return tuple(str(each.value).lower() for each in common)
    return tuple(name.lower() for name in found.get_values_for_type(x509.DNSName))


def _expired(path: str, pem: str, now: float) -> str:
    """Which certificate of a chain has expired."""
    for index, each in enumerate(_parse(path, pem)):
        if each.not_valid_after_utc.timestamp() <= now:
            when = _format_time(each.not_valid_after_utc.timestamp())
            if not index:
                return f"the certificate expired on {when}"
            return f"the chain's certificate of {each.subject.rfc4514_string()} expired on {when}"
    raise AssertionError


def _format_time(seconds: float) -> str:
    return f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%Y-%m-%d %H:%M} UTC"
