"""Framing and encoding of messages: a 4-byte big-endian length, then MessagePack.

Used by the feed socket and by the channels between supervisor and workers. Decoding checks every
field against the schema, so that a malformed message is an error on arrival and not a wrong value
later. No pickle: a peer cannot make the receiver execute code.
"""

import struct
from typing import Final

import msgspec

from proxy.wire.report import Message

MAX_MESSAGE: Final = 64 * 1024 * 1024
"""Bytes. A full snapshot of a mesh with tens of thousands of endpoints is smaller."""
_HEADER: Final = struct.Struct(">I")
_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Message)


class BadFrame(Exception):
    """A frame is too long, or its content is not a message."""


def encode(message: Message) -> bytes:
    """Return a message as one complete frame. Raises BadFrame if it is too long."""
    body = _encoder.encode(message)
    if len(body) > MAX_MESSAGE:
        raise BadFrame(f"a message of {len(body)} bytes is over the limit of {MAX_MESSAGE}")
    return _HEADER.pack(len(body)) + body


class Decoder:
    """Decodes a stream of bytes into messages. `unread` is the start of the stream, if known."""

    def __init__(self, unread: bytes = b"") -> None:
        self._buffer = bytearray(unread)

    @property
    def unread(self) -> bytes:
        """Bytes that are not a complete message yet."""
        return bytes(self._buffer)

    def feed(self, data: bytes) -> list[Message]:
        """Return the messages completed by `data`.

        Raises BadFrame; the stream cannot be decoded further then.
        """
        buffer = self._buffer
        buffer += data
        messages: list[Message] = []
        start = 0
        while len(buffer) - start >= _HEADER.size:
            (length,) = _HEADER.unpack_from(buffer, start)
            if length > MAX_MESSAGE:
                raise BadFrame(f"a frame of {length} bytes is over the limit of {MAX_MESSAGE}")
            end = start + _HEADER.size + length
            if len(buffer) < end:
                break
            try:
                messages.append(_decoder.decode(memoryview(buffer)[start + _HEADER.size : end]))
            except msgspec.MsgspecError as error:
                raise BadFrame(str(error)) from error
            start = end
        del buffer[:start]
        return messages
