"""The settings of the API's TCP address, and its TLS. Used by `server`, `meshd.daemon.main` and
`meshd up`."""

import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from proxy.ipc import address as addresses


class ServeError(Exception):
    """An address is in use or cannot be bound; the text names it and says what to do."""


@dataclass(frozen=True, slots=True)
class TcpSettings:
    """Where the API is served over TCP.

    - `address`: `HOST:PORT`; port 0 picks a free port.
    - `certificate`, `key`: PEM files; `key` empty: in the file of the certificate.
    - `client_ca`: PEM file with the authorities of client certificates; empty: tokens only.
    - `names`: host names of the address in addition to those of the certificate.
    - `option`: the option that sets the address, for messages.
    """

    address: str
    certificate: str = ""
    key: str = ""
    client_ca: str = ""
    names: tuple[str, ...] = ()
    option: str = "--api"


def find_tcp_problem(settings: TcpSettings) -> str | None:
    """Return why the settings are not valid; None if they are."""
    try:
        parsed = addresses.parse(settings.address)
        if parsed.path:
            return f"{settings.option} {settings.address}: expected HOST:PORT"
        _, where = addresses.resolve(parsed)
    except (OSError, addresses.BadAddress) as error:
        return f"{settings.option} {settings.address}: {error}"
    if not settings.certificate:
        if settings.key or settings.client_ca:
            return "--api-key and --api-client-ca need --api-cert"
        if not ipaddress.ip_address(where[0]).is_loopback:
            return (
                f"{settings.option} {settings.address}: tokens must not be sent in clear text; set "
                "--api-cert and --api-key, or use a loopback address such as 127.0.0.1:9901"
            )
    return None


def load_tls(settings: TcpSettings) -> tuple[ssl.SSLContext | None, frozenset[str]]:
    """Return the TLS context (None on a loopback address without a certificate), and the names of
    this server. Raises ServeError."""
    problem = find_tcp_problem(settings)
    if problem is not None:
        raise ServeError(problem)
    names = frozenset(settings.names)
    if not settings.certificate:
        return None, names
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(settings.certificate, settings.key or None)
        if settings.client_ca:
            context.load_verify_locations(settings.client_ca)
            context.verify_mode = ssl.CERT_OPTIONAL
        return context, names | _names_of(Path(settings.certificate))
    except (OSError, ValueError) as error:
        raise ServeError(f"the certificate of {settings.option} cannot be used: {error}") from error


def _names_of(certificate: Path) -> frozenset[str]:
    """Return the host names and addresses of a certificate. Raises OSError, ValueError."""
    found = x509.load_pem_x509_certificate(certificate.read_bytes())
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    listed = names.get_values_for_type(x509.IPAddress)
    return frozenset(names.get_values_for_type(x509.DNSName)) | {str(each) for each in listed}
