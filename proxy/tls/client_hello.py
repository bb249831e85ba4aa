"""The beginning of a TLS connection: which host and which protocols the client asks for. Pure.

`handshake` reads it before it starts a handshake, where the choice of the certificate depends on
the protocol; the TCP side reads it where connections are passed on by host. Formats: RFC 8446,
sections 4.1.2 and 5.1; RFC 6066, section 3; RFC 7301, section 3.1.
"""

from dataclasses import dataclass
from typing import Final

MAX_BYTES: Final = 16 * 1024
"""Longest ClientHello that is read. Those of browsers have up to 2 KiB, with post-quantum keys."""
MAX_RECORDS: Final = 16
"""Records that it may come in, so that one that arrives byte by byte costs little."""
_HANDSHAKE: Final = 22
"""Content type of a record."""
_CLIENT_HELLO: Final = 1
"""Type of a handshake message."""
_MAJOR: Final = 3
"""The first byte of the version of a record, for SSL 3.0 and all versions of TLS."""
_RECORD_HEADER: Final = 5
"""Bytes of the header of a record."""
_MESSAGE_HEADER: Final = 4
"""Bytes of the header of a handshake message."""
_MAX_RECORD: Final = 16384
"""Bytes of a record's content."""
_SERVER_NAME: Final = 0
"""Type of the extension with the host."""
_ALPN: Final = 16
"""Type of the extension with the protocols."""


class BadHello(Exception):
    """The bytes are not the beginning of a TLS connection."""


@dataclass(frozen=True, slots=True)
class ClientHello:
    """What a client asks for: a host in lower case, empty for none, and protocols (ALPN)."""

    server_name: str = ""
    protocols: tuple[bytes, ...] = ()


def parse_client_hello(data: bytes) -> ClientHello | None:
    """Return what a client asks for; None if the message is not whole yet. Raises BadHello."""
    message = _collect_message(data)
    if message is None:
        return None
    try:
        return _parse_message(message)
    except IndexError as error:
        raise BadHello from error


def _collect_message(data: bytes) -> bytes | None:
    """The handshake message, put together from its records, without its header."""
    content = b""
    at = 0
    for _ in range(MAX_RECORDS):
        header = data[at : at + _RECORD_HEADER]
        if (header and header[0] != _HANDSHAKE) or (len(header) > 1 and header[1] != _MAJOR):
            raise BadHello
        if len(header) < _RECORD_HEADER:
            return None
        size = _number(header, 3)
        if not 0 < size <= _MAX_RECORD:
            raise BadHello
        at += _RECORD_HEADER
        content += data[at : at + size]
        if content and content[0] != _CLIENT_HELLO:
            raise BadHello
        if len(content) >= _MESSAGE_HEADER:
            end = _MESSAGE_HEADER + int.from_bytes(content[1:_MESSAGE_HEADER])
            if end > MAX_BYTES:
                raise BadHello
            if len(content) >= end:
                return content[_MESSAGE_HEADER:end]
        if len(data) < at + size:
            return None
        at += size
    raise BadHello


def _parse_message(message: bytes) -> ClientHello:
    at = 2 + 32  # version and random
    at += 1 + _byte(message, at)  # session id
    at += 2 + _number(message, at)  # cipher suites
    at += 1 + _byte(message, at)  # compression methods
    if at == len(message):
        return ClientHello()
    end = at + 2 + _number(message, at)
    at += 2
    if end != len(message):
        raise BadHello
    name = ""
    protocols: tuple[bytes, ...] = ()
    while at < end:
        kind, size = _number(message, at), _number(message, at + 2)
        value = message[at + 4 : at + 4 + size]
        if len(value) < size:
            raise BadHello
        if kind == _SERVER_NAME:
            name = _parse_server_name(value)
        elif kind == _ALPN:
            protocols = _parse_protocols(value)
        at += 4 + size
    return ClientHello(name, protocols)


def _parse_server_name(value: bytes) -> str:
    size = _number(value, 3)
    if value[2] != 0 or len(value) < 5 + size:
        raise BadHello
    return value[5 : 5 + size].decode("latin-1").lower()


def _parse_protocols(value: bytes) -> tuple[bytes, ...]:
    found = []
    at = 2
    while at < len(value):
        size = value[at]
        found.append(value[at + 1 : at + 1 + size])
        at += 1 + size
    if at != len(value):
        raise BadHello
    return tuple(found)


def _byte(data: bytes, at: int) -> int:
    return data[at]


def _number(data: bytes, at: int) -> int:
    return data[at] << 8 | data[at + 1]
