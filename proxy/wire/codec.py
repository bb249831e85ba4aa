"""Framing and encoding of messages: a 4-byte big-endian length, then MessagePack.

Decoding checks every field against the schema, so that a malformed message is an error where
it enters, never an odd value later. No pickle: a peer can make us refuse, not execute.
"""

import struct
from typing import Final

import msgspec

from proxy.wire.report import Message

LONGEST: Final = 64 * 1024 * 1024
_HEADER: Final = struct.Struct(">I")
_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Message)


class BadFrame(Exception):
    """A frame is longer than allowed, or its content is not a message."""


def encode(message: Message) -> bytes:
    """One whole frame."""
    body = _encoder.encode(message)
    if len(body) > LONGEST:
        raise BadFrame(f"a message of {len(body)} bytes is over the limit of {LONGEST}")
    return _HEADER.pack(len(body)) + body


class Decoder:
    """Turns a stream of bytes into messages; keeps what is incomplete, from `unread` on."""

    def __init__(self, unread: bytes = b"") -> None:
        self._buffer = bytearray(unread)

    @property
    def unread(self) -> bytes:
        """What makes no message yet."""
        return bytes(self._buffer)

    def feed(self, data: bytes) -> list[Message]:
        """The messages completed by `data`. Raises BadFrame; the stream is of no use then."""
        buffer = self._buffer
        buffer += data
        messages: list[Message] = []
        start = 0
        while len(buffer) - start >= _HEADER.size:
            (length,) = _HEADER.unpack_from(buffer, start)
            if length > LONGEST:
                raise BadFrame(f"a frame announces {length} bytes, over the limit of {LONGEST}")
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
