"""The identity of a node: joins the mesh with a token, and keeps the certificate on disk.

`meshd.cli.commands.node` joins; `agent` connects with the identity and renews it. Key and
certificate are in one file, so that they always match, readable by its owner only.
"""

import asyncio
import os
import ssl
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from meshd.node_proxy.authority import (
    client_context,
    new_request,
    read_peer_name,
    read_validity,
)
from meshd.node_proxy.identity import CONTROL_NAME
from meshd.node_proxy.join_token import JoinToken
from meshd.node_proxy.protocol import (
    CertificateIssued,
    JoinRequest,
    NodeRefused,
    ProtocolError,
    encode_message,
    read_message,
)
from proxy.ipc import address as addresses

IDENTITY_FILE: Final = "node-identity.pem"
"""File of the node's key and certificate in the state directory, followed by the authority's."""
CONNECT_SECONDS: Final = 5.0
"""Seconds to connect, TLS included: some round trips."""
_BEGIN: Final = "-----BEGIN CERTIFICATE-----"


class JoinFailed(Exception):
    """The node did not join; the text says why and what to do."""


class Refused(Exception):
    """The control process does not serve this node; the text says why."""


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """Who this node is, as PEM: `key`, `certificate`, and the certificate of the `authority`."""

    key: str
    certificate: str
    authority: str

    def context(self, folder: Path) -> ssl.SSLContext:
        """Return the TLS settings to connect with. Raises OSError."""
        return client_context(self.authority, self.key + self.certificate, folder)

    def validity(self) -> tuple[float, float]:
        """Return when the certificate was issued, and when it ends, in Unix time."""
        return read_validity(self.certificate)

    def peer_name(self) -> str:
        """Return the node whose proxy may use it; empty for an identity of an earlier version."""
        return read_peer_name(self.certificate)


def load_identity(state: Path) -> NodeIdentity | None:
    """Return the stored identity; None if this node has not joined. Raises OSError, and JoinFailed
    if the file is damaged."""
    path = state / IDENTITY_FILE
    try:
        text = path.read_text()
    except FileNotFoundError:
        return None
    parts = text.split(_BEGIN)
    if len(parts) != 3:
        raise JoinFailed(f"{path} is damaged; delete it and join again with a new token")
    identity = NodeIdentity(parts[0], _BEGIN + parts[1], _BEGIN + parts[2])
    try:
        identity.validity()
    except ValueError as error:
        raise JoinFailed(f"{path} is damaged; delete it and join again") from error
    return identity


def store_identity(state: Path, identity: NodeIdentity) -> None:
    """Replace the stored identity as a whole. Raises OSError."""
    descriptor, made = tempfile.mkstemp(dir=state, prefix=".new-")  # mode 0600
    with os.fdopen(descriptor, "w") as file:
        file.write(identity.key + identity.certificate + identity.authority)
        file.flush()
        os.fsync(file.fileno())
    os.replace(made, state / IDENTITY_FILE)


def is_open(token: JoinToken) -> bool:
    """Return whether a join token has not expired."""
    return read_validity(token.certificate)[1] >= time.time()


async def open_connection(
    address: str, context: ssl.SSLContext
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to a control process of the mesh. Raises OSError, TimeoutError."""
    parsed = addresses.parse(address)
    async with asyncio.timeout(CONNECT_SECONDS):
        return await asyncio.open_connection(
            parsed.host, parsed.port, ssl=context, server_hostname=CONTROL_NAME
        )


async def join(address: str, token: JoinToken, name: str, state: Path) -> NodeIdentity:
    """Join the mesh as node `name`, and store the identity. Raises JoinFailed."""
    if not is_open(token):
        raise JoinFailed("the join token has expired; make another one with `meshd node token`")
    key, request = new_request()
    try:
        context = client_context(token.authority, token.key + token.certificate, state)
        reader, writer = await open_connection(address, context)
        try:
            writer.write(encode_message(JoinRequest(name, request)))
            answer = await read_message(reader)
        finally:
            writer.transport.abort()
        match answer:
            case CertificateIssued(certificate=certificate):
                identity = NodeIdentity(key, certificate, token.authority)
                store_identity(state, identity)
                return identity
            case NodeRefused(reason=reason):
                raise JoinFailed(f"{address} refused: {reason}")
            case _:
                raise JoinFailed(f"{address} did not accept the token; is it of this mesh?")
    except (OSError, TimeoutError, ProtocolError) as error:
        raise JoinFailed(f"cannot join at {address}: {describe_error(error)}") from error


def describe_error(error: Exception) -> str:
    """Return the reason for a failed connection, for users."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return "it is not a control process of this mesh, or the clocks differ"
    if isinstance(error, ssl.SSLError):
        reason = error.reason or ""
        if "EXPIRED" in reason:
            return (
                "the certificate or join token has expired; remove the node with `meshd node "
                "remove` if it has joined before, and join with a new token"
            )
        if "ALERT" in reason:
            return "it does not accept the certificate; join with a token of this mesh"
        return reason.replace("_", " ").lower() or str(error)
    if isinstance(error, TimeoutError):
        return "no answer"
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
