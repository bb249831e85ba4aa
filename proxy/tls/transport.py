"""The transport of a TLS connection of a client, from the end of its handshake on.

`handshake` creates one. To the event loop it is the protocol of the encrypted bytes (their
transport is the *carrier*), to the protocol of the connection (`proxy.request.downstream`,
`proxy.http2_downstream`) a transport. Encryption is that of Python's `ssl`. What arrives is
decrypted as a whole and passed on in one call, and a connection keeps no buffer for reading.
"""

import asyncio
import ssl
from collections.abc import Sequence
from typing import Any, Final, cast

RECORD: Final = 16 * 1024
"""Bytes that are encrypted at once: the contents of one record at most (RFC 8446, section 5.1). The
buffer of encrypted bytes never gets smaller, so it must not get large."""
TOGETHER: Final = 4 * RECORD
"""Bytes whose records are sent together: the kernel makes one large packet of them. Each record is
encrypted and copied while it is in the first caches."""
DECRYPTED: Final = 32 * 1024
"""Bytes that are decrypted at once, for the same reason. The incomplete record at the end of each
piece costs an exception."""


def object_inside(connection: ssl.SSLObject) -> ssl.SSLObject:
    """Return the object of C inside, or that object itself. It has the same methods, with arguments
    by position only, and saves a call of Python for each."""
    return cast("ssl.SSLObject", getattr(connection, "_sslobj", connection))


