"""The TLS side of one worker: the contexts of its listeners, and their ticket keys.

`worker` owns the only one and passes on what the supervisor sends; `Acceptor` gets the protocol
factories of listeners with TLS here.
"""

import asyncio
import functools
from collections.abc import Callable

from proxy.request.data_plane import DataPlane
from proxy.tls.contexts import ServerContexts
from proxy.wire.snapshot import CertificateFiles, Listener, Snapshot
from proxy.worker import negotiated


class TlsListeners:
    """The contexts of all listeners with TLS, by address."""

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane
        self._contexts: dict[str, ServerContexts] = {}
        self._certificates: tuple[CertificateFiles, ...] = ()
        self._challenges: dict[str, CertificateFiles] = {}
        self._secrets: tuple[bytes, ...] = ()

    def protocol_factory(self, listener: Listener) -> Callable[[Listener], asyncio.Protocol]:
        """Return a function that creates the protocol of a connection to a listener with TLS. It
        gets the listener, with the client that a PROXY header named. What was known of the address
        is replaced; open connections and handshakes continue."""
        contexts = ServerContexts(listener, negotiated.offered_protocols(listener))
        contexts.use_ticket_secrets(self._secrets)
        self._update(contexts)
        self._contexts[listener.address] = contexts
        self._plane.start_timers()
        return functools.partial(negotiated.create_handshake, self._plane, contexts)

    def install(self, snapshot: Snapshot) -> None:
        """Serve the certificates and answer the challenges of a snapshot."""
        challenges = {
            each.domain: each.certificate for each in snapshot.challenges if each.certificate
        }
        if (snapshot.certificates, challenges) == (self._certificates, self._challenges):
            return
        self._certificates, self._challenges = snapshot.certificates, challenges
        for contexts in self._contexts.values():
            self._update(contexts)

    def use_ticket_secrets(self, secrets: tuple[bytes, ...]) -> None:
        """Share session tickets with the other workers."""
        self._secrets = secrets
        for contexts in self._contexts.values():
            contexts.use_ticket_secrets(secrets)

    def _update(self, contexts: ServerContexts) -> None:
        """Serve the certificates and answer the challenges, except at the port for other proxies,
        which has one certificate."""
        if contexts.serves_peers:
            return
        problems = contexts.share(self._certificates) + contexts.challenge(self._challenges)
        for problem in problems:
            self._plane.report_problem(problem)
