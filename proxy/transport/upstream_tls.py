"""TLS on connections to endpoints: contexts, remembered sessions, and what went wrong.

`proxy.state.endpoint_state` has a `TlsEndpoint` for each endpoint with TLS, and
`proxy.request.connection_pool` dials with it. The probes of `meshd.discovery` and the checks of
`meshd` at load use `TlsClient`. Certificates are verified unless the settings say otherwise, and
files are read again when they change.
"""

import os
import ssl
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Final, cast

from proxy.wire.snapshot import UpstreamTls

HANDSHAKE_SECONDS: Final = 10.0
"""Seconds for a handshake, where the connect timeout of the service is not shorter."""
FILE_CHECK: Final = 5.0
"""Seconds between two looks whether the files have changed."""
MAX_CLIENTS: Final = 256
"""Settings whose contexts are kept: more than a mesh has services with TLS to their endpoints."""
HTTP1_ALPN: Final = ("http/1.1",)
"""Protocols that are offered by ALPN, the preferred one first, unless HTTP/2 is spoken."""

_VERIFY_ERRORS: Final = {
    9: "its certificate is not valid yet",
    10: "its certificate has expired",
    18: "its certificate is self-signed, and not among the trusted ones",
    19: "its certificate is signed by an unknown CA",
    20: "its certificate is signed by an unknown CA",
    21: "its certificate is signed by an unknown CA",
    23: "its certificate was revoked",
    26: "its certificate is not meant for servers",
}
"""Texts for error codes of certificate verification (X509_V_ERR_* in openssl/x509_vfy.h)."""
_WRONG_NAME: Final = (62, 64)
"""The error codes for a certificate of another host and of another address."""
_REASONS: Final = {
    "WRONG_VERSION_NUMBER": "it does not speak TLS",
    "HTTP_REQUEST": "it does not speak TLS",
    "UNEXPECTED_EOF_WHILE_READING": "it ended the TLS handshake",
    "TLSV1_ALERT_PROTOCOL_VERSION": "it speaks no TLS version that is still safe",
    "UNSUPPORTED_PROTOCOL": "it speaks no TLS version that is still safe",
    "TLSV1_UNRECOGNIZED_NAME": "it has no certificate for the name that was asked for",
    "TLSV1_ALERT_UNRECOGNIZED_NAME": "it has no certificate for the name that was asked for",
}
"""Texts for errors of a handshake, by the name of their reason in OpenSSL."""
_CLIENT_REFUSED: Final = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it requires a client certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it does not accept the client certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the client certificate has expired",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it does not accept the client certificate",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "it refused the handshake; it may require a client "
    "certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not trust the CA of the client certificate",
    "TLSV1_ALERT_ACCESS_DENIED": "it does not accept the client certificate",
}
"""Texts for alerts with which a server refuses the certificate of the client. With TLS 1.3 they
arrive after the handshake, as the answer to the first request."""


class TlsFiles(Exception):
    """A file with a certificate or a key cannot be used; the text says which one and why."""


class TlsFailed(OSError):
    """A TLS connection could not be opened; the text says what was wrong."""


def describe_error(error: Exception, server_name: str) -> str:
    """Return what went wrong in a handshake with a server that should be `server_name`."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _WRONG_NAME:
            return f"its certificate is not for {server_name}"
        known = _VERIFY_ERRORS.get(error.verify_code)
        return known or f"its certificate is not valid: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        reason = getattr(error, "reason", None) or ""
        known = _REASONS.get(reason) or _CLIENT_REFUSED.get(reason)
        return known or f"the TLS handshake failed: {reason.replace('_', ' ').lower() or error}"
    return "it ended the TLS handshake"


def describe_refusal(error: Exception | None) -> str:
    """Return why the server refused this client after the handshake; empty for another error."""
    if not isinstance(error, ssl.SSLError):
        return ""
    return _CLIENT_REFUSED.get(getattr(error, "reason", None) or "", "")


def make_context(config: UpstreamTls, alpn: tuple[str, ...] = HTTP1_ALPN) -> ssl.SSLContext:
    """Return the context for connections with these settings, which offer `alpn`. Raises
    TlsFiles."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(list(alpn))
    if config.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif config.ca:
        _load_ca(context, config.ca)
    else:
        context.load_default_certs()
    if config.cert:
        _load_certificate(context, config.cert, config.key)
    return context


def _load_ca(context: ssl.SSLContext, ca: str) -> None:
    try:
        context.load_verify_locations(cafile=ca)
    except ssl.SSLError as error:
        raise TlsFiles(f"{ca} has no certificate in PEM format") from error
    except OSError as error:
        raise TlsFiles(f"{ca} cannot be read: {error.strerror}") from error


