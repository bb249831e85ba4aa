"""The messages between the proxy of a node and the control process, inside TLS.

`agent` and `enrollment` speak it on the node, `server` in the control process. Each message is a
4-byte big-endian length, then MessagePack. Once the two know each other, both pass on the bytes of
the feed of the node's supervisor (`proxy.wire.codec`). Class and field names are sent, so they are
a contract between versions.
"""

import asyncio
import struct
from typing import Final

import msgspec

from meshd.model.base import Value
from meshd.model.node_proxy import NodeLoad

MAX_NODE_MESSAGE: Final = 512 * 1024
"""Bytes of a message; `FeedBytes` has a part of the feed, and a certificate request is short."""
CHUNK: Final = 256 * 1024
"""Bytes of the feed in one message, so that a large snapshot on a slow network is not silence."""
KEEP_ALIVE_SECONDS: Final = 2.0
"""Seconds between two signs of life in each direction."""
SILENCE_SECONDS: Final = 10.0
"""Seconds without a message after which a connection counts as lost; as for a worker."""
_HEADER: Final = struct.Struct(">I")


class ProtocolError(Exception):
    """The peer sent something that is not a message; the text says what."""


class JoinRequest(Value, frozen=True, tag=True):
    """From a node with a join token: the name that it wants, and a certificate request (PEM)."""

    name: str
    request: str


class RenewRequest(Value, frozen=True, tag=True):
    """From a node: a certificate request (PEM) for its next key."""

    request: str


class CertificateIssued(Value, frozen=True, tag=True):
    """The answer to a request: the certificate (PEM)."""

    certificate: str


class NodeRefused(Value, frozen=True, tag=True):
    """The control process does not serve this peer, for `reason`. The connection ends."""

    reason: str


class FeedBytes(Value, frozen=True, tag=True):
    """Bytes of the feed of the node's supervisor, in either direction."""

    data: bytes


class KeepAlive(Value, frozen=True, tag=True):
    """A sign of life. From a node: how busy it is, if that is known."""

    load: NodeLoad | None = None


NodeMessage = JoinRequest | RenewRequest | CertificateIssued | NodeRefused | FeedBytes | KeepAlive
_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(NodeMessage)


def encode_message(message: NodeMessage) -> bytes:
    """Return a message as one complete frame."""
    body = _encoder.encode(message)
    return _HEADER.pack(len(body)) + body


def encode_feed(data: bytes) -> bytes:
    """Return bytes of a feed as messages."""
    parts = (data[start : start + CHUNK] for start in range(0, len(data), CHUNK))
    return b"".join(encode_message(FeedBytes(part)) for part in parts)


async def read_message(reader: asyncio.StreamReader) -> NodeMessage | None:
    """Return the next message; None at the end of the connection. Raises ProtocolError, OSError,
    and TimeoutError after `SILENCE_SECONDS`."""
    try:
        async with asyncio.timeout(SILENCE_SECONDS):
            (length,) = _HEADER.unpack(await reader.readexactly(_HEADER.size))
            if length > MAX_NODE_MESSAGE:
                raise ProtocolError(f"a message of {length} bytes is over the limit")
            message: NodeMessage = _decoder.decode(await reader.readexactly(length))
            return message
    except asyncio.IncompleteReadError:
        return None
    except msgspec.MsgspecError as error:
        raise ProtocolError(str(error)) from error
