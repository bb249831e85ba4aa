"""The SSL contexts of one listener: settings, certificates by server name, ticket keys.

`proxy.worker.tls_listeners` owns one `ServerContexts` for each listener with TLS. Settings are
Mozilla's "intermediate" ones (https://wiki.mozilla.org/Security/Server_Side_TLS, version 5.7)
without finite-field Diffie-Hellman, which no browser of the list needs.
"""

import hashlib
import hmac
import ssl
from collections.abc import Mapping, Sequence
from typing import Final

from proxy.tls import openssl
from proxy.tls.certificate import UnusableCertificate, load_chain, read_file
from proxy.wire.snapshot import CertificateFiles, Listener, ListenerTls

CIPHERS: Final = ":".join(
    (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-RSA-CHACHA20-POLY1305",
    )
)
"""Ciphers of TLS 1.2; those of TLS 1.3 are all in Mozilla's list."""
ACME_PROTOCOL: Final = "acme-tls/1"
"""The only protocol that a client offers to check a challenge (RFC 8737, section 3)."""
_TICKET_LABEL: Final = b"meshd ticket keys "
"""Separates these keys from other uses of the secret."""


def make_context(
    tls: ListenerTls, certificate: CertificateFiles | None, protocols: Sequence[str]
) -> ssl.SSLContext:
    """Return a context that serves one certificate.

    Raises UnusableCertificate or errors of `ssl`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    newest_only = tls.minimum == "1.3"
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if newest_only else ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    openssl.set_ciphersuites(context)
    # AES-128 first, but a client without AES in hardware, which prefers ChaCha20, gets that.
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE | openssl.PRIORITIZE_CHACHA
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    if protocols:
        context.set_alpn_protocols(list(protocols))
    # One ticket resumes one connection, whose handshake brings the next.
    context.num_tickets = 1
    openssl.disable_session_cache(context)
    openssl.set_groups(context)
    if tls.client != "none":
        required = tls.client == "required"
        context.load_verify_locations(cadata=tls.client_ca_pem or read_file(tls.client_ca))
        context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
    if certificate is not None:
        cert = certificate.cert_pem or read_file(certificate.cert)
        key = certificate.key_pem
        if not certificate.cert_pem and certificate.key:
            key = read_file(certificate.key)
        load_chain(context, cert, key)
    return context


class ServerContexts:
    """The contexts of one listener.

    - `asks_clients`: whether clients are asked for a certificate
    - `serves_peers`: whether clients are the proxies of other nodes
    - `default`: the context of clients whose server name has no certificate, or that send none.
      Connections begin with it, or with that of `find_renewing`.
    """

    def __init__(self, listener: Listener, protocols: Sequence[str]) -> None:
        assert listener.tls is not None
        self._tls = listener.tls
        self.asks_clients = listener.tls.client != "none"
        self.serves_peers = listener.kind == "peer"
        self._address = listener.address
        self._protocols = tuple(protocols)
        self._own = [
            (each, make_context(self._tls, each, protocols)) for each in listener.tls.certificates
        ]
        self._shared: dict[CertificateFiles, ssl.SSLContext] = {}
        self._by_name: dict[str, ssl.SSLContext] = {}
        self._challenges: dict[str, tuple[CertificateFiles, ssl.SSLContext]] = {}
        self._secrets: tuple[bytes, ...] = ()
        self._renewing: ssl.SSLContext | None = None
        self._old_names: tuple[bytes, ...] = ()
        self._empty = make_context(self._tls, None, protocols)
        self.default = self._empty
        self._index()

    @property
    def has_challenges(self) -> bool:
        """Whether the choice of the certificate depends on the protocols that a client offers."""
        return bool(self._challenges)

    def share(self, certificates: Sequence[CertificateFiles]) -> list[str]:
        """Serve these certificates besides the listener's own. Return a text for each one that
        cannot be used; its version before is served on."""
        problems = []
        shared: dict[CertificateFiles, ssl.SSLContext] = {}
        before = {(each.cert, each.names): each for each in self._shared}
        for each in certificates:
            context = self._shared.get(each)
            if context is None:
                try:
                    context = make_context(self._tls, each, self._protocols)
                except Exception as error:  # noqa: BLE001 (one certificate must not stop the others)
                    problems.append(f"certificate {each.cert} cannot be used: {error}")
                    known = before.get((each.cert, each.names))
                    if known is None:
                        continue
                    each, context = known, self._shared[known]
            shared[each] = context
        if shared != self._shared:
            self._shared = shared
            self._index()
        return problems

    def challenge(self, certificates: Mapping[str, CertificateFiles]) -> list[str]:
        """Answer these challenges, by domain. Return a text for each that cannot be answered."""
        problems = []
        challenges: dict[str, tuple[CertificateFiles, ssl.SSLContext]] = {}
        for domain, each in certificates.items():
            known = self._challenges.get(domain)
            if known is not None and known[0] == each:
                challenges[domain] = known
                continue
            try:
                context = make_context(ListenerTls(), each, (ACME_PROTOCOL,))
                challenges[domain] = (each, context)
            except Exception as error:  # noqa: BLE001 (one challenge must not stop the others)
                problems.append(f"challenge for {domain} cannot be answered: {error}")
        self._challenges = challenges
        return problems

    def find_challenge(self, server_name: str, protocols: Sequence[bytes]) -> ssl.SSLContext | None:
        """Return the context for a client that checks a challenge; None for any other client."""
        if tuple(protocols) != (ACME_PROTOCOL.encode(),):
            return None
        found = self._challenges.get(server_name)
        return found and found[1]

    def use_ticket_secrets(self, secrets: tuple[bytes, ...]) -> bool:
        """Derive the ticket keys from secrets that all workers share, the current one first. Return
        False without the binding: each context keeps its own random keys then."""
        self._secrets = secrets
        self._renewing, self._old_names = None, ()
        if not secrets:
            return True
        keys = [self._ticket_keys(each) for each in secrets]
        # Tickets are made and read with the keys of the context that a connection began with.
        if not openssl.set_ticket_keys(self.default, keys[0]):
            return False
        if len(keys) > 1:
            try:
                self._renewing = self._make_renewing(keys)
            except (OSError, UnusableCertificate):
                # A file is gone: tickets of the secret before are not accepted.
                return True
            self._old_names = tuple(openssl.ticket_name(each) for each in keys[1:])
        return True

    def _make_renewing(self, keys: Sequence[bytes]) -> ssl.SSLContext:
        """Return a context like the default one that accepts tickets of all keys."""
        every = [*self._own, *self._shared.items()]
        certificate = every[0][0] if every else None
        context = make_context(self._tls, certificate, self._protocols)
        context.sni_callback = self._choose if len(every) > 1 else None
        openssl.renew_tickets(context, keys)
        return context

    def find_renewing(self, hello: bytes) -> ssl.SSLContext | None:
        """Return the context for a client whose ticket was made with the secret before, by the
        first bytes of its connection; None for any other client. A ticket names its keys."""
        for name in self._old_names:
            if name in hello:
                return self._renewing
        return None

    def _ticket_keys(self, secret: bytes) -> bytes:
        """Keys for this listener: a session of a listener with other rules for client certificates
        must not be resumed here."""
        tls = self._tls
        rules = "\0".join((self._address, tls.client, tls.client_ca_pem, tls.minimum))
        label = _TICKET_LABEL + hashlib.sha256(rules.encode()).digest()
        blocks = (hmac.digest(secret, label + bytes((index,)), "sha512") for index in range(2))
        return b"".join(blocks)[: openssl.TICKET_KEY_BYTES]

    def _index(self) -> None:
        """Compute which certificate each name has, and the default."""
        every = [*self._own, *self._shared.items()]
        by_name: dict[str, ssl.SSLContext] = {}
        for certificate, context in every:
            for name in certificate.names:
                by_name.setdefault(name.lower(), context)
        self._by_name = by_name
        self.default = every[0][1] if every else self._empty
        # With one certificate there is nothing to choose.
        self.default.sni_callback = self._choose if len(every) > 1 else None
        self.use_ticket_secrets(self._secrets)

    def _choose(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        del context
        if name is not None:
            found = self.find(name)
            if found is not None and found is not connection.context:
                connection.context = found

    def find(self, name: str) -> ssl.SSLContext | None:
        """Return the context of the certificate for a host; None if there is none."""
        name = name.lower()
        found = self._by_name.get(name)
        if found is None:
            _, dot, parent = name.partition(".")
            found = self._by_name.get(f"*.{parent}") if dot else None
        return found
