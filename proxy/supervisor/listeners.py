"""The set of open listening addresses: those of the configuration plus those of the snapshot.

Owned by `supervisor`. Configured addresses stay open for the whole life of the process; the
others are opened and closed as the snapshot changes. `proxy.ipc.sockets` opens the sockets.
"""

import os
from collections.abc import Mapping
from typing import Final

from proxy.ipc.address import BadAddress, parse
from proxy.ipc.config import PeerConfig
from proxy.ipc.sockets import OpenSockets, adopt, open_address, set_mode
from proxy.peer.files import read_node
from proxy.supervisor.listener_certificates import ListenerCertificates, Reread
from proxy.supervisor.upgrade import close_unused
from proxy.supervisor.worker_handle import OpenListeners
from proxy.tls.certificate import UnusableCertificate
from proxy.wire.report import ListenFailed, Listening, Peer
from proxy.wire.snapshot import CertificateFiles, Listener, ListenerTls, Snapshot

PEER_HANDSHAKES: Final = 1024
"""Unfinished handshakes of one other node at a worker: its proxy opens many connections at once
after a change of the snapshot."""


class Listeners:
    """The open listening addresses and their sockets.

    `configured` are the addresses of the configuration, `settings` what is set of some of them.
    `peer` is the port for the proxies of other nodes, which is open once its certificate exists.

    - `open`: open listeners by configured address
    - `listen_errors`: error text by address, for addresses that could not be opened
    """

    def __init__(
        self,
        configured: tuple[str, ...],
        settings: tuple[Listener, ...],
        slots: int,
        peer: PeerConfig | None = None,
    ) -> None:
        given = {listener.address: listener for listener in settings}
        self._configured = {each: given.get(each, Listener(each)) for each in configured}
        self._slots = slots
        self._peer = peer
        self._certificates = ListenerCertificates()
        self.open: OpenListeners = {}
        self.listen_errors: dict[str, str] = {}
        self._asked: dict[str, Listener] = {}

    def adopt(self, inherited: Mapping[str, OpenSockets], snapshot: Snapshot) -> None:
        """Take over sockets that were opened before an upgrade."""
        wanted = self._wanted(snapshot)
        for address, sockets in inherited.items():
            if address in wanted:
                listening = adopt(sockets.bound, sockets.descriptors, self._slots)
                set_mode(listening.bound, wanted[address].mode)
                self.open[address] = (wanted[address], listening)
        close_unused(inherited, self.open)

    @property
    def has_tls(self) -> bool:
        """Whether an open listener has TLS."""
        return any(listener.tls is not None for listener, _ in self.open.values())

    def check_certificates(self, snapshot: Snapshot) -> dict[str, str]:
        """Read the certificates of all wanted listeners. Return an error text by address."""
        errors = {}
        for address, listener in self._wanted(snapshot).items():
            try:
                self._certificates.fill(listener)
            except UnusableCertificate as error:
                errors[address] = f"tls: {error}"
        return errors

    def reread_certificates(self) -> Reread:
        """Read the certificate files that have changed; may run in a thread."""
        return self._certificates.reread()

    def adopt_certificates(self, found: Reread) -> bool:
        """Use what was read again. Return whether open listeners have changed."""
        if not self._certificates.adopt(found):
            return False
        self.open = {
            address: (self._certificates.fill(self._asked[address]), listening)
            for address, (_, listening) in self.open.items()
        }
        return True

    def sync(self, snapshot: Snapshot) -> None:
        """Open the wanted addresses that are closed; close the others."""
        wanted = self._wanted(snapshot)
        self.listen_errors = {}
        synced: OpenListeners = {}
        for address, (current, listening) in self.open.items():
            if address in wanted:
                synced[address] = (self._fill(wanted[address], current), listening)
            else:
                listening.close()
        for address in wanted.keys() - synced.keys():
            try:
                filled = self._certificates.fill(wanted[address])
                opened = open_address(address, self._slots, filled.mode)
                synced[address] = (filled, opened)
            except (OSError, BadAddress, UnusableCertificate) as error:
                self.listen_errors[address] = error_text(error)
        self.open = synced
        self._asked = wanted
        self._certificates.forget_unused({each.tls for each in wanted.values() if each.tls})

    def _fill(self, listener: Listener, current: Listener) -> Listener:
        """Return a listener with its certificates; the current one if they cannot be used."""
        try:
            return self._certificates.fill(listener)
        except UnusableCertificate as error:
            self.listen_errors[listener.address] = error_text(error)
            return current

    def close(self) -> None:
        """Close every address."""
        for _, listening in self.open.values():
            listening.close()

    def listening_message(self) -> Listening:
        """Return the feed message that lists the open addresses."""
        bound = {asked: listening.bound for asked, (_, listening) in self.open.items()}
        return Listening(bound, self._describe_peer(bound))

    def _describe_peer(self, bound: Mapping[str, str]) -> Peer | None:
        name = read_node(self._peer.certificate) if self._peer is not None else ""
        if self._peer is None or not name:
            return None
        where = bound.get(self._peer.listen)
        return Peer(name, parse(where).port if where else 0)

    @property
    def is_peer_due(self) -> bool:
        """Whether the certificate for the proxies of other nodes exists, and their port is not
        open."""
        peer = self._peer
        return peer is not None and peer.listen not in self._asked and _has_files(peer)

    def failure_messages(self) -> list[ListenFailed]:
        """Return one feed message per address that could not be opened."""
        return [ListenFailed(address, error) for address, error in self.listen_errors.items()]

    def export(self) -> dict[str, OpenSockets]:
        """Return the open sockets by number, for an upgrade."""
        return {asked: listening.export() for asked, (_, listening) in self.open.items()}

    def _wanted(self, snapshot: Snapshot) -> dict[str, Listener]:
        # A snapshot's listener replaces the plain one of a configured address: it has more detail.
        wanted = self._configured | {each.address: each for each in snapshot.listeners}
        if self._peer is not None and _has_files(self._peer):
            wanted[self._peer.listen] = peer_listener(self._peer)
        return wanted


def peer_listener(peer: PeerConfig) -> Listener:
    """Return the listener for the proxies of other nodes: TLS 1.3, and a certificate of the mesh is
    required."""
    tls = ListenerTls(
        certificates=(CertificateFiles(peer.certificate),),
        client_ca=peer.authority,
        client="required",
        minimum="1.3",
        http2=False,
        handshakes_per_address=PEER_HANDSHAKES,
    )
    return Listener(peer.listen, "peer", tls=tls)


def _has_files(peer: PeerConfig) -> bool:
    return os.path.exists(peer.certificate) and os.path.exists(peer.authority)


def error_text(error: Exception) -> str:
    """Return the text of an error, without the errno prefix."""
    return (isinstance(error, OSError) and error.strerror) or str(error)
