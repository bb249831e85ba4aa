"""What two proxies say to each other before they pass on the bytes of a connection. Pure.

`opening` sends the request, `proxy.tcp.peer_relay` answers. Both are inside TLS 1.3, with
certificates of the mesh on both sides. The request names a port of the receiver's node. **Why not
the server name of TLS:** that is sent in clear text, and a session of TLS is resumed for one name
only, so that each endpoint would cost a full handshake. The answer comes after the receiver has
connected to the endpoint. **Why an answer:** in TLS 1.3 the client may send before the server has
checked its certificate. With the answer, an endpoint that refuses is known before a byte of a
request was sent, which can therefore go elsewhere.
"""

import ssl
from collections.abc import Mapping
from enum import IntEnum
from typing import Any, Final

PEER_ALPN: Final = ("meshd-peer/1",)
"""The protocol in the handshake. A later version adds its name."""
PEER_DOMAIN: Final = "peer.meshd.internal"
"""Domain of the names in certificates; it is resolved nowhere."""
REQUEST_BYTES: Final = 6
"""Bytes of a request: a digit string of the port, and the end of the line."""
OPEN_SECONDS: Final = 10.0
"""Seconds for the request after the handshake: it follows at once, but a packet may be lost."""


class PeerAnswer(IntEnum):
    """The answer to a request, one byte.

    - `connected`: the bytes of the connection follow.
    - `refused`: the endpoint did not accept the connection.
    - `unknown`: no endpoint of the node has this port.
    - `forbidden`: the sender is not a node of the mesh any more.
    """

    CONNECTED = 0
    REFUSED = 1
    UNKNOWN = 2
    FORBIDDEN = 3


def certificate_name(node: str) -> str:
    """Return the name of a node's proxy in its certificate."""
    return f"{node}.{PEER_DOMAIN}"


def read_name(certificate_names: tuple[str, ...]) -> str:
    """Return the node of a verified certificate, by its host names; empty if it is not that of a
    proxy."""
    suffix = f".{PEER_DOMAIN}"
    found = [each.removesuffix(suffix) for each in certificate_names if each.endswith(suffix)]
    return found[0] if len(found) == 1 and "*" not in found[0] else ""


def read_valid_from(certificate: Mapping[str, Any]) -> float:
    """Return from when on a verified certificate is valid (Unix time), as
    `ssl.SSLObject.getpeercert` returns it."""
    return ssl.cert_time_to_seconds(str(certificate["notBefore"]))


def encode_request(port: int) -> bytes:
    """Return the request for a connection to a port of the receiver's node."""
    return b"%05d\n" % port


def decode_request(data: bytes) -> int:
    """Return the port in a complete request; 0 if it is not valid."""
    digits = data[:5]
    if data[5:6] != b"\n" or not digits.isdigit():
        return 0
    port = int(digits)
    return port if port < 65536 else 0
