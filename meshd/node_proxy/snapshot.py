"""The snapshot of the mesh as the proxy of another node can use it.

`proxies` sends the result. What is about the host of the control process alone is left out:
gateways and virtual addresses of its container networks, source addresses of its containers (on
another node, another container may have the same), Unix sockets, and ports at one of its addresses.
Certificates are sent with their content, because their files are on that host.
"""

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from proxy.ipc import address as addresses
from proxy.wire.snapshot import AcmeChallenge, CertificateFiles, Listener, Service, Snapshot

_WILDCARDS: Final = ("0.0.0.0", "::")
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
ReadFile = Callable[[str], str]
"""Returns the content of a PEM file. Raises OSError."""


class NodeSnapshots:
    """Makes snapshots for other nodes. Services that did not change since the last one stay the
    same objects, and files are read again only when their version changes."""

    def __init__(self, read: ReadFile) -> None:
        self._read = read
        self._services: dict[tuple[str, str], Service] = {}
        self._files: dict[CertificateFiles, CertificateFiles] = {}

    def convert(self, snapshot: Snapshot) -> Snapshot:
        """Return the snapshot for other nodes, with the same generation."""
        files = {
            each: self._files.get(each) or self._with_content(each)
            for each in _list_files(snapshot)
        }
        self._files = {each: content for each, content in files.items() if content is not None}
        keys = [(each.name, each.fingerprint) for each in snapshot.services]
        self._services = {
            key: self._services.get(key) or _convert_service(each)
            for key, each in zip(keys, snapshot.services, strict=True)
        }
        listeners = (_convert_listener(each) for each in snapshot.listeners)
        return msgspec.structs.replace(
            snapshot,
            services=tuple(self._services.values()),
            listeners=tuple(each for each in listeners if each is not None),
            callers={},
            virtual={},
            certificates=tuple(
                self._files[each] for each in snapshot.certificates if each in self._files
            ),
            challenges=tuple(_convert_challenge(each, self._files) for each in snapshot.challenges),
        )

    def _with_content(self, files: CertificateFiles) -> CertificateFiles | None:
        """Return the files with their content; None if they cannot be read."""
        if files.cert_pem:
            return files
        try:
            cert = self._read(files.cert)
            key = self._read(files.key) if files.key else ""
        except OSError:
            return None
        return msgspec.structs.replace(files, cert_pem=cert, key_pem=key)


def _list_files(snapshot: Snapshot) -> list[CertificateFiles]:
    answers = [each.certificate for each in snapshot.challenges if each.certificate is not None]
    return [*snapshot.certificates, *answers]


def _convert_challenge(
    challenge: AcmeChallenge, files: Mapping[CertificateFiles, CertificateFiles]
) -> AcmeChallenge:
    if challenge.certificate is None:
        return challenge
    return msgspec.structs.replace(challenge, certificate=files.get(challenge.certificate))


def _convert_service(service: Service) -> Service:
    """Leave out endpoints at Unix sockets, which are on the other host."""
    if all(not each.path for each in service.endpoints):
        return service
    kept = tuple(each for each in service.endpoints if not each.path)
    return msgspec.structs.replace(
        service, endpoints=kept, fingerprint=f"{service.fingerprint}:without-sockets"
    )


def _convert_listener(listener: Listener) -> Listener | None:
    """Return a listener as another node has it; None if it has none."""
    if listener.kind not in ("published", "token"):
        return None
    try:
        parsed = addresses.parse(listener.address)
    except addresses.BadAddress:
        return None
    if parsed.path or parsed.host in _LOOPBACK:
        return None
    if listener.kind == "token":
        # Each node has its own address for the calls of replicas.
        host = "::" if ":" in parsed.host else "0.0.0.0"
        return msgspec.structs.replace(listener, address=str(addresses.Address(host, parsed.port)))
    return listener if parsed.host in _WILDCARDS else None