class TlsTransport:
    """One connection. It has the methods of an `asyncio.Transport` and of an `asyncio.Protocol`
    without the base classes, so that it can be compiled to a native class.

    - `carrier`: the transport of the encrypted bytes.
    """

    __slots__ = (
        "_closing",
        "_connection",
        "_incoming",
        "_outgoing",
        "_paused",
        "_peer_ended",
        "_protocol",
        "_state",
        "carrier",
    )

    def __init__(
        self,
        carrier: asyncio.Transport,
        protocol: asyncio.Protocol,
        connection: ssl.SSLObject,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
    ) -> None:
        self.carrier = carrier
        self._protocol = protocol
        self._state = connection
        self._connection = object_inside(connection)
        self._incoming = incoming
        self._outgoing = outgoing
        self._closing = False
        self._paused = False
        self._peer_ended = False

    # --- called by the event loop

    def data_received(self, data: bytes) -> None:
        """Decrypt bytes of the client, and pass them on."""
        if self._closing:
            self._discard(data)
            return
        incoming, connection = self._incoming, self._connection
        try:
            size = len(data)
            if size > DECRYPTED:
                plain = self._decrypt(data)
            else:
                incoming.write(data)
                plain = connection.read(size)
                if not plain:
                    self._peer_ended = True
                elif incoming.pending or connection.pending():
                    pieces = [plain]
                    self._read_rest(pieces)
                    plain = b"".join(pieces)
        except ssl.SSLWantReadError:
            # A part of a record, or one without contents.
            plain = b""
        except ssl.SSLZeroReturnError:
            # The client's end, after that of our direction.
            plain = b""
            self._peer_ended = True
        except ssl.SSLError:
            self._fail()
            return
        # Reading may have written: the answer to a new key of the client leaves before our next
        # bytes, and no sooner (RFC 8446, section 4.6.3).
        if plain:
            self._protocol.data_received(plain)
        if self._peer_ended:
            self._end()

    def begin(self) -> None:
        """Pass on what the client has sent together with the end of its handshake."""
        pieces: list[bytes] = []
        try:
            self._read_rest(pieces)
        except ssl.SSLError:
            self._fail()
            return
        if pieces:
            self._protocol.data_received(b"".join(pieces))
        if self._peer_ended:
            self._end()

    def _end(self) -> None:
        """Act on the client's end."""
        self._protocol.eof_received()
        self.close()

    def _decrypt(self, data: bytes) -> bytes:
        """Return the contents of many records."""
        pieces: list[bytes] = []
        view = memoryview(data)
        for start in range(0, len(data), DECRYPTED):
            self._incoming.write(view[start : start + DECRYPTED])
            self._read_rest(pieces)
        return b"".join(pieces)

    def _read_rest(self, pieces: list[bytes]) -> None:
        """Add the contents of the complete records that have arrived."""
        incoming, connection = self._incoming, self._connection
        try:
            while incoming.pending or connection.pending():
                plain = connection.read(RECORD)
                if not plain:
                    self._peer_ended = True
                    return
                pieces.append(plain)
        except ssl.SSLWantReadError:
            return
        except ssl.SSLZeroReturnError:
            self._peer_ended = True

    def eof_received(self) -> bool:
        """End the connection: a client that ends its side without a notice ends both."""
        if not self._closing:
            self._protocol.eof_received()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    # --- called by the protocol

    def write(self, data: bytes) -> None:
        """Encrypt bytes and send them."""
        if self._closing:
            return
        if len(data) > RECORD:
            view = memoryview(data)
            for start in range(0, len(data), TOGETHER):
                self._write_records(
                    [
                        view[at : at + RECORD]
                        for at in range(start, min(start + TOGETHER, len(data)), RECORD)
                    ]
                )
            return
        try:
            self._connection.write(data)
            self.carrier.write(self._outgoing.read())
        except ssl.SSLError:
            self._fail()

    def writelines(self, pieces: list[bytes]) -> None:
        """Encrypt pieces of at most one record each, and send them at once."""
        if not self._closing:
            self._write_records(pieces)

    def _write_records(self, pieces: Sequence[bytes | memoryview]) -> None:
        """Encrypt each piece as one record, and send them in one call of the kernel."""
        connection, outgoing = self._connection, self._outgoing
        records: list[bytes] = []
        failed = False
        try:
            for piece in pieces:
                connection.write(piece)
                records.append(outgoing.read())
        except ssl.SSLError:
            failed = True
        self.carrier.writelines(records)
        if failed:
            self._fail()

    def close(self) -> None:
        """End the connection once everything is sent: with a notice to the client, and when its
        notice has come. The caller aborts it if that takes too long."""
        if self._closing:
            return
        self._closing = True
        complete = True
        try:
            cast("Any", self._connection).shutdown()
        except ssl.SSLWantReadError:
            complete = False
        except ssl.SSLError:
            pass
        self._flush()
        if complete:
            self.carrier.close()
        elif self._paused:
            self._paused = False
            self.carrier.resume_reading()

    def _discard(self, data: bytes) -> None:
        """Drop bytes behind our end. After the client's end close the carrier."""
        self._incoming.write(data)
        try:
            while self._connection.read(RECORD):
                pass
        except ssl.SSLWantReadError:
            return
        except ssl.SSLError:
            # Also the client's end.
            pass
        self.carrier.close()

    def _fail(self) -> None:
        """End a connection whose bytes are not valid, with the alert that OpenSSL has written."""
        self._closing = True
        self._flush()
        self.carrier.close()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self.carrier.write(self._outgoing.read())

    def abort(self) -> None:
        """End the connection at once."""
        self._closing = True
        self.carrier.abort()

    def is_closing(self) -> bool:
        return self._closing or self.carrier.is_closing()

    def pause_reading(self) -> None:
        self._paused = True
        self.carrier.pause_reading()

    def resume_reading(self) -> None:
        self._paused = False
        self.carrier.resume_reading()

    def set_protocol(self, protocol: asyncio.Protocol) -> None:
        self._protocol = protocol

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the limits in encrypted bytes."""
        self.carrier.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        """Return the number of encrypted bytes that have not left yet."""
        return self.carrier.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what the carrier knows, and under `ssl_object` the state of TLS."""
        if name == "ssl_object":
            return self._state
        return self.carrier.get_extra_info(name, default)