def _load_certificate(context: ssl.SSLContext, cert: str, key: str) -> None:
    for file in (cert, key or cert):
        # The error of the call below does not say which of the files it is about.
        try:
            with open(file, "rb"):
                pass
        except OSError as error:
            raise TlsFiles(f"{file} cannot be read: {error.strerror}") from error
    encrypted = False

    def password() -> bytes:
        nonlocal encrypted
        encrypted = True
        return b""

    try:
        context.load_cert_chain(cert, key or None, password)
    except (ssl.SSLError, ValueError, OSError) as error:
        if encrypted:
            raise TlsFiles(f"{key or cert} is encrypted; expected a key without password") from None
        if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
            raise TlsFiles(f"{key or cert} is not the key of {cert}") from error
        raise TlsFiles(
            f"{cert} has no certificate, or {key or 'it'} no key, in PEM format"
        ) from error


MakeContext = Callable[[UpstreamTls, tuple[str, ...]], ssl.SSLContext]
"""Returns the context for settings and protocols of ALPN. Raises TlsFiles."""


class TlsClient:
    """The context for connections with the same settings, read again when its files change. A
    file that cannot be used any more leaves the context as it is."""

    def __init__(
        self,
        config: UpstreamTls,
        clock: Callable[[], float] = time.monotonic,
        alpn: tuple[str, ...] = HTTP1_ALPN,
        make: MakeContext = make_context,
    ) -> None:
        self.config = config
        self._make = make
        self._alpn = alpn
        self._clock = clock
        self._context: ssl.SSLContext | None = None
        self._versions: tuple[tuple[int, int, int], ...] = ()
        self._next_check = 0.0

    def context(self) -> ssl.SSLContext:
        """Return the context. Raises TlsFiles if there was none yet and a file cannot be used."""
        now = self._clock()
        if self._context is not None and now < self._next_check:
            return self._context
        self._next_check = now + FILE_CHECK
        versions = tuple(map(_file_version, self._files()))
        if self._context is None or versions != self._versions:
            try:
                self._context = self._make(self.config, self._alpn)
                self._versions = versions
            except TlsFiles:
                if self._context is None:
                    raise
        return self._context

    def _files(self) -> list[str]:
        config = self.config
        return [file for file in (config.ca, config.cert, config.key) if file]


def _file_version(file: str) -> tuple[int, int, int]:
    """Return what changes when a file is written or replaced; zeros if it does not exist."""
    try:
        found = os.stat(file)
    except OSError:
        return (0, 0, 0)
    return (found.st_ino, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=MAX_CLIENTS)
def get_client(config: UpstreamTls, alpn: tuple[str, ...] = HTTP1_ALPN) -> TlsClient:
    """Return the client for these settings, the same one at each call."""
    return TlsClient(config, alpn=alpn)


class TlsEndpoint:
    """TLS to one endpoint. To the event loop it is the SSL context of its connections: it adds the
    session of an earlier one, which saves the certificate exchange and its computations.

    - `server_name`: the name that is asked for, and that the certificate must have.
    """

    def __init__(self, client: TlsClient, server_name: str) -> None:
        self.server_name = server_name
        self._client = client
        self._context: ssl.SSLContext | None = None
        self._last: ssl.SSLObject | None = None
        self._session: ssl.SSLSession | None = None

    def prepare(self) -> ssl.SSLContext:
        """Return the context for the next connection. Raises TlsFailed if a file cannot be
        used."""
        try:
            context = self._client.context()
        except TlsFiles as error:
            raise TlsFailed(str(error)) from error
        if context is not self._context:
            # A session belongs to the context in which it was made.
            self._context, self._session, self._last = context, None, None
        return cast("ssl.SSLContext", self)

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | None = None,
    ) -> ssl.SSLObject:
        """Return the TLS state of a new connection. The event loop calls it."""
        context = self._context
        assert context is not None
        self._remember_session()
        made = context.wrap_bio(
            incoming, outgoing, server_side, server_hostname, session=self._session
        )
        self._last = made
        return made

    def _remember_session(self) -> None:
        """Keep the session of the last connection, if it can be resumed. The server sends it some
        time after the handshake (RFC 8446, section 4.6.1)."""
        last = self._last
        if last is None:
            return
        try:
            found = last.session
        except ValueError:
            # The handshake is not complete.
            return
        by_id = last.version() == "TLSv1.2"
        if found is not None and (found.has_ticket or by_id):
            self._session = found
